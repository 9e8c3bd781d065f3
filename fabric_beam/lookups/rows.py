"""Rows of the types wanted from what stores answer, and those that are not of these types, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from fabric_beam.io.records.values import Convert
from fabric_beam.kernel import MESSAGE, Split


def from_columns(
    keys: pl.DataFrame, values: Mapping[str, Sequence[Any]], columns: pl.Schema, convert: Convert
) -> Split:
    """Rows from the values of their columns.

    Args:
        keys: each row's.
        values: of each column that is wanted.
        columns: their types.
        convert: makes a column of values.

    Returns:
        The rows with their keys; rejected, the keys of those that have a value of another type.
    """
    made: dict[str, pl.Series] = {}
    wrong: dict[int, str] = {}
    for name, dtype in columns.items():
        made[name], misfits = convert(values[name], dtype)
        for number, value in misfits.items():
            wrong.setdefault(number, f"{name} is not {dtype}: {value}")
    reasons = pl.Series([wrong.get(number) for number in range(keys.height)], dtype=pl.String)
    good = reasons.is_null()
    rows = keys.hstack([column.alias(name) for name, column in made.items()])
    return Split(rows.filter(good), keys.filter(~good).with_columns(reasons.filter(~good).alias(MESSAGE)))


def from_records(keys: pl.DataFrame, records: Sequence[dict[str, Any]], columns: pl.Schema, convert: Convert) -> Split:
    """Rows from records: nested dicts, in which a dotted column is a path, unless a field has the whole name.

    Example:
        >>> from fabric_beam.io.records.values import converter, unchanged
        >>> records = [{"user": {"quota": 5}}, {"user": {"quota": "x"}}]
        >>> columns = pl.Schema({"user.quota": pl.Int64()})
        >>> rows = from_records(pl.DataFrame({"id": [1, 2]}), records, columns, converter(unchanged))
        >>> rows.kept.rows(), rows.rejected["rejected.message"].to_list()
        ([(1, 5)], ["user.quota is not Int64: 'x'"])
    """
    values = {name: [field(record, name) for record in records] for name in columns}
    return from_columns(keys, values, columns, convert)


def field(record: dict[str, Any], name: str) -> Any:
    """A field of a record by its name or path; None if it is not there.

    Example:
        >>> field({"a": {"b.c": 1}}, "a.b.c"), field({"a.b": 1}, "a.b"), field({"a": 1}, "a.b")
        (1, 1, None)
    """
    if name in record:
        return record[name]
    for end, character in enumerate(name):
        if character == "." and isinstance(inner := record.get(name[:end]), dict):
            found = field(inner, name[end + 1 :])
            if found is not None:
                return found
    return None
