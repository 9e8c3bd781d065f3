"""The charts of the report: no event is lost on them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.report.charts import MAX_BINS, quantile_charts, severity_chart, throughput_chart, time_axis
from tests.report.tables import (
    MINUTE,
    START,
    alerts,
    data,
    empty,
    full,
    page,
    text,
    throughput,
)


def test_rebinning_keeps_totals() -> None:
    """A range of more windows than fit is added up into wider bins without losing an event."""
    counts = [number % 97 for number in range(30 * 1440)]
    shown = data(page(replace(full(), throughput=throughput(counts))))
    values = shown["charts"][0]["series"][0]["values"]
    assert shown["axis"] == {"start": START.replace(tzinfo=UTC).timestamp() * 1000, "step": 30 * 60_000, "bins": 1440}
    assert values == [sum(counts[first : first + 30]) for first in range(0, len(counts), 30)]


def test_rebinning_takes_the_greatest_quantile() -> None:
    """Where windows fall into one bin the greatest quantile is drawn."""
    times = [START + MINUTE * number for number in range(4000)]
    quantiles = pl.DataFrame({"window_start": times, "size.p99": [float(number) for number in range(4000)]})
    axis = time_axis(pl.DataFrame(), quantiles)
    assert axis
    assert (axis.step, axis.bins) == (120_000_000, 2000)
    assert quantile_charts(quantiles, axis)[0].series[0].values == [float(number) for number in range(1, 4000, 2)]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 400_000), st.integers(1, 1000), min_size=1, max_size=40),
    st.sampled_from([1, 7, 60, 300, 86_400]),
)
def test_no_event_is_lost_on_the_axis(windows: dict[int, int], seconds: int) -> None:
    """At any width and spread of windows, events drawn and events said not to be drawn are all events."""
    table = pl.DataFrame(
        {"window_start": [START + timedelta(seconds=seconds * n) for n in windows], "count": list(windows.values())}
    )
    axis = time_axis(table, pl.DataFrame())
    assert axis
    assert axis.bins <= MAX_BINS
    assert axis.step % (seconds * 1_000_000) == 0 or len(windows) == 1
    drawn = throughput_chart(table, axis).series[0].values
    assert sum(value or 0 for value in drawn) + axis.outside == sum(windows.values())


def test_a_wrong_clock_does_not_squeeze_the_chart() -> None:
    """A few events of 1970 are named, not drawn, and the others keep their minutes."""
    table = pl.concat([throughput([3], start=datetime(1970, 1, 1)), throughput([10_000] * 60)])
    html = page(replace(full(), throughput=table))
    assert data(html)["axis"]["bins"] == 60
    assert "Not drawn: 3 events with a time far from all others" in text(html)


def test_times_beyond_the_calendar_are_shown() -> None:
    """Milliseconds read as seconds give years of five digits: the page is still made."""
    far = pl.Series([55_000 * 31_557_600 * 1_000_000]).cast(pl.Datetime("us"))
    late = alerts([(1, "api", "count", 7.0, True)]).with_columns(far.alias("window_start"))
    table = throughput([5]).with_columns(far.alias("window_start"))
    assert "9999" in text(page(replace(full(), throughput=table, alerts=late)))


def test_severities_are_merged_by_level() -> None:
    """Other systems' severity names count towards OpenTelemetry's levels, the worst at the bottom of the stack."""
    names = ["err", "CRITICAL", "Warning", "notice", "INFO", "EMERG", "Debug", "TRACE2", "banana", None]
    table = pl.concat([throughput([1], severity=name) for name in names])
    axis = time_axis(table, pl.DataFrame())
    assert axis
    chart = severity_chart(table, axis)
    assert chart
    assert [(one.name, one.values) for one in chart.series] == [
        ("FATAL", [1]), ("ERROR", [2]), ("WARN", [1]), ("INFO", [2]), ("DEBUG", [1]), ("TRACE", [1]), ("OTHER", [2]),
    ]  # fmt: skip


def test_quantile_gaps_and_not_a_number_are_null() -> None:
    """A window without a quantile, or with an infinite one, is a gap in the line."""
    quantiles = pl.DataFrame(
        {"window_start": [START, START + MINUTE, START + 3 * MINUTE], "size.p50": [1.0, float("nan"), float("inf")]}
    )
    html = page(replace(empty(), quantiles=quantiles))
    assert data(html)["charts"][0]["series"][0]["values"] == [1.0, None, None, None]


def test_anomalies_are_marked_on_the_charts() -> None:
    """A finding's place on the axis, from its first window to the end of its last, goes to the charts."""
    assert data(page(full()))["marks"] == [{"number": 1, "label": "api count", "from": 50, "to": 52}]
