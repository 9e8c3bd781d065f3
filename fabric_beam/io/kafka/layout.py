"""Which parts of a row go where in a message of Kafka."""

from __future__ import annotations

import polars as pl

from fabric_beam import dead_letters
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import OutputError, SchemaError, nearest
from fabric_beam.io.kafka.producer import Messages
from fabric_beam.io.store import identities
from fabric_beam.io.templates import Template, text
from fabric_beam.json_rows import to_json

#: The header with the row's identity.
ID = "id"
_KEY, _TIME = "\0key", "\0time"
_JSON = "json"


class MessageLayout:
    """Value, key, headers and time of the messages that rows become.

    Args:
        endpoint: the URL; options that say so are taken out of it.

    Attributes:
        OPTIONS: their names.
    """

    OPTIONS = ("value", "key", "headers", "id", "timestamp")

    def __init__(self, endpoint: Endpoint) -> None:
        self._url = endpoint.url
        self._value = endpoint.option("value", str, "")
        self._key = _Key(endpoint)
        self._headers = _columns(endpoint, "headers")
        self._id = _columns(endpoint, "id")
        self._timestamp = endpoint.option("timestamp", str, "")

    def check(self, schema: pl.Schema) -> None:
        """Say before the run what such rows lack.

        Raises:
            SchemaError: a column that an option names is missing, or of another type than it needs.
            OutputError: a column's type cannot be written.
        """
        value, headers = self._parts(schema)
        is_json = value == _JSON
        others = [self._timestamp, "" if is_json else value]
        for name in [*self._key.columns, *headers, *self._id, *filter(None, others)]:
            if name not in schema:
                raise SchemaError(f"{self._url}: there is no column {name!r}. {nearest(name, schema)}")
        if self._timestamp and not isinstance(schema[self._timestamp], pl.Datetime):
            raise SchemaError(f"{self._url}: timestamp={self._timestamp} is {schema[self._timestamp]}, not a Datetime.")
        if not is_json and schema[value] not in (pl.String, pl.Binary):
            raise SchemaError(
                f"{self._url}: value={value} is {schema[value]}: a message's value is String or Binary, or the whole "
                "row (value=json)."
            )
        used = list(schema) if is_json else [*self._key.columns, *headers]
        for name in used:
            if schema[name] == pl.Object or (schema[name] != pl.Binary and _holds_bytes(schema[name])):
                raise OutputError(f"{self._url}: column {name!r} is {schema[name]}, which JSON cannot hold.")

    def messages(self, table: pl.DataFrame) -> Messages:
        """The messages of a table's rows."""
        schema = table.schema
        value, headers = self._parts(schema)
        columns = [_plain(name, schema).alias(name) for name in headers]
        if self._timestamp:
            columns.append(pl.col(self._timestamp).dt.epoch("ms").alias(_TIME))
        made = table.select(columns)
        return Messages(
            to_json(table) if value == _JSON else table[value],
            self._key.of(table),
            {**{name: made[name] for name in headers}, ID: identities(table, self._id)},
            made[_TIME] if self._timestamp else None,
        )

    def _parts(self, schema: pl.Schema) -> tuple[str, list[str]]:
        """The column that is the value (or `json`), and those that are headers."""
        if not self._value and not self._headers and dict(schema) == dict(dead_letters.SCHEMA):
            return "payload", [name for name in schema if name != "payload"]
        return self._value or _JSON, self._headers


class _Key:
    """The key of messages: none, one column, or a text with columns in braces."""

    def __init__(self, endpoint: Endpoint) -> None:
        given = endpoint.options.get("key", "")
        self._is_column = "{" not in given and "}" not in given
        self._template = endpoint.option("key", _column if self._is_column else _template, None)
        self.columns: list[str] = self._template.columns if self._template else []

    def of(self, table: pl.DataFrame) -> pl.Series | None:
        if self._template is None:
            return None
        texts = table.select(_plain(name, table.schema).alias(name) for name in self.columns)
        return texts.to_series() if self._is_column else texts.select(self._template.filled().alias(_KEY)).to_series()


def _template(key: str) -> Template:
    return Template(key)


_template.__name__ = "a column, or a text with columns in braces, such as {source}:{offset}"


def _column(key: str) -> Template:
    return Template(f"{{{key}}}")


_column.__name__ = _template.__name__


def _columns(endpoint: Endpoint, option: str) -> list[str]:
    names = endpoint.option(option, _names, "")
    return names.split(",") if names else []


def _names(names: str) -> str:
    if not all(names.split(",")):
        raise ValueError(names)
    return names


_names.__name__ = "columns separated by commas"


def _plain(name: str, schema: pl.Schema) -> pl.Expr:
    """A column as a header or key: bytes as they are, all else as text."""
    return pl.col(name) if schema[name] == pl.Binary else text(name, schema[name])


def _holds_bytes(dtype: pl.DataType) -> bool:
    match dtype:
        case pl.List() | pl.Array():
            return _holds_bytes(dtype.inner)  # type: ignore[arg-type]
        case pl.Struct():
            return any(_holds_bytes(field.dtype) for field in dtype.fields)  # type: ignore[arg-type]
    return dtype == pl.Binary
