"""What columns of rows are in Pinot: their types and values, and the rows that it would not take as they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from fabric_beam.batches import EVENT_TIME
from fabric_beam.io.templates import text
from fabric_beam.kernel import reject

#: Without a limit of its own Pinot cuts texts after 512 characters.
_LONGEST = 2**31 - 1
_LARGEST = 2**63 - 1
#: The times that segments may have, in milliseconds: from 1971, up to 2071.
_FIRST_TIME, _LAST_TIME = 31_536_000_000, 3_187_295_999_999
_TYPES: dict[type[pl.DataType], str] = {
    **dict.fromkeys((pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16), "INT"),
    **dict.fromkeys((pl.UInt32, pl.Int64, pl.UInt64, pl.Duration), "LONG"),
    **dict.fromkeys((pl.Decimal, pl.Int128), "BIG_DECIMAL"),
    **dict.fromkeys((pl.String, pl.Categorical, pl.Enum, pl.Time, pl.Null), "STRING"),
    **{pl.Float32: "FLOAT", pl.Float64: "DOUBLE", pl.Boolean: "BOOLEAN", pl.Binary: "BYTES"},
}
_METRICS = ("FLOAT", "DOUBLE", "BIG_DECIMAL")
#: What lists may be of to be columns of several values; all others are JSON.
_LISTED = (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32, pl.Int64, pl.Float32, pl.Float64, pl.String)


class Column(NamedTuple):
    """A column of a table.

    Args:
        name: as in the rows.
        role: `dimension`, `metric` or `dateTime`.
        type: of Pinot.
        is_list: whether it has several values.
        format: of a time.
    """

    name: str
    role: str
    type: str
    is_list: bool = False
    format: str = ""

    def spec(self) -> dict[str, Any]:
        """What the table's schema has for it."""
        spec: dict[str, Any] = {"name": self.name, "dataType": self.type}
        if self.type in ("STRING", "JSON", "BYTES"):
            spec["maxLength"] = _LONGEST
        if self.is_list:
            spec["singleValueField"] = False
        if self.format:
            spec |= {"format": self.format, "granularity": "1:DAYS" if self.type == "STRING" else "1:MILLISECONDS"}
        return spec


def column_of(name: str, dtype: pl.DataType) -> Column | None:
    """The column that holds a type's values, or None if there is none.

    Example:
        >>> column_of("duration", pl.Float64())
        Column(name='duration', role='metric', type='DOUBLE', is_list=False, format='')
        >>> column_of("tags", pl.List(pl.String))
        Column(name='tags', role='dimension', type='STRING', is_list=True, format='')
    """
    match dtype:
        case pl.Datetime():
            made = Column(name, "dateTime", "LONG", format="1:MILLISECONDS:EPOCH")
        case pl.Date():
            made = Column(name, "dateTime", "STRING", format="1:DAYS:SIMPLE_DATE_FORMAT:yyyy-MM-dd")
        case pl.List() if isinstance(_inner(dtype), _LISTED):
            made = Column(name, "dimension", _TYPES[type(_inner(dtype))], is_list=True)
        case pl.List() | pl.Array() | pl.Struct() if not _holds(dtype, pl.Binary, pl.Object):
            made = Column(name, "dimension", "JSON")
        case _ if type(dtype) in _TYPES:
            pinot = _TYPES[type(dtype)]
            made = Column(name, "metric" if pinot in _METRICS else "dimension", pinot)
        case _:
            return None
    return made


def time_column(schema: pl.Schema) -> str | None:
    """The column that orders rows in time, or None."""
    return next((name for name in EVENT_TIME if isinstance(schema.get(name), pl.Datetime)), None)


def values(table: pl.DataFrame) -> pl.DataFrame:
    """Rows with their values as Pinot takes them from JSON.

    Example:
        >>> from datetime import UTC, datetime
        >>> values(pl.DataFrame({"timestamp": [datetime(1970, 1, 2, tzinfo=UTC)], "user": [{"id": 7}]})).row(0)
        (86400000, '{"id":7}')
    """
    return table.select(_value(name, dtype).alias(name) for name, dtype in table.schema.items())


def unfit(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that Pinot takes as they are, and those it would alter, drop, or refuse together with others.

    Returns:
        Rows to write, and rows with their reasons.
    """
    schema, checks = table.schema, []
    time = time_column(schema)
    if time is not None:
        column = pl.col(time).dt.epoch("ms")
        checks.append((column.is_null(), f"{time} is null, and every row of the table has a time"))
        checks.append((~column.is_between(_FIRST_TIME, _LAST_TIME), f"{time} is not of the years 1971 to 2070"))
    for name, dtype in schema.items():
        if isinstance(dtype, pl.String):
            has_nul = pl.col(name).str.contains("\0", literal=True)
        elif isinstance(dtype, pl.List) and isinstance(_inner(dtype), pl.String):
            has_nul = pl.col(name).list.eval(pl.element().str.contains("\0", literal=True)).list.any()
        elif dtype == pl.UInt64:
            checks.append((pl.col(name) > _LARGEST, f"{name} is larger than a LONG can be"))
            continue
        else:
            continue
        checks.append((has_nul, f"{name} has a NUL character, at which texts are cut"))
    if not checks or not table.height:
        return table, table.clear()
    is_bad = table.select(pl.any_horizontal([check.fill_null(False) for check, _ in checks]).alias("bad"))["bad"]
    if not is_bad.any():
        return table, table.clear()
    message = pl.coalesce([pl.when(check).then(pl.lit(message)) for check, message in checks])
    return table.filter(~is_bad), reject(table.filter(is_bad), "refused", message)


def _value(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    match dtype:
        case pl.Datetime():
            return column.dt.epoch("ms")
        case pl.Duration():
            return column.dt.total_microseconds()
        case pl.Binary():
            return column.bin.encode("hex")
        case pl.List() if isinstance(_inner(dtype), _LISTED):
            # Lists have no nulls there.
            element = pl.element()
            if _inner(dtype).is_float():
                element = element.filter(element.is_finite())
            return column.list.eval(element.drop_nulls())
        case pl.Float32() | pl.Float64() | pl.Boolean():
            return column
    return column if dtype.is_integer() and dtype != pl.Int128 else text(name, dtype)


def _inner(dtype: pl.DataType) -> pl.DataType:
    return pl.Series([], dtype=dtype.inner).dtype  # type: ignore[attr-defined]


def _holds(dtype: pl.DataType, *kinds: Any) -> bool:
    match dtype:
        case pl.List() | pl.Array():
            return _holds(_inner(dtype), *kinds)
        case pl.Struct():
            return any(_holds(pl.Series([], dtype=field.dtype).dtype, *kinds) for field in dtype.fields)
    return isinstance(dtype, kinds)
