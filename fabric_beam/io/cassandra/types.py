"""Columns as the types of CQL: which type a column gets, which ones it fits, and its values as they are sent.

Source: https://cassandra.apache.org/doc/latest/cassandra/developing/cql/types.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from fabric_beam.io.cassandra.values import TEXTS, adapter
from fabric_beam.io.templates import text

_PER_MILLISECOND = {"ms": 1, "us": 1_000, "ns": 1_000_000}
#: The day that is 0 in Polars.
_EPOCH_DAY = 1 << 31
# fmt: off
_CREATED: dict[Any, str] = {
    pl.Boolean: "boolean", pl.Int8: "tinyint", pl.Int16: "smallint", pl.Int32: "int", pl.Int64: "bigint",
    pl.Int128: "varint", pl.UInt8: "smallint", pl.UInt16: "int", pl.UInt32: "bigint", pl.UInt64: "varint",
    pl.Float32: "float", pl.Float64: "double", pl.Decimal: "decimal", pl.Datetime: "timestamp", pl.Date: "date",
    pl.Time: "time", pl.Duration: "duration", pl.String: "text", pl.Categorical: "text", pl.Enum: "text",
    pl.Null: "text", pl.Struct: "text", pl.Binary: "blob",
}
# fmt: on


def created(dtype: Any) -> str | None:
    """The type in CQL of a column that is made for a type of Polars; None if there is none.

    Example:
        >>> created(pl.List(pl.Datetime("us", "UTC")))
        'frozen<list<timestamp>>'
    """
    if isinstance(dtype, (pl.List, pl.Array)):
        inner = created(dtype.inner)
        return inner and f"frozen<list<{inner}>>"
    return _CREATED.get(dtype.base_type())


def fits(dtype: Any, cql: Any) -> bool:
    """Whether a type of Polars has values that a type of CQL (a class of the client's) can hold."""
    if dtype == pl.Null:
        return True
    if cql.typename in _FITTING:
        return _FITTING[cql.typename](dtype)
    if cql.typename in ("list", "set"):
        return isinstance(dtype, (pl.List, pl.Array)) and fits(dtype.inner, cql.subtypes[0])
    is_pairs = cql.typename == "map" and isinstance(dtype, pl.List)
    kind = dtype.inner if is_pairs else dtype
    return isinstance(kind, pl.Struct) and _fields_fit(kind.fields, cql, is_pairs or cql.typename == "tuple")


def _fields_fit(fields: list[pl.Field], cql: Any, in_order: bool) -> bool:
    if in_order:
        return len(fields) == len(cql.subtypes) and all(map(fits, (f.dtype for f in fields), cql.subtypes))
    if cql.typename == "map":
        return cql.subtypes[0].typename in TEXTS and all(fits(f.dtype, cql.subtypes[1]) for f in fields)
    # Of a type that a user has made.
    types = dict(zip(getattr(cql, "fieldnames", ()), cql.subtypes, strict=False))
    return all(f.name in types and fits(f.dtype, types[f.name]) for f in fields)


def converted(column: pl.Series, cql: Any, protocol: int) -> tuple[pl.Series, dict[int, str]]:
    """A column's values as they are sent: as numbers of the right width, booleans, texts or bytes.

    Args:
        column: of a type that `fits`.
        cql: the type in CQL, as the client describes it.
        protocol: the protocol's version.

    Returns:
        The values, null where there is none, and what is wrong with values that do not fit, by the row's number.
    """
    if column.dtype == pl.Null:
        return pl.Series(column.name, [None], dtype=pl.Binary).new_from_index(0, len(column)), {}
    if cql.typename not in _FAST:
        return _each(column, cql, protocol)
    made = _FAST[cql.typename](column)
    wrong = made.is_null() & column.is_not_null()
    if not wrong.any():
        return made, {}
    return made, {n: _unfit(column.name, cql, column[n]) for n in wrong.arg_true().to_list()}


def _each(column: pl.Series, cql: Any, protocol: int) -> tuple[pl.Series, dict[int, str]]:
    """Values that the client itself encodes, each different one once."""
    adapt = adapter(column.dtype, cql)
    nested = column.dtype.is_nested()
    different = column if nested else column.unique(maintain_order=True)
    made: list[bytes | None] = []
    wrong: dict[int, str] = {}
    for n, value in enumerate(different.to_list()):
        try:
            made.append(None if value is None else cql.serialize(adapt(value), protocol))
        except Exception as error:
            # Whatever the client raises, it is of this value.
            made.append(None)
            wrong[n] = _unfit(column.name, cql, value, f": {error}")
    encoded = pl.Series(column.name, made, dtype=pl.Binary)
    if nested:
        return encoded, wrong
    numbered = different.alias("v").to_frame().with_row_index("n")
    at = column.alias("v").to_frame().join(numbered, "v", how="left", nulls_equal=True, maintain_order="left")["n"]
    return encoded[at], {n: wrong[at[n]] for n in at.is_in(list(wrong)).arg_true().to_list()} if wrong else {}


def _unfit(name: str, cql: Any, value: Any, why: str = "") -> str:
    shown = repr(value)
    return f"column {name!r} is {cql.typename}, and cannot hold {shown if len(shown) < 99 else shown[:96] + '...'}{why}"


def _is_text(dtype: Any) -> bool:
    return dtype.base_type() in (pl.String, pl.Categorical, pl.Enum)


def _is_number(dtype: Any) -> bool:
    return _is_text(dtype) or dtype.is_integer() or dtype.is_float() or dtype.is_decimal()


def _is_integer(dtype: Any) -> bool:
    return _is_text(dtype) or bool(dtype.is_integer())


_FITTING: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(TEXTS, lambda dtype: dtype.base_type() not in (pl.Object, pl.Unknown)),
    **dict.fromkeys(("tinyint", "smallint", "int", "varint"), _is_integer),
    **dict.fromkeys(("float", "double", "decimal"), _is_number),
    **dict.fromkeys(("timestamp", "date"), lambda dtype: dtype.base_type() in (pl.Datetime, pl.Date)),
    **dict.fromkeys(("uuid", "timeuuid", "blob"), lambda dtype: _is_text(dtype) or dtype == pl.Binary),
    "bigint": lambda dtype: _is_integer(dtype) or dtype.base_type() in (pl.Datetime, pl.Duration),
    "boolean": lambda dtype: bool(dtype == pl.Boolean),
    "time": lambda dtype: bool(dtype == pl.Time),
    "duration": lambda dtype: isinstance(dtype, pl.Duration),
    "inet": _is_text,
}


def _texts(column: pl.Series) -> pl.Series:
    if column.dtype == pl.String:
        return column
    return column.to_frame().select(text(column.name, column.dtype).alias(column.name)).to_series()


def _ascii(column: pl.Series) -> pl.Series:
    texts = _texts(column)
    # One byte a character.
    return texts.set(texts.str.len_bytes() != texts.str.len_chars(), None)


def _number(kind: Any) -> Callable[[pl.Series], pl.Series]:
    def number(column: pl.Series) -> pl.Series:
        if isinstance(column.dtype, (pl.Datetime, pl.Duration)):
            column = column.dt.cast_time_unit("us").to_physical()
        return (_texts(column) if _is_text(column.dtype) else column).cast(kind, strict=False)

    return number


def _timestamp(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.Datetime):
        return column.to_physical() // _PER_MILLISECOND[column.dtype.time_unit]
    return column.to_physical().cast(pl.Int64) * 86_400_000


def _date(column: pl.Series) -> pl.Series:
    return (column.cast(pl.Date).to_physical().cast(pl.Int64) + _EPOCH_DAY).cast(pl.UInt32)


#: What makes the values that are sent of a column, null where they do not fit, for those types that have a fast way.
_FAST: dict[str, Callable[[pl.Series], pl.Series]] = {
    "text": _texts,
    "varchar": _texts,
    "ascii": _ascii,
    "tinyint": _number(pl.Int8),
    "smallint": _number(pl.Int16),
    "int": _number(pl.Int32),
    "bigint": _number(pl.Int64),
    "float": _number(pl.Float32),
    "double": _number(pl.Float64),
    "boolean": lambda column: column,
    "blob": lambda column: column.cast(pl.Binary) if column.dtype == pl.Binary else _texts(column).cast(pl.Binary),
    "timestamp": _timestamp,
    "date": _date,
    "time": lambda column: column.to_physical(),
}
