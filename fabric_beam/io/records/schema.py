"""The columns of records: found by looking at some of them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from fabric_beam.io.records.values import DIGITS, SIMPLE, TIME, Plain, exactly

_KINDS: dict[type, pl.DataType] = {
    type(None): pl.Null(),
    bool: pl.Boolean(),
    float: pl.Float64(),
    str: pl.String(),
    datetime: TIME,
    date: pl.Date(),
    bytes: pl.Binary(),
}


def infer(records: Iterable[dict[str, Any]], plain: Plain) -> pl.Struct:
    """Find the fields of records and their types.

    Args:
        records: some of them.
        plain: makes simple values of those of other types.

    Returns:
        A struct with the fields in the order of first sight. Integers and floats together are Float64; values of
        several types are String, and so are fields that are always null and integers beyond 64 bits.

    Example:
        >>> infer([{"a": 1, "b": {"c": "x"}}, {"a": 1.5, "d": [True]}], lambda value: value)
        Struct({'a': Float64, 'b': Struct({'c': String}), 'd': List(Boolean)})
    """
    merged = _merged(_kind(record, plain) for record in records)
    settled = _settled(merged)
    return settled if isinstance(settled, pl.Struct) else pl.Struct({})


def _kind(value: Any, plain: Plain) -> pl.DataType:
    value = value if type(value) in SIMPLE else plain(value)
    match value:
        case bool():
            return pl.Boolean()
        case int():
            return pl.Int64() if -(2**63) <= value < 2**63 else pl.String()
        case Decimal():
            return _decimal(value)
        case list():
            return pl.List(_merged(_kind(item, plain) for item in value))
        case dict():
            return pl.Struct({name: _kind(item, plain) for name, item in value.items()})
    return _KINDS.get(type(value), pl.String())


def _decimal(value: Decimal) -> pl.DataType:
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return pl.String()
    whole, scale = len(digits) + exponent, max(0, -exponent)
    return pl.Decimal(DIGITS, scale) if max(whole, 1) + scale <= DIGITS else pl.String()


def _merged(kinds: Iterable[pl.DataType]) -> pl.DataType:
    nothing: pl.DataType = pl.Null()
    return functools.reduce(_merge, kinds, nothing)


def _merge(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    if other in (one, pl.Null()):
        return one
    merged: pl.DataType = pl.String()
    match one, other:
        case pl.Null(), _:
            merged = other
        case pl.List(), pl.List():
            merged = pl.List(_merge(exactly(one.inner), exactly(other.inner)))
        case pl.Struct(), pl.Struct():
            fields = {field.name: exactly(field.dtype) for field in one.fields}
            for field in other.fields:
                fields[field.name] = _merge(fields.get(field.name, pl.Null()), exactly(field.dtype))
            merged = pl.Struct(fields)
        case pl.Decimal(), pl.Decimal():
            merged = pl.Decimal(DIGITS, max(one.scale, other.scale))
        case (pl.Decimal() as decimal, pl.Int64()) | (pl.Int64(), pl.Decimal() as decimal):
            merged = decimal
        case (pl.Int64(), pl.Float64()) | (pl.Float64(), pl.Int64()):
            merged = pl.Float64()
    return merged


def _settled(dtype: pl.DataType) -> pl.DataType:
    match dtype:
        case pl.List():
            return pl.List(_settled(exactly(dtype.inner)))
        case pl.Struct() if dtype.fields:
            return pl.Struct({field.name: _settled(exactly(field.dtype)) for field in dtype.fields})
        case pl.Null() | pl.Struct():
            return pl.String()
    return dtype


def flattened(fields: pl.Struct, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], pl.DataType]]:
    """The leaves of nested fields: the names on the way to each, and its type."""
    for field in fields.fields:
        if isinstance(field.dtype, pl.Struct):
            yield from flattened(field.dtype, (*path, field.name))
        else:
            yield (*path, field.name), exactly(field.dtype)
