"""Rows as JSON objects, and back."""

from __future__ import annotations

import polars as pl

from fabric_beam.errors import SchemaError

_DIGITS = {"ms": 3, "us": 6, "ns": 9}


def to_json(table: pl.DataFrame) -> pl.Series:
    """Each row as a JSON object: times as RFC 3339 in UTC, bytes as base64, values that JSON lacks as null.

    Args:
        table: rows of any schema.

    Returns:
        One text a row.

    Raises:
        SchemaError: a column has a type that JSON cannot hold.

    Example:
        >>> from datetime import datetime
        >>> to_json(pl.DataFrame({"timestamp": [datetime(2015, 5, 17)], "body": ["x"]})).to_list()
        ['{"timestamp":"2015-05-17T00:00:00.000000","body":"x"}']
    """
    if not table.width:
        return pl.Series("json", ["{}"] * table.height, pl.String)
    return plain(table).select(pl.struct(pl.all()).struct.json_encode().alias("json"))["json"]


def plain(table: pl.DataFrame) -> pl.DataFrame:
    """The rows in those types that `to_json` writes.

    Raises:
        SchemaError: a column has a type that JSON cannot hold.
    """
    for name, dtype in table.schema.items():
        if dtype == pl.Object:
            raise SchemaError(f"The column {name!r} has Python objects, which cannot be written as JSON.")
    return table.select(_plain(pl.col(name), dtype).alias(name) for name, dtype in table.schema.items())


def _plain(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A column in types that Polars writes as JSON."""
    if isinstance(dtype, pl.Datetime):
        # Texts in another zone would say another time.
        zoned = column.dt.convert_time_zone("UTC") if dtype.time_zone else column
        return zoned.dt.strftime(_form(dtype, zone="Z"))
    if dtype == pl.Binary:
        return column.bin.encode("base64")
    if dtype == pl.Duration:
        return column.dt.total_microseconds()
    if isinstance(dtype, pl.List):
        return column.list.eval(_plain(pl.element(), _inner(dtype)))
    if isinstance(dtype, pl.Struct):
        return pl.when(column.is_not_null()).then(
            pl.struct(_plain(column.struct.field(f.name), pl.Series([], dtype=f.dtype).dtype) for f in dtype.fields)
        )
    return column


def _form(dtype: pl.Datetime, zone: str) -> str:
    return f"%Y-%m-%dT%H:%M:%S%.{_DIGITS[dtype.time_unit]}f{zone if dtype.time_zone else ''}"


def _inner(dtype: pl.List) -> pl.DataType:
    return pl.Series([], dtype=dtype.inner).dtype


def from_json(texts: pl.Series, schema: pl.Schema) -> pl.DataFrame:
    """Rows of a schema from what `to_json` made of them.

    Args:
        texts: JSON objects.
        schema: the rows' columns and types; what a text does not have is null.

    Raises:
        polars.exceptions.ComputeError: a text is not JSON, or has values of other types.

    Example:
        >>> rows = pl.DataFrame({"a": [b"x", None], "b": [[1], []]})
        >>> from_json(to_json(rows), rows.schema).equals(rows)
        True
    """
    rows = texts.str.json_decode(pl.Struct(plain(pl.DataFrame(schema=schema)).schema)).struct.unnest()
    return rows.select(_typed(pl.col(name), dtype).alias(name) for name, dtype in schema.items())


def _typed(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        time = column.str.to_datetime(_form(dtype, zone="%#z"), time_unit=dtype.time_unit)
        return time.dt.convert_time_zone(dtype.time_zone) if dtype.time_zone else time
    if dtype == pl.Binary:
        return column.str.decode("base64")
    if dtype == pl.Duration:
        return pl.duration(microseconds=column).cast(dtype)
    if isinstance(dtype, pl.List):
        return column.list.eval(_typed(pl.element(), _inner(dtype)))
    if isinstance(dtype, pl.Struct):
        return pl.when(column.is_not_null()).then(
            pl.struct(_typed(column.struct.field(f.name), pl.Series([], dtype=f.dtype).dtype) for f in dtype.fields)
        )
    return column.cast(dtype)
