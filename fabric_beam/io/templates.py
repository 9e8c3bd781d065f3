"""Texts that rows fill in, such as keys and routes."""

from __future__ import annotations

import re

import polars as pl

_DIGITS = {"ms": 3, "us": 6, "ns": 9}
_COLUMN = re.compile(r"\{([^{}]+)\}")


class Template:
    """A text with columns in braces, such as `{service.name}:{offset}`.

    Args:
        template: the text; braces have no other meaning.

    Attributes:
        columns: those that it names.

    Raises:
        ValueError: it is empty, or a brace stands alone.

    Example:
        >>> Template("requests:{host.name}").columns
        ['host.name']
    """

    def __init__(self, template: str) -> None:
        self._parts = _COLUMN.split(template)
        if not template or any(brace in part for part in self._parts[::2] for brace in "{}"):
            raise ValueError(template)
        self.columns = list(dict.fromkeys(self._parts[1::2]))

    def filled(self) -> pl.Expr:
        """The text for each row of a table of texts; null where one of the columns is."""
        return pl.concat_str(
            pl.col(part) if n % 2 else pl.lit(part) for n, part in enumerate(self._parts) if n % 2 or part
        )


def text(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as text: times as RFC 3339, durations as ISO 8601, nested values as JSON, bytes as base64, null as null.

    Example:
        >>> table = pl.DataFrame({"tags": [["a"], None]})
        >>> table.select(text("tags", table.schema["tags"]))["tags"].to_list()
        ['["a"]', None]
    """
    column = pl.col(name)
    match dtype:
        case pl.Datetime():
            zoned = column.dt.convert_time_zone("UTC") if dtype.time_zone else column
            pattern = f"%Y-%m-%dT%H:%M:%S%.{_DIGITS[dtype.time_unit]}f"
            return zoned.dt.strftime(pattern + ("Z" if dtype.time_zone else ""))
        case pl.Time():
            return column.dt.strftime("%H:%M:%S%.6f")
        case pl.Duration():
            return column.dt.to_string("iso")
        case pl.Binary():
            return column.bin.encode("base64")
        case pl.List() | pl.Array() | pl.Struct():
            encoded = pl.struct(column.alias("v")).struct.json_encode().str.strip_prefix('{"v":').str.strip_suffix("}")
            return pl.when(column.is_not_null()).then(encoded).alias(name)
        case _:
            return column.cast(pl.String)
