"""MostFrequent counts what it has room for exactly, and the rest within its bound, however rows are batched."""

from __future__ import annotations

from collections import Counter

import apache_beam as beam
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric_beam.errors import SchemaError, UsageError
from fabric_beam.testing import batch, collect
from transforms.most_frequent import FrequentItems, MostFrequent

VALUES = st.lists(st.lists(st.none() | st.sampled_from("abcdefghij"), max_size=40), min_size=1, max_size=8)
SCHEMA = pl.Schema({"value": pl.String()})


def _table(values: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame({"value": values}, schema=SCHEMA)


@given(VALUES, st.integers(1, 12))
def test_counts_are_within_their_bound(batches: list[list[str | None]], capacity: int) -> None:
    """No count is too high, or too low by more than the error, which is at most rows / (capacity + 1)."""
    summary = FrequentItems(SCHEMA, "value", capacity)
    merged = summary.partial(_table(batches[0]))
    for values in batches[1:]:
        merged = summary.merge(pl.concat([merged, summary.partial(_table(values))]))
    true = Counter(value for values in batches for value in values)
    rows = summary.finish(merged).rows()
    found = {value: count for value, count, _ in rows}
    error = rows[0][2] if rows else max(true.values(), default=0)
    assert len(found) == len(rows) <= capacity
    assert [count for _, count, _ in rows] == sorted(found.values(), reverse=True)
    for value, count in true.items():
        assert count - error <= found.get(value, 0) <= count
    assert error <= true.total() / (capacity + 1) or not rows
    if len(true) <= capacity:
        assert found == true
        assert all(one[2] == 0 for one in rows)


def test_memory_does_not_grow_with_the_values() -> None:
    """A partial table has no more rows than there is room for, and one for what was cut off."""
    summary = FrequentItems(pl.Schema({"n": pl.Int64()}), "n", 100)
    merged = summary.partial(pl.DataFrame({"n": [7] * 500}))
    for start in range(0, 100_000, 10_000):
        new = summary.partial(pl.DataFrame({"n": range(start + 1000, start + 11_000)}))
        merged = summary.merge(pl.concat([merged, new]))
        assert merged.height <= 101
    assert summary.finish(merged).rows()[0][0] == 7


def test_the_order_is_by_count_then_value() -> None:
    """In a pipeline, over several batches; null is a value."""
    tables = [batch(host__name=["b", None, "a"], size=[1, 2, 3]), batch(host__name=["b", None, "c"], size=[1, 2, 3])]
    found = collect(tables, MostFrequent("host.name"))
    assert found.rows() == [(None, 2, 0), ("b", 2, 0), ("a", 1, 0), ("c", 1, 0)]


def test_no_rows_give_none() -> None:
    """With the schema that others have."""
    found = collect([batch(host__name=["a"]).clear()], MostFrequent("host.name"))
    assert found.rows() == []


@pytest.mark.parametrize(
    ("column", "capacity", "message"),
    [
        ("host.nam", 10, "host.name"),
        ("tags", 10, "nested"),
        ("count", 10, "named like one that comes out"),
        ("host.name", 0, "at least one value"),
    ],
)
def test_mistakes_are_told_while_the_pipeline_is_built(column: str, capacity: int, message: str) -> None:
    """With what to do."""
    table = pl.DataFrame({"host.name": ["a"], "tags": [["x"]], "count": [1]})
    with pytest.raises((SchemaError, UsageError), match=message):
        collect(table, MostFrequent(column, capacity))


def test_an_unbounded_input_is_refused() -> None:
    """It would never come to an end."""
    from apache_beam.testing.test_stream import TestStream

    from fabric_beam import ToBatches

    with pytest.raises(UsageError, match="bounded"):
        _ = beam.Pipeline() | TestStream() | beam.Map(lambda _: beam.Row(a=1)) | ToBatches() | MostFrequent("a")
