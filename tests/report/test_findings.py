"""The findings of the report: neighbouring anomalous windows of a series are one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.report import findings
from tests.report.tables import (
    MINUTE,
    START,
    alerts,
    full,
    page,
    text,
)


def test_findings_merge_neighbouring_windows() -> None:
    """Adjacent anomalous windows of one series and measure are one finding, told by its highest score."""
    found = findings(
        alerts(
            [
                (3, "api", "count", 6.0, True),
                (1, "api", "count", 5.0, True),
                (2, "api", "count", 8.0, True),
                (2, "web", "count", 4.0, True),
                (3, "api", "size", 3.5, True),
                (4, "api", "count", 2.0, False),
                (5, "api", "count", 3.2, True),
            ]
        )
    )
    assert found.select("service.name", "measure", "windows", "score", "reason").rows() == [
        ("api", "count", 3, 8.0, "high 8.0"),
        ("web", "count", 1, 4.0, "high 4.0"),
        ("api", "size", 1, 3.5, "high 3.5"),
        ("api", "count", 1, 3.2, "high 3.2"),
    ]
    assert found.row(0)[:2] == (START + MINUTE, START + 4 * MINUTE)


def test_findings_know_the_window_they_are_told() -> None:
    """Two anomalies an hour apart are one finding in hourly windows and two in windows of a minute."""
    rows = alerts([(0, "api", "count", 5.0, True), (60, "api", "count", 4.0, True)])
    assert len(findings(rows, timedelta(hours=1))) == 1
    assert len(findings(rows, MINUTE)) == 2


def test_findings_accept_null_series_and_scores() -> None:
    """A series without a name is a series; a score that is not a number is never the peak."""
    rows = alerts([(0, "api", "count", float("nan"), True), (1, "api", "count", 4.0, True)])
    rows = pl.concat([rows, rows.with_columns(pl.lit(None, pl.String).alias("service.name"))])
    assert findings(rows, MINUTE).select("service.name", "windows", "score").rows() == [(None, 2, 4.0), ("api", 2, 4.0)]
    assert "count" in page(replace(full(), alerts=rows))


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 30), st.sampled_from(["a", "b"]))))
def test_findings_equal_a_plain_scan(anomalous: set[tuple[int, str]]) -> None:
    """For any set of anomalous windows, findings are the runs that a loop over each series finds."""

    def runs() -> Iterator[tuple[str, int, int]]:
        for minute, service in anomalous:
            if (minute - 1, service) not in anomalous:
                length = 1
                while (minute + length, service) in anomalous:
                    length += 1
                yield service, minute, length

    found = findings(alerts([(minute, service, "count", 5.0, True) for minute, service in sorted(anomalous)]), MINUTE)
    rows = found.select("service.name", "start", "windows").rows() if anomalous else []
    assert sorted(rows) == sorted((service, START + MINUTE * minute, length) for service, minute, length in runs())


def test_only_the_highest_findings_are_shown() -> None:
    """Fifty findings are listed, highest score first, and the page says how many there are."""
    html = page(replace(full(), alerts=alerts([(2 * n, "api", "count", 10.0 + n, True) for n in range(60)])))
    assert html.count('<li id="finding-') == 50
    assert "60 findings" in text(html)
    assert "The 50 highest are shown" in text(html)
    assert text(html).index("high 69.0") < text(html).index("high 68.0")
