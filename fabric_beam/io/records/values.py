"""Values of records, to columns of a type: which of them fit, and what they are then."""

from __future__ import annotations

import base64
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import accumulate, chain
from typing import Any

import polars as pl
import pyarrow as pa

#: Makes of a value of a client's own type one that JSON has, or a datetime, bytes or Decimal.
Plain = Callable[[Any], Any]
#: Makes a column of a type from values; returns what does not fit, too, by its number.
Convert = Callable[[Sequence[Any], Any], tuple[pl.Series, dict[int, str]]]

TIME = pl.Datetime("us", "UTC")
#: Digits of a Decimal, at most.
DIGITS = 38
#: The types of values that are simple.
SIMPLE = {type(None), bool, int, float, str, datetime, date, bytes, Decimal, list, dict}
_EPOCH = datetime(1970, 1, 1)
#: The values that Polars takes as they are into a column of a type.
_EXACT: dict[Any, set[type]] = {
    pl.Boolean: {bool, type(None)},
    pl.Int64: {int, type(None)},
    pl.Float64: {float, type(None)},
    pl.String: {str, type(None)},
    pl.Datetime: {datetime, type(None)},
    pl.Binary: {bytes, type(None)},
}


def converter(plain: Plain) -> Convert:
    """What makes columns of values of Python's types and those that `plain` makes simple."""

    def convert(values: Sequence[Any], dtype: Any) -> tuple[pl.Series, dict[int, str]]:
        kinds = set(map(type, values))
        if not kinds <= SIMPLE:
            values = [value if type(value) in SIMPLE else plain(value) for value in values]
            kinds = set(map(type, values))
        if isinstance(dtype, pl.List):
            return _lists(values, dtype)
        if isinstance(dtype, pl.Struct):
            return _structs(values, dtype)
        if kinds <= _EXACT.get(dtype.base_type(), set()):
            return _series(values, dtype), {}
        fitted: list[Any] = []
        wrong: dict[int, str] = {}
        for number, value in enumerate(values):
            try:
                fitted.append(None if value is None else _fit(value, dtype, plain))
            except (ValueError, OverflowError, ArithmeticError):
                fitted.append(None)
                wrong[number] = repr(value)[:80]
        return _series(fitted, dtype), wrong

    def _lists(values: Sequence[Any], dtype: pl.List) -> tuple[pl.Series, dict[int, str]]:
        wrong = {n: repr(v)[:80] for n, v in enumerate(values) if v is not None and not isinstance(v, list)}
        lists = [None if number in wrong else value for number, value in enumerate(values)]
        inner, misfits = convert(list(chain.from_iterable(value for value in lists if value)), exactly(dtype.inner))
        ends = list(accumulate((len(value or ()) for value in lists), initial=0))
        for number, value in misfits.items():
            wrong[bisect_right(ends, number) - 1] = value
        starts = [None if value is None else start for value, start in zip(lists, ends, strict=False)]
        offsets = pa.array([*starts, ends[-1]], pa.int64())
        array = pa.LargeListArray.from_arrays(offsets, inner.to_arrow(compat_level=pl.CompatLevel.oldest()))
        return pl.Series(pl.from_arrow(array)).cast(dtype), wrong

    def _structs(values: Sequence[Any], dtype: pl.Struct) -> tuple[pl.Series, dict[int, str]]:
        names = {field.name for field in dtype.fields}
        wrong = {
            number: repr(value)[:80]
            for number, value in enumerate(values)
            if value is not None and not (isinstance(value, dict) and value.keys() <= names)
        }
        there = [value if value is not None and n not in wrong else None for n, value in enumerate(values)]
        columns = []
        for field in dtype.fields:
            column, misfits = convert([None if v is None else v.get(field.name) for v in there], exactly(field.dtype))
            columns.append(column.alias(field.name))
            wrong |= misfits
        mask = pl.Series([value is not None for value in there], dtype=pl.Boolean)
        struct = pl.struct(columns, eager=True) if columns else pl.Series([None] * len(there), dtype=dtype)
        return pl.select(pl.when(mask).then(pl.lit(struct))).to_series().cast(dtype), wrong

    return convert


def _series(values: Sequence[Any], dtype: Any) -> pl.Series:
    if dtype == TIME:
        return pl.Series(values, dtype=pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.Series(values, dtype=dtype)


def _fit(value: Any, dtype: pl.DataType, plain: Plain) -> Any:
    """A simple value of another type as one of the column's.

    Raises:
        ValueError: it is none.
    """
    found: Any = None
    match dtype, value:
        case pl.String(), _:
            found = value if isinstance(value, str) else to_text(value, plain)
        case (pl.Boolean(), bool()) | (pl.Datetime(), datetime()) | (pl.Binary(), bytes()):
            found = value
        case _, bool():
            pass
        case pl.Int64(), int() | float() | Decimal() if value == int(value) and -(2**63) <= value < 2**63:
            found = int(value)
        case pl.Float64(), int() | float() | Decimal():
            found = float(value)
        case pl.Datetime(), str():
            time = datetime.fromisoformat(value)
            found = time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
        case pl.Decimal(), int() | Decimal() if _has_room(dtype, Decimal(value)):
            found = Decimal(value)
    if found is None:
        raise ValueError(value)
    return found


def _has_room(dtype: pl.Decimal, value: Decimal) -> bool:
    _, digits, exponent = value.as_tuple()
    return isinstance(exponent, int) and -exponent <= dtype.scale and len(digits) + exponent <= DIGITS - dtype.scale


def unchanged(value: Any) -> Any:
    """The `Plain` of values that are simple already."""
    return value


_TEXTS: dict[type, Callable[[Any], str]] = {
    datetime: lambda value: f"{value.isoformat(timespec='microseconds')}Z",
    date: date.isoformat,
    bytes: lambda value: base64.b64encode(value).decode(),
    Decimal: str,
}


def to_text(value: Any, plain: Plain) -> str:
    """A value as text: numbers and booleans as JSON has them, times as RFC 3339, bytes as base64, the rest JSON."""

    def simple(value: Any) -> Any:
        value = value if type(value) in SIMPLE else plain(value)
        if isinstance(value, list):
            return [simple(item) for item in value]
        if isinstance(value, dict):
            return {name: simple(item) for name, item in value.items()}
        if isinstance(value, float) and not math.isfinite(value):
            return repr(value)
        return _TEXTS.get(type(value), unchanged)(value)

    made = simple(value)
    return made if isinstance(made, str) else json.dumps(made, ensure_ascii=False, separators=(",", ":"))


def from_milliseconds(milliseconds: int) -> datetime:
    """A time in UTC, without a zone.

    Raises:
        OverflowError: Python has no such time.
    """
    return _EPOCH + timedelta(milliseconds=milliseconds)


def exactly(dtype: Any) -> pl.DataType:
    """A type that Polars gives as a class or an instance, as an instance."""
    return pl.Series([], dtype=dtype).dtype
