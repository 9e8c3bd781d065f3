"""Syslog: times, most of which name no year and no zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.errors import UsageError
from tests.transforms.formats.syslog_lines import parse, reason, table
from transforms.formats.syslog import Syslog


def test_a_nil_time_is_null() -> None:
    """RFC 5424's `-` is no time, which is no fault."""
    assert "timestamp" not in parse("<13>1 - - - - - - hello")


def test_a_time_without_a_year_asks_for_one() -> None:
    """Without a year, an option or a time of observation, the message says what to give."""
    split = Syslog()(table(["Mar  7 13:06:56 web1 x"]).drop("observed_timestamp"))
    expected = "'Mar  7 13:06:56' names no year and there is no observed_timestamp: give `year`"
    assert split.rejected["rejected.message"].to_list() == [expected]
    assert Syslog()(table(["Mar  7 13:06:56 web1 x"], None)).rejected["rejected.message"].to_list() == [expected]


def test_a_file_runs_over_new_year() -> None:
    """December before and January after New Year get their own years."""
    lines: list[str | None] = ["Dec 31 23:59:59 h x", "Jan  1 00:00:01 h x", "Jan  2 00:00:06 h x"]
    kept = Syslog()(table(lines, datetime(2016, 1, 1, 0, 0, 5, tzinfo=UTC))).kept
    assert kept["timestamp"].dt.year().to_list() == [2015, 2016, 2015]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.datetimes(datetime(1910, 1, 1), datetime(2090, 1, 1)),
            st.datetimes(datetime(1910, 1, 1), datetime(2090, 1, 1)) | st.none(),
        ),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from(["UTC", "-05:30", "Europe/Berlin"]),
    st.booleans(),
)
def test_the_year_is_the_latest_not_after_the_observation(
    rows: list[tuple[datetime, datetime | None]], zone: str, leap_days: bool
) -> None:
    """A time without a year lies at most a day after its row's observation, and never a year too early."""

    def reference(moment: datetime, observed: datetime | None) -> datetime | None:
        if observed is None:
            return None
        east = ZoneInfo(zone) if zone != "-05:30" else None
        seen = observed.replace(tzinfo=UTC) + timedelta(days=1)
        limit = (seen.astimezone(east) if east else seen - timedelta(hours=5.5)).replace(tzinfo=None)
        for year in range(limit.year, 1800, -1):
            try:
                local = moment.replace(year=year)
            except ValueError:
                continue
            if local <= limit:
                return (
                    local.replace(tzinfo=east).astimezone(UTC)
                    if east
                    else local.replace(tzinfo=UTC) + timedelta(hours=5.5)
                )
        raise AssertionError

    moments = [
        (moment.replace(microsecond=0, **({"year": 2000, "month": 2, "day": 29} if leap_days else {})), observed)
        for moment, observed in rows
    ]
    lines: list[str | None] = [f"{moment:%b %e %H:%M:%S} h x" for moment, _ in moments]
    given = table(lines).with_columns(
        pl.Series("observed_timestamp", [seen for _, seen in moments], dtype=pl.Datetime("us")).dt.replace_time_zone(
            "UTC"
        )
    )
    split = Syslog(zone=zone)(given)
    expected = [reference(moment, observed) for moment, observed in moments]
    assert split.kept["timestamp"].to_list() == [time for time in expected if time]
    assert split.rejected.height == expected.count(None)


def test_the_year_option_beats_the_observation() -> None:
    """With `year`, times are in that year, and its 29 February exists only in leap years."""
    assert parse("Dec 31 23:59:59 h x", year=2020)["timestamp"].year == 2020
    assert parse("Feb 29 00:00:00 h x", year=2020)["timestamp"] == datetime(2020, 2, 29, tzinfo=UTC)
    assert reason("Feb 29 00:00:00 h x", year=2021) == "'Feb 29 00:00:00' is not a time"


@pytest.mark.parametrize("line", ["Jul  1 12:00:00 h x", "2015-07-01T12:00:00 h x", "1 2015-07-01T12:00:00 h - - - -"])
def test_the_zone_option_is_for_times_without_one(line: str) -> None:
    """Times that name no zone are in the zone that was given."""
    assert parse(line, year=2015, zone="Europe/Berlin")["timestamp"] == datetime(2015, 7, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("options", [{"zone": "Europe/Berln"}, {"year": 0}, {"year": 10000}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    """A zone or year that does not exist fails before the run."""
    with pytest.raises(UsageError):
        Syslog(**options)
