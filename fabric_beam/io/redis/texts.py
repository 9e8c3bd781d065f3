"""The types that texts were made from: numbers, booleans, times, and JSON of lists and objects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from fabric_beam.io.records.schema import infer
from fabric_beam.io.records.values import converter, unchanged

_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?"
#: What all texts of a type look like, the likelier first. An integer of 19 digits may be one beyond 64 bits.
_FORMS: tuple[tuple[str, Any], ...] = (
    (r"^-?(0|[1-9]\d{0,17})$", pl.Int64()),
    (r"^(-?(\d+(\.\d+)?([eE][+-]?\d+)?|inf)|NaN)$", pl.Float64()),
    (r"^(true|false)$", pl.Boolean()),
    (_TIME + "Z$", pl.Datetime("us", "UTC")),
    (_TIME + "$", pl.Datetime("us")),
    (r"^\d{4}-\d\d-\d\d$", pl.Date()),
    (r"^\d\d:\d\d:\d\d\.\d+$", pl.Time()),
)
#: A text of digits that begins with a zero is a name of something.
_PADDED = r"^-?0\d"


def infer_type(texts: Sequence[str], *, of_json: bool = False) -> pl.DataType:
    """The type that all texts are of.

    Args:
        texts: some of a field's values.
        of_json: they stand in JSON, where numbers, booleans and what is nested are no texts.

    Example:
        >>> infer_type(["1", "2.5"]), infer_type(["007"]), infer_type(['["a"]', "[]"])
        (Float64, String, List(String))
    """
    column = pl.Series(texts, dtype=pl.String)
    if not len(column):
        return pl.String()
    for form, dtype in _FORMS:
        if column.str.contains(form).all():
            if (dtype.is_numeric() or dtype == pl.Boolean) and (of_json or column.str.contains(_PADDED).any()):
                return pl.String()
            made = from_texts(texts, dtype)[0]
            return pl.String() if made.null_count() else dtype
    if not of_json and column.str.contains(r"^[\[{]").all():
        try:
            found = {
                field.name: field.dtype for field in infer([{"": json.loads(each)} for each in texts], unchanged).fields
            }
        except ValueError:
            return pl.String()
        dtype = pl.Series([], dtype=found.get("", pl.String())).dtype
        return dtype if dtype.is_nested() else pl.String()
    return pl.String()


def from_texts(values: Sequence[Any], dtype: Any) -> tuple[pl.Series, dict[int, str]]:
    """A column of a type from texts, and by number those that are none of it.

    Example:
        >>> from_texts(["1", None, "x"], pl.Int64())[1]
        {2: "'x'"}
    """
    if dtype.is_nested():
        wrong: dict[int, str] = {}
        decoded = [None if value is None else _decoded(value, number, wrong) for number, value in enumerate(values)]
        column, misfits = _CONVERT(decoded, dtype)
        return column, misfits | wrong
    texts = pl.Series(values, dtype=pl.String)
    column = _parsed(texts, dtype)
    if column.null_count() == texts.null_count():
        return column, {}
    bad = (column.is_null() & texts.is_not_null()).arg_true().to_list()
    return column, {number: repr(values[number])[:80] for number in bad}


def _parsed(texts: pl.Series, dtype: Any) -> pl.Series:
    match dtype:
        case pl.Datetime():
            zone = "%#z" if dtype.time_zone else ""
            times = texts.str.to_datetime(f"%Y-%m-%dT%H:%M:%S%.f{zone}", time_unit=dtype.time_unit, strict=False)
            return times.dt.convert_time_zone(dtype.time_zone) if dtype.time_zone else times
        case pl.Date():
            return texts.str.to_date("%Y-%m-%d", strict=False)
        case pl.Time():
            return texts.str.to_time("%H:%M:%S%.f", strict=False)
        case pl.Boolean():
            return texts.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
        case pl.Binary():
            return texts.str.decode("base64", strict=False)
    return texts.cast(dtype, strict=False)


def _decoded(text: str, number: int, wrong: dict[int, str]) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        wrong[number] = repr(text)[:80]
        return None


_CONVERT = converter(unchanged)


def from_json_values(values: Sequence[Any], dtype: Any) -> tuple[pl.Series, dict[int, str]]:
    """As `from_texts`, of what JSON decodes to."""
    if dtype.is_temporal() and set(map(type, values)) <= {str, type(None)}:
        return from_texts(values, dtype)
    return _CONVERT(values, dtype)
