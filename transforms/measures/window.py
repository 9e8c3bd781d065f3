"""Event-time windows, fixed and sliding, by integer arithmetic on microseconds since the epoch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import polars as pl

from fabric_beam.errors import UsageError

TIMESTAMP = "timestamp"
WINDOW_START = "window_start"
WINDOW_END = "window_end"
TIME = pl.Datetime("us", "UTC")

_MICROSECONDS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION = r"\s*(\d+)\s*(ms|s|m|h|d)\s*"
_WINDOW = re.compile(f"{_DURATION}(?:/{_DURATION})?")


@dataclass(frozen=True)
class Window:
    """Windows `[start, end)` of one size, one every period, aligned to the epoch as Beam's are.

    Attributes:
        size: the length of a window, in microseconds.
        period: the time from one window's start to the next one's, in microseconds; equal to `size` for fixed windows.

    Raises:
        UsageError: a duration is not positive, or `period` is longer than `size`: events would fall between windows.

    Example:
        >>> Window(60_000_000, 60_000_000) == Window.parse("1m")
        True
    """

    size: int
    period: int

    def __post_init__(self) -> None:
        if not 0 < self.period <= self.size:
            raise UsageError(
                f"window of {self.size} µs every {self.period} µs: expected 0 < period <= size, "
                "or events would fall between windows"
            )

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read a window written as `size` or `size/period`.

        Args:
            text: whole numbers with a unit (ms, s, m, h, d): `1m` (fixed), `5m/1m` (5 minutes, one every minute).

        Returns:
            The window.

        Raises:
            UsageError: the text is not of that form, or the period is longer than the size.

        Example:
            >>> Window.parse("5m/1m")
            Window(size=300000000, period=60000000)
        """
        match = _WINDOW.fullmatch(text)
        if match is None:
            raise UsageError(
                f"window {text!r}: expected a size such as '30s' or '1m', or size/period such as '5m/1m' (units: "
                f"{', '.join(_MICROSECONDS)})"
            )
        size = int(match[1]) * _MICROSECONDS[match[2]]
        return cls(size, int(match[3]) * _MICROSECONDS[match[4]] if match[3] else size)

    @property
    def pane(self) -> int:
        """The longest stretch, in microseconds, that no window's start or end divides."""
        return math.gcd(self.size, self.period)

    def assign(self) -> pl.Expr:
        """Give the start of each event's pane.

        Returns:
            An expression over `timestamp` named `window_start`, both Datetime µs UTC, for `expand`.
        """
        return pl.col(TIMESTAMP).dt.truncate(f"{self.pane}us").alias(WINDOW_START)

    def expand(self, table: pl.DataFrame) -> pl.DataFrame:
        """Repeat rows of panes for each window that contains the pane.

        Args:
            table: any columns, with `window_start` (Datetime µs UTC) holding the starts of panes.

        Returns:
            The table with the starts of windows in `window_start`: a row for each pane and window that contains it.

        Example:
            >>> panes = pl.DataFrame({"window_start": pl.Series([0], dtype=pl.Datetime("us", "UTC")), "count": [7]})
            >>> Window.parse("2m/1m").expand(panes)["window_start"].dt.to_string("%F %T").to_list()
            ['1969-12-31 23:59:00', '1970-01-01 00:00:00']
        """
        if self.size == self.period:
            return table
        pane = pl.col(WINDOW_START).to_physical()
        first = ((pane - self.size) // self.period + 1) * self.period
        windows = pl.int_ranges(first, pane + 1, self.period, dtype=pl.Int64).cast(pl.List(TIME))
        return table.with_columns(windows.alias(WINDOW_START)).explode(WINDOW_START)
