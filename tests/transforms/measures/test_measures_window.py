"""Windows: their text form, and that events fall in the windows that Beam gives them."""

from __future__ import annotations

import apache_beam as beam
import polars as pl
import pytest
from apache_beam.transforms.window import WindowFn
from apache_beam.utils.timestamp import Duration, Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.errors import UsageError
from transforms.measures import Window
from transforms.measures.window import TIME, WINDOW_START

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "size", "period"),
    [
        ("1m", 60 * SECOND, 60 * SECOND),
        ("5m/1m", 300 * SECOND, 60 * SECOND),
        ("250ms", SECOND // 4, SECOND // 4),
        (" 90 s / 1 m ", 90 * SECOND, 60 * SECOND),
        ("1d/1h", 86_400 * SECOND, 3_600 * SECOND),
    ],
)
def test_a_window_is_read_from_text(text: str, size: int, period: int) -> None:
    """A size, or a size and a period, with a unit each, is read in microseconds."""
    assert Window.parse(text) == Window(size, period)


@pytest.mark.parametrize("text", ["", "5", "m", "1.5m", "-1m", "1m/", "1m/1m/1m", "1 month", "1M"])
def test_text_that_is_no_window_is_refused(text: str) -> None:
    """The error repeats the text and shows both forms and the units."""
    with pytest.raises(UsageError) as error:
        Window.parse(text)
    assert f"window {text!r}" in str(error.value)
    assert "'1m'" in str(error.value)
    assert "'5m/1m'" in str(error.value)
    assert "ms, s, m, h, d" in str(error.value)


@pytest.mark.parametrize("text", ["0s", "1m/0s", "1m/2m"])
def test_windows_that_would_lose_events_are_refused(text: str) -> None:
    """No size, no period, or a period longer than the size is a usage error."""
    with pytest.raises(UsageError, match="expected 0 < period <= size"):
        Window.parse(text)


@settings(deadline=None, max_examples=200)
@given(
    timestamps=st.lists(st.integers(-(10**13), 10**16) | st.integers(-30, 30), max_size=20),
    period=st.integers(1, 50) | st.integers(1, 86_400 * SECOND),
    overlap=st.fractions(1, 7, max_denominator=4),
)
def test_events_fall_in_the_windows_that_beam_assigns(timestamps: list[int], period: int, overlap: float) -> None:
    """Fixed and sliding, before and after 1970, whether or not the period divides the size."""
    window = Window(int(period * overlap), period)
    events = pl.DataFrame({"timestamp": pl.Series(timestamps, dtype=pl.Int64).cast(TIME), "event": timestamps})
    expanded = window.expand(events.with_columns(window.assign()))
    actual = expanded.select(pl.col(WINDOW_START).to_physical(), "event").rows()
    assert sorted(actual) == sorted((start, event) for event in timestamps for start in beam_windows(window, event))


def beam_windows(window: Window, timestamp: int) -> list[int]:
    """Give the starts of the windows that Beam puts a timestamp in."""
    size, period = Duration(micros=window.size), Duration(micros=window.period)
    assigner = beam.window.FixedWindows(size) if size == period else beam.window.SlidingWindows(size, period)  # type: WindowFn
    return [each.start.micros for each in assigner.assign(WindowFn.AssignContext(Timestamp(micros=timestamp)))]
