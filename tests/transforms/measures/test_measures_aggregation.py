"""Partial, merge and finish against plain Python, over any batches, windows and keys."""

from __future__ import annotations

import io
import math
import pickle
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fabric_beam.expressions import reject_failures
from fabric_beam.kernel import Split
from transforms.measures import Aggregation, Window

SECOND = 1_000_000
WINDOWS = st.sampled_from(["1m", "7s", "2m/1m", "90s/1m", "1m/7s"]).map(Window.parse)
SCHEMA = pl.Schema(
    {
        "timestamp": pl.Datetime("us", "UTC"),
        "service.name": pl.String(),
        "code": pl.Int32(),
        "size": pl.Int64(),
        "duration": pl.Float64(),
    }
)
BY = ["service.name", "code"]
MEASURES = [
    "count",
    "count(duration)",
    "count_if(size >= 10) AS large",
    "sum(size)",
    "sum(duration)",
    "min(size)",
    "max(size)",
    "min(duration)",
    "max(duration)",
    "min(service.name) AS first_name",
    "mean(size)",
    "mean(duration)",
    "stddev(size)",
    "stddev(duration)",
    "distinct(size)",
    "p0(duration)",
    "p50(duration)",
    "p99.9(size)",
    "p100(size)",
]


class Event(NamedTuple):
    timestamp: int
    service: str | None
    code: int | None
    size: int | None
    duration: float | None


EVENTS = st.lists(
    st.builds(
        Event,
        st.integers(-150 * SECOND, 150 * SECOND) | st.sampled_from([-60 * SECOND, -1, 0, 60 * SECOND]),
        st.none() | st.sampled_from(["a", "b", "a name longer than twelve bytes"]),
        st.none() | st.integers(0, 1),
        st.none() | st.integers(-(10**12), 10**12) | st.integers(-20, 20),
        st.none() | st.floats(-1e6, 1e6, allow_subnormal=False),
    ),
    max_size=50,
)


def table(events: Sequence[Event]) -> pl.DataFrame:
    """Make a table of events."""
    return pl.DataFrame(events, schema=SCHEMA, orient="row")


def window_starts(window: Window, timestamp: int) -> Iterator[int]:
    """Give the starts of the windows that hold a timestamp, as Beam's SlidingWindows does."""
    last = timestamp - timestamp % window.period
    return iter(range(last, timestamp - window.size, -window.period))


def nearest_rank(values: Sequence[float], percent: str) -> float | None:
    """Give the least value that at least that share of the values do not exceed."""
    rank = max(1, math.ceil(Fraction(percent) / 100 * len(values)))
    return sorted(values)[rank - 1] if values else None


def mean(values: Sequence[float]) -> float | None:
    """Give the exact mean."""
    return float(sum(map(Fraction, values)) / len(values)) if values else None


def stddev(values: Sequence[float]) -> float | None:
    """Give the sample standard deviation, exact up to the root."""
    if len(values) < 2:
        return None
    exact = list(map(Fraction, values))
    centre = sum(exact) / len(exact)
    return math.sqrt(sum((value - centre) ** 2 for value in exact) / (len(exact) - 1))


def measured(events: list[Event]) -> dict[str, Any]:
    """Compute every measure of one group."""
    sizes = [event.size for event in events if event.size is not None]
    durations = [event.duration for event in events if event.duration is not None]
    return {
        "count": len(events),
        "duration.count": len(durations),
        "large": sum(size >= 10 for size in sizes),
        "size.sum": sum(sizes) if sizes else None,
        "duration.sum": math.fsum(durations) if durations else None,
        "size.min": min(sizes, default=None),
        "size.max": max(sizes, default=None),
        "duration.min": min(durations, default=None),
        "duration.max": max(durations, default=None),
        "first_name": events[0].service,
        "size.mean": mean(sizes),
        "duration.mean": mean(durations),
        "size.stddev": stddev(sizes),
        "duration.stddev": stddev(durations),
        "size.distinct": len(set(sizes)),
        "duration.p0": nearest_rank(durations, "0"),
        "duration.p50": nearest_rank(durations, "50"),
        "size.p99.9": nearest_rank(sizes, "99.9"),
        "size.p100": nearest_rank(sizes, "100"),
    }


def tolerance(name: str, expected: float, events: list[Event]) -> float:
    """Give how far a measure may be from the reference."""
    column, _, function = name.partition(".")
    scale: float = sum(abs(getattr(event, column) or 0) for event in events) if function else 0
    if function == "distinct":
        return 2
    if function.startswith("p"):
        return 0.01 * abs(expected) * (1 + 1e-9)
    return 0 if isinstance(expected, int) else 1e-12 * scale


@settings(deadline=None, max_examples=100)
@given(events=EVENTS, window=WINDOWS)
def test_every_measure_agrees_with_plain_python(events: list[Event], window: Window) -> None:
    """One row for each window and key, null keys among them, sorted, and each measure right."""
    groups: dict[tuple[Any, ...], list[Event]] = defaultdict(list)
    for event in events:
        for start in window_starts(window, event.timestamp):
            groups[start, event.service, event.code].append(event)
    aggregation = Aggregation(SCHEMA, window, BY, MEASURES)
    actual = aggregation.finish(aggregation.partial(table(events)))

    nulls_first = sorted(groups, key=lambda key: [(part is not None, part or 0) for part in key])
    keys = actual.select(pl.col("window_start", "window_end").to_physical(), *BY).rows()
    assert keys == [(start, start + window.size, *by) for start, *by in nulls_first]
    for row, key in zip(actual.iter_rows(named=True), nulls_first, strict=True):
        for name, expected in measured(groups[key]).items():
            if expected is None or isinstance(expected, str):
                assert row[name] == expected, name
            else:
                assert abs(row[name] - expected) <= tolerance(name, expected, groups[key]), name


@settings(deadline=None, max_examples=60)
@given(events=EVENTS, window=WINDOWS, data=st.data())
def test_batches_merge_in_any_order_and_grouping(events: list[Event], window: Window, data: st.DataObject) -> None:
    """However events are cut into batches and partial tables are merged, the result is that of one batch."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=6)))
    aggregation = Aggregation(SCHEMA, window, BY, MEASURES)
    batches = [table(events[start:end]) for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True)]
    partials = data.draw(st.permutations([aggregation.partial(batch) for batch in batches]))
    while len(partials) > 1:
        taken = data.draw(st.integers(2, len(partials)))
        partials = [*partials[taken:], aggregation.merge(pl.concat(partials[:taken]))]

    one = aggregation.partial(table(events))
    assert len(one) == len(partials[0]) == one.select("window_start", *BY).n_unique()
    expected, actual = aggregation.finish(one), aggregation.finish(partials[0])
    rounded = [name for name in expected.columns if name.endswith((".mean", ".stddev")) or name == "duration.sum"]
    assert_frame_equal(actual.drop(rounded), expected.drop(rounded), check_exact=True)
    assert_frame_equal(actual.select(rounded), expected.select(rounded), check_exact=False, rel_tol=1e-9, abs_tol=1e-3)


@pytest.mark.parametrize("window", ["1m", "5m/1m"])
def test_empty_tables_keep_their_schemas(window: str) -> None:
    """No events give the columns and types that events give, at each step."""
    aggregation = Aggregation(SCHEMA, Window.parse(window), BY, MEASURES)
    some = aggregation.partial(table([Event(0, "a", 1, 2, 3.0)]))
    none = aggregation.partial(table([]))
    assert none.schema == some.schema
    assert aggregation.merge(none).schema == aggregation.merge(some).schema == some.schema
    assert aggregation.finish(none).schema == aggregation.finish(some).schema
    assert len(none) == len(aggregation.merge(none)) == len(aggregation.finish(none)) == 0


def test_output_types_are_stated_ones() -> None:
    """Counts and integer sums are Int64, means, deviations and percentiles Float64, extrema the column's type."""
    aggregation = Aggregation(SCHEMA, Window.parse("1m"), BY, MEASURES)
    types = aggregation.finish(aggregation.partial(table([]))).schema
    integers = ("count", "duration.count", "large", "size.sum", "size.min", "size.max", "size.distinct")
    assert types == {
        "window_start": pl.Datetime("us", "UTC"),
        "window_end": pl.Datetime("us", "UTC"),
        "service.name": pl.String,
        "code": pl.Int32,
        **dict.fromkeys(measured([Event(0, None, None, None, None)]), pl.Float64),
        **dict.fromkeys(integers, pl.Int64),
        "first_name": pl.String,
    }


def test_partial_tables_survive_arrow_ipc() -> None:
    """A partial table is flat enough for Arrow's own stream format, in both directions."""
    aggregation = Aggregation(SCHEMA, Window.parse("1m"), BY, MEASURES)
    partial = aggregation.partial(table([Event(0, None, 1, 2, -3.0), Event(1, "b", 1, None, None)]))
    sink = io.BytesIO()
    arrow = partial.to_arrow(compat_level=pl.CompatLevel.newest())
    with pa.ipc.new_stream(sink, arrow.schema) as writer:
        writer.write_table(arrow)
    read = pl.DataFrame(pa.ipc.open_stream(sink.getvalue()).read_all())
    assert_frame_equal(aggregation.finish(read), aggregation.finish(partial))


def test_an_aggregation_can_be_pickled() -> None:
    """Runners send it to their workers."""
    events = table([Event(at, "a", 1, 20 * at, 3.0) for at in range(5)])
    aggregation = Aggregation(SCHEMA, Window.parse("1m"), BY, MEASURES)
    copy = pickle.loads(pickle.dumps(aggregation))
    assert_frame_equal(copy.finish(copy.partial(events)), aggregation.finish(aggregation.partial(events)))


def test_a_slice_of_a_partial_table_is_one() -> None:
    """A partial table may be cut by key and each part finished alone."""
    aggregation = Aggregation(SCHEMA, Window.parse("1m"), BY, MEASURES)
    partial = aggregation.partial(table([Event(0, name, 1, 2, 3.0) for name in "abc"]))
    parts = [aggregation.finish(partial[start:end]) for start, end in ((0, 1), (1, 3))]
    assert_frame_equal(pl.concat(parts), aggregation.finish(partial))


def test_measures_share_state() -> None:
    """Percentiles of one column share a sketch, and a mean takes its total and count from those that are there."""
    columns = {
        measures: len(Aggregation(SCHEMA, Window.parse("1m"), [], measures).partial(table([])).columns) - 1
        for measures in [
            ("p50(duration)", "p99(duration)"),
            ("mean(duration)", "sum(duration)", "count(duration)"),
        ]
    }
    assert list(columns.values()) == [2, 2]


def test_without_keys_there_is_a_row_a_window() -> None:
    """Key columns are optional."""
    aggregation = Aggregation(SCHEMA, Window.parse("1m"), [], ["count", "p50(size)"])
    events = table([Event(at * SECOND, "a", 1, 2, 3.0) for at in (0, 59, 60)])
    assert aggregation.finish(aggregation.partial(events))["count"].to_list() == [2, 1]


def test_events_may_have_columns_named_like_the_output() -> None:
    """What is not a key does not clash: an event may carry a window_start or a count of its own."""
    events = table([Event(0, "a", 1, 2, 3.0)]).with_columns(pl.lit("x").alias("window_start"), pl.lit(7).alias("count"))
    aggregation = Aggregation(events.schema, Window.parse("1m"), [], ["sum(count)", "count", "p50(count)"])
    assert aggregation.finish(aggregation.partial(events)).select("count.sum", "count").row(0) == (7, 1)


def test_rows_on_which_a_condition_fails_can_be_found() -> None:
    """Under reject_failures, evaluate keeps the rows that partial can count and rejects the others."""
    events = table([Event(0, name, 1, 2, 3.0) for name in ("1", "x", "9")])
    aggregation = Aggregation(SCHEMA, Window.parse("1m"), [], ["count_if(CAST(service.name AS INT) > 5) AS n", "count"])
    with pytest.raises(pl.exceptions.PolarsError):
        aggregation.partial(events)
    split = reject_failures(events, aggregation.evaluate)
    assert isinstance(split, Split)
    assert split.rejected["service.name"].to_list() == ["x"]
    assert aggregation.finish(aggregation.partial(split.kept)).select("n", "count").row(0) == (1, 2)
