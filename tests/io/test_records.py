"""Records to tables."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.io.records.columns import OTHERS, Columns
from fabric_beam.io.records.schema import flattened, infer
from fabric_beam.io.records.values import TIME, converter, unchanged

convert = converter(unchanged)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=6,
)
RECORDS = st.lists(st.dictionaries(st.sampled_from(["a", "b", "c.d"]), VALUES, max_size=3), max_size=8)


def table(records: list[dict[str, Any]], sample: list[dict[str, Any]]) -> tuple[pl.DataFrame, dict[int, str]]:
    """What becomes of records whose columns were found by a sample."""
    leaves = {".".join(path): (path, dtype) for path, dtype in flattened(infer(sample, unchanged))}
    schema = pl.Schema({name: dtype for name, (_, dtype) in leaves.items()} | {OTHERS: pl.String()})
    return Columns({name: path for name, (path, _) in leaves.items()}, schema, convert, unchanged)(records)


@settings(deadline=None)
@given(RECORDS)
def test_what_was_in_the_sample_fits(records: list[dict[str, Any]]) -> None:
    """A schema that was found by all records rejects none of them, and each has a row."""
    rows, wrong = table(records, records)
    assert wrong == {}
    assert rows.height == len(records)


@settings(deadline=None)
@given(RECORDS, RECORDS)
def test_no_value_is_lost(sample: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    """Each text of a record is in its row, in a column or among the others, or the record is rejected."""
    rows, wrong = table(records, sample)
    for number, record in enumerate(records):
        if number not in wrong:
            held = rows.row(number, named=True)
            there = "\n".join([json.dumps(value, ensure_ascii=False, default=str) for value in held.values()])
            for text in _texts(record):
                assert (
                    json.dumps(text, ensure_ascii=False)[1:-1] in there.replace("\\\\", "\\").replace('\\"', '"')
                    or text in there
                )


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) and value.isalnum() and value.isascii() else []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, True], pl.String()),
        ([1, 2.5], pl.Float64()),
        ([2**64], pl.String()),
        ([Decimal("1.25"), 3], pl.Decimal(38, 2)),
        ([Decimal("NaN")], pl.String()),
        ([[1], [], [None, 2.5]], pl.List(pl.Float64())),
        ([[{"x": 1}, {"y": "z"}]], pl.List(pl.Struct({"x": pl.Int64(), "y": pl.String()}))),
        ([{"x": 1}, "y"], pl.String()),
        ([datetime(2026, 1, 1)], TIME),
        ([b"x"], pl.Binary()),
        ([None, []], pl.List(pl.String())),
    ],
)
def test_types_are_found(values: list[Any], expected: pl.DataType) -> None:
    """Of values of several types, what holds them all."""
    found = infer([{"a": value} for value in values], unchanged)
    assert {field.name: field.dtype for field in found.fields} == {"a": expected}


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        (pl.Int64(), [1, 2.0, Decimal(3)], [True, 2.5, "1", 2**63, float("nan"), [1]]),
        (pl.Float64(), [1, 2.5, Decimal("0.5")], [False, "1", {}]),
        (pl.Boolean(), [True], [1, "true"]),
        (TIME, [datetime(2026, 1, 1), "2026-01-01T00:00:00Z"], [5, "soon", b""]),
        (pl.Decimal(38, 2), [Decimal("1.25"), 3], [Decimal("1.255"), 1.5, Decimal("Infinity"), Decimal(10) ** 37]),
        (pl.Binary(), [b"x"], ["x"]),
        (pl.String(), ["x", 1, 2.5, [1], {"a": None}, b"x", True], []),
        (pl.List(pl.Int64()), [[1], [], [None]], [1, ["x"], {"a": 1}]),
        (pl.List(pl.Struct({"a": pl.Int64()})), [[{"a": 1}, {}, None]], [[{"b": 1}], [{"a": "x"}], ["a"]]),
    ],
)
def test_what_does_not_fit_is_told(dtype: pl.DataType, good: list[Any], bad: list[Any]) -> None:
    """Numbers are taken by value, texts are no numbers, and nothing else in the column suffers."""
    column, wrong = convert([*good, None, *bad], dtype)
    assert column.dtype == dtype
    assert sorted(wrong) == list(range(len(good) + 1, len(good) + 1 + len(bad)))
    assert column[: len(good) + 1].null_count() == 1


def test_lists_and_structs_come_out_as_they_went_in() -> None:
    """Empty ones and nulls at every depth."""
    values: list[Any] = [[{"a": [1, None]}, None, {"a": []}], [], None, [{}]]
    dtype = pl.List(pl.Struct({"a": pl.List(pl.Int64())}))
    column, wrong = convert(values, dtype)
    assert wrong == {}
    assert column.to_list() == [[{"a": [1, None]}, None, {"a": []}], [], None, [{"a": None}]]
