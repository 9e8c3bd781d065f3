"""JSON lines: one object a line, flattened to columns of known types."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn

import polars as pl

from fabric_beam.errors import UsageError
from fabric_beam.kernel import Split, reject
from transforms.formats.json_fields import JsonFields
from transforms.formats.timestamps import parse_timestamps

_ORIGINAL = "log.record.original"
_ATTRIBUTES = "attributes"
_TAKEN = ("source", "offset", "observed_timestamp", _ORIGINAL, _ATTRIBUTES)
_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


class Json:
    r"""Take lines of JSON objects apart.

    Objects inside are flattened: `{"http": {"status": 200}}` and `{"http.status": 200}` both fill `http.status`. A
    compiled loop takes lines apart; what it is not sure of (such as keys with escapes, or twice the same key) is read
    again by Python's json, at about twenty times the cost. Both ways give the same fields.

    A null is no value; which of several values for one name counts is open, as in RFC 8259. A number
    in a String field is its shortest decimal text, an array or an object there its JSON text; an unpaired surrogate
    becomes U+FFFD. A number or a boolean may be written as a string, an integer with a fraction of zero.

    Args:
        schema: the fields' types by flattened name: String, Boolean, any integer or float, Datetime (read by
            `parse_timestamps`, in UTC). None: no field is a column.

    Columns in: `body`, one line each. Columns out: the schema's fields, null where an object has none; `attributes`, a
    JSON object of all other fields, by flattened name, null if there are none (without a schema: the line);
    `log.record.original` (the line), and the other columns as they came. A field named like one of these columns gets
    the prefix `attributes.`.

    Raises:
        UsageError: the schema has a type that is not listed here.

    Example:
        >>> kernel = Json({"level": pl.String(), "http.status": pl.Int64()})
        >>> kernel(pl.DataFrame({"body": ['{"level": "info", "http": {"status": 200, "path": "/"}}']})).kept.row(0)[:3]
        ('info', 200, '{"http.path": "/"}')

    Source: RFC 8259
    """

    def __init__(self, schema: Mapping[str, pl.DataType] | None) -> None:
        self.schema = pl.Schema(schema or {})
        for name, kind in self.schema.items():
            if not (kind.is_integer() or kind.is_float() or kind in (pl.String, pl.Boolean, pl.Datetime)):
                raise UsageError(
                    f"json: the field {name!r} has the type {kind}: "
                    "expected String, Boolean, Datetime, or an integer or a float type"
                )
        self._fields = JsonFields(self.schema)

    def __call__(self, table: pl.DataFrame) -> Split:
        body = table["body"]
        texts, others, reason = self._decode(body)
        columns: dict[str, pl.Series] = {}
        taken = {*_TAKEN, *table.columns} - {"body"}
        for (name, kind), text in zip(self.schema.items(), texts, strict=True):
            column = _typed(text, kind)
            if column.null_count() > text.null_count():
                wrong = column.is_null() & text.is_not_null() & reason.is_null()
                message = pl.concat_str(
                    pl.lit(f"the field {name!r} does not fit {kind}: "), pl.lit(text.str.slice(0, 80))
                )
                reason = pl.select(pl.when(wrong).then(message).otherwise(pl.lit(reason))).to_series()
            while name in taken:
                name = f"{_ATTRIBUTES}.{name}"  # noqa: PLW2901
            taken.add(name)
            columns[name] = column
        columns |= {_ATTRIBUTES: others if self.schema else body, _ORIGINAL: body}
        kept = pl.DataFrame(
            columns | {column.name: column for column in table if column.name not in ("body", *columns)}
        )
        if reason.null_count() == len(reason):
            return Split(kept, reject(table.clear(), "json", ""))
        bad = reason.is_not_null()
        return Split(kept.filter(~bad), reject(table.filter(bad), "json", pl.lit(reason.filter(bad))))

    def _decode(self, body: pl.Series) -> tuple[list[pl.Series], pl.Series, pl.Series]:
        """Every field's text, the other fields as an object, and the reason against a line."""
        columns, others, left = self._fields(body.fill_null(""))
        reason = pl.Series([None], dtype=pl.String).new_from_index(0, len(body))
        if len(left):
            found = list(zip(*(self._slow(line) for line in body.gather(left)), strict=True))
            for column, texts in zip([*columns, others, reason], found, strict=True):
                column.scatter(left, pl.Series(texts, dtype=pl.String))
        return columns, others, reason

    def _slow(self, line: str | None) -> list[str | None]:
        """What `_decode` says of one line, by Python's json."""
        values: dict[str, str | None] = dict.fromkeys(self.schema)
        others: dict[str, Any] = {}
        try:
            value = _DECODER.decode((line or "").removeprefix("\ufeff"))
            if not isinstance(value, dict):
                raise ValueError(f"not an object but {_KINDS.get(type(value), 'a number')}")
            for name, field in _flatten(value, self.schema):
                if field is None:
                    continue
                if name in values:
                    values[name] = _text(field)
                elif field != {}:
                    others[name] = field
            return [*values.values(), _text(others) if others else None, None]
        except json.JSONDecodeError as error:
            reason = f"not JSON: {error.msg} at character {error.pos + 1}"
            if not (line or "").strip():
                reason = "the line is empty"
        except ValueError as error:
            reason = str(error)
        except RecursionError:
            reason = "nested too deeply"
        return [None] * len(values) + [None, reason]


def infer_schema(lines: Sequence[str]) -> dict[str, pl.DataType]:
    """Find the fields and their types in sample lines.

    Args:
        lines: JSON objects, one a line; other lines are passed over.

    Returns:
        A type for each flattened name, in the order of first sight: Int64, Float64, Boolean, or String, which is also
        the type of arrays, of fields with values of several types (an object among them) and of fields that are always
        null. Integers and floats together are Float64; integers beyond 64 bits are String.

    Example:
        >>> infer_schema(['{"level": "info", "http": {"status": 200}}', '{"took": 1}', '{"took": 1.5}'])
        {'level': String, 'http.status': Int64, 'took': Float64}
    """
    objects = []
    for line in lines:
        try:
            value = _DECODER.decode(line.removeprefix("\ufeff"))
            if isinstance(value, dict):
                objects.append((value, dict(_flatten(value, ()))))
        except (ValueError, RecursionError):
            continue
    # A name that is an object here and a value there is one field of JSON text.
    names = {name for _, fields in objects for name in fields}
    inner = {name[:end] for name in names for end, letter in enumerate(name) if letter == "."}
    mixed = {name for _, fields in objects for name in inner & fields.keys() if fields[name] not in (None, {})}
    kinds: dict[str, set[type]] = {}
    for value, _ in objects:
        for name, field in _flatten(value, mixed):
            big = type(field) is int and not -(2**63) <= field < 2**63
            kinds.setdefault(name, set()).add(str if big else type(field))
    single = {int: pl.Int64(), float: pl.Float64(), bool: pl.Boolean()}
    schema: dict[str, pl.DataType] = {}
    for name, found in kinds.items():
        found.discard(type(None))
        if found != {dict} and (found or name not in inner):
            kind = float if found == {int, float} else next(iter(found)) if len(found) == 1 else str
            schema[name] = single.get(kind, pl.String())
    return schema


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name} is not a number there")


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:40]} is out of range")
    return number


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_float)
_ENCODER = json.JSONEncoder(ensure_ascii=False)


def _flatten(value: dict[str, Any], stop: Collection[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """An object's values by dotted name; an object whose name is in `stop` is a value itself."""
    for key, field in value.items():
        name = prefix + key
        if isinstance(field, dict) and field and name not in stop:
            yield from _flatten(field, stop, f"{name}.")
        else:
            yield name, field


def _text(value: Any) -> str:
    """A value as Polars writes it into a String column."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, float):
        text = repr(value).removesuffix(".0")
        text = format(Decimal(text), "f") if "e" in text else text
    else:
        text = str(value) if type(value) is int else _ENCODER.encode(value)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _typed(text: pl.Series, kind: pl.DataType) -> pl.Series:
    """Text as a type, null where it does not fit."""
    if kind == pl.String:
        return text
    if kind == pl.Boolean:
        return text.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
    if isinstance(kind, pl.Datetime):
        zone = kind.time_zone
        time = parse_timestamps(text)
        return (time.dt.convert_time_zone(zone) if zone else time.dt.replace_time_zone(None)).cast(kind)
    column = text.cast(kind, strict=False)
    if kind.is_float() and column.is_infinite().any():
        return column.set(column.is_infinite() & ~text.str.contains("(?i)inf"), None)
    return column
