"""RobustZScore: how far a window is from the windows before it, by median and MAD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view

from fabric_beam.errors import SchemaError, UsageError, nearest
from transforms.detectors.base import (
    MAD,
    MEAN_DEVIATION,
    VERDICT,
    WINDOW_END,
    WINDOW_START,
    Detector,
    in_words,
    measures_of,
)

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]

#: What makes the 85th percentile of |x - median| of a normal distribution its standard deviation.
_TAIL_AT, _TAIL = 0.85, 1 / 1.4395
#: The least scale, as a share of the median.
_FLOOR = 0.05
#: Windows whose histories are sorted at once: few enough for the processor's cache.
_CHUNK = 1024
_TIME = pl.Datetime("us", "UTC")


class RobustZScore(Detector):
    """Score each window of a series by its distance from the median of the windows before it, in robust deviations.

    score = |x - median| / scale, over the previous `history` windows of the same series and measure: never the window
    itself or a later one. The scale is the largest of

    - 1.4826 MAD, the median of |x - median|, as Iglewicz and Hoaglin have it;
    - the 85th percentile of |x - median| / 1.4395, so that what happens every few windows is usual (both equal the
      standard deviation of normal noise). If both are 0, the mean of |x - median| times 1.2533 (Iglewicz and Hoaglin's
      remedy for a MAD of 0);
    - 5 % of the median, so that a series that hardly varies does not fire on a trifle.

    Up to 15 % of the history (9 of 60 windows) may be anomalous without touching the scale, and half of it without
    touching the median; a level that lasts longer is accepted as the new one. So a slow daily cycle is followed, while
    a sharp step fires for some windows, every day anew.

    Counts (integer columns, and those of `fill_zero`) are judged as 2 sqrt(x + 3/8): Poisson noise then has a standard
    deviation of 1 at every level, which is the least scale, and a fall to 0 stands out as clearly as a rise.

    Args:
        measures: the columns to judge; None for every numeric column that is not in `by`.
        threshold: the score above which a window is anomalous. Iglewicz and Hoaglin's 3.5 suits one sample; a monitor
            that looks every minute needs more.
        history: how many windows before it a window is compared with.
        min_history: a window with fewer before it gets no score.
        fill_zero: measures that are 0 where a series has no window, because no event came. Gaps between a series' first
            and last window are filled so before scoring; a filled window is in the output only if it is anomalous.

    Output of `score`: a row for each window and measure, sorted by `window_start`, then the series (null first), then
    the measures in their order. `value` is null where the measure is null, NaN or infinite; such windows are no part of
    any history.

    Raises:
        UsageError: a number is out of its range.

    Sources: B. Iglewicz and D. C. Hoaglin, How to Detect and Handle Outliers (ASQC, 1993); F. J. Anscombe, The
    transformation of Poisson, binomial and negative-binomial data (Biometrika 35, 1948).

    Example:
        >>> from datetime import UTC, datetime, timedelta
        >>> start = datetime(2026, 1, 1, tzinfo=UTC)
        >>> times = pl.datetime_range(start, start + timedelta(minutes=36), "1m", eager=True)
        >>> windows = pl.DataFrame({"window_start": times, "count": [240, 251, 232, 246] * 9 + [812]})
        >>> windows = windows.with_columns((pl.col("window_start") + timedelta(minutes=1)).alias("window_end"))
        >>> RobustZScore().score(windows).filter("is_anomaly")["reason"].to_list()
        ['count 812 is 25.8 robust deviations above the median 243 of the previous 36 windows']
    """

    causal = True

    def __init__(
        self,
        measures: Sequence[str] | None = None,
        threshold: float = 6.0,
        history: int = 60,
        min_history: int = 20,
        fill_zero: Sequence[str] = ("count",),
    ) -> None:
        if not threshold > 0:
            raise UsageError(f"RobustZScore: threshold {threshold} must be above 0; 6 is usual.")
        if not 2 <= min_history <= history:
            raise UsageError(f"RobustZScore: expected 2 <= min_history <= history, not {min_history} and {history}.")
        self.measures = measures
        self.threshold = float(threshold)
        self.history = history
        self.min_history = min_history
        self.fill_zero = tuple(fill_zero)

    def score(self, table: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
        measures = self._check(table, by)
        rows = table.select(WINDOW_START, WINDOW_END, *by, *measures).sort(*by, WINDOW_START)
        series = np.zeros(rows.height, np.int64)
        if by:
            changes = rows.select(pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in by))
            series = changes.to_series().cum_sum().cast(pl.Int64).to_numpy()
        filled = np.zeros(rows.height, np.bool_)
        if any(name in self.fill_zero for name in measures):
            rows, series, filled = self._fill(rows, series)
        keys = rows.select(WINDOW_START, WINDOW_END, *by)
        # Rows by time, then series; the measures of each row side by side.
        place = np.empty(rows.height, np.int64)
        place[np.lexsort((series, rows[WINDOW_START].to_physical().fill_null(0).to_numpy()))] = np.arange(rows.height)
        parts, places = [], []
        for name in measures:
            verdicts = self._judge(rows[name], series, filled)
            shown = np.flatnonzero(~filled | verdicts["is_anomaly"].to_numpy())
            parts.append(keys[shown].hstack(verdicts[shown]))
            places.append(place[shown])
        order = np.argsort(np.concatenate(places), kind="stable")
        return _explain(pl.concat(parts)[order]).select(*keys.columns, *VERDICT)

    def _check(self, table: pl.DataFrame, by: Sequence[str]) -> list[str]:
        measures = measures_of(table, by, self.measures, "RobustZScore")
        for name in (WINDOW_START, WINDOW_END):
            if table.schema.get(name) != _TIME:
                found = f"is {table.schema[name]}" if name in table.columns else "is missing"
                raise SchemaError(f"RobustZScore judges windows: column {name!r} {found}, expected {_TIME}.")
        for name in self.fill_zero:
            if name not in measures and name != "count":
                raise SchemaError(f"RobustZScore: {name!r} of fill_zero is no measure. {nearest(name, measures)}")
        return measures

    def _fill(self, rows: pl.DataFrame, series: Integers) -> tuple[pl.DataFrame, Integers, Flags]:
        """The windows with those in which nothing came between a series' others, and which these are.

        Of each gap only the first `history` windows, which leave nothing else in the history.
        """
        start = rows[WINDOW_START].to_physical().fill_null(0).to_numpy()
        size = (rows[WINDOW_END] - rows[WINDOW_START]).to_physical().fill_null(0).to_numpy()
        missing = np.zeros(len(start), np.int64)
        missing[:-1] = np.diff(start) // np.maximum(size[:-1], 1) - 1
        missing[:-1][(series[1:] != series[:-1]) | (size[:-1] <= 0)] = 0
        missing = missing.clip(0, self.history)
        source = np.repeat(np.arange(len(start)), missing + 1)
        step = np.arange(len(source)) - (np.cumsum(missing + 1) - missing - 1)[source]
        if not step.any():
            return rows, series, step > 0
        later = pl.lit(pl.Series(step * size[source]).cast(pl.Duration("us")))
        times = [pl.col(name) + later for name in (WINDOW_START, WINDOW_END)]
        return rows[source].with_columns(times), series[source], step > 0

    def _judge(self, column: pl.Series, series: Integers, filled: Flags) -> pl.DataFrame:
        """The verdicts on one measure, with `median` and `windows` of the history in place of the reason."""
        counts = column.name in self.fill_zero or column.dtype.is_integer()
        values = column.cast(pl.Float64).fill_null(np.nan).to_numpy().copy()
        values[filled] = 0 if column.name in self.fill_zero else np.nan
        at = np.flatnonzero(np.isfinite(values))
        score, median = np.full((2, len(values)), np.nan)
        windows = np.zeros(len(values), np.int64)
        score[at], median[at], windows[at] = self._scores(values[at], series[at], filled[at], counts)
        values[~np.isfinite(values)] = np.nan
        return pl.DataFrame(
            {
                "measure": pl.repeat(column.name, len(values), eager=True),
                "value": pl.Series(values, nan_to_null=True),
                "score": pl.Series(score, nan_to_null=True),
                "threshold": pl.repeat(self.threshold, len(values), eager=True),
                "is_anomaly": score > self.threshold,
                "median": median,
                "windows": windows,
            }
        )

    def _scores(self, values: Floats, series: Integers, filled: Flags, counts: bool) -> tuple[Floats, Floats, Integers]:
        """The scores of finite values, series by series in order of time; the histories' medians and lengths."""
        rows = np.arange(len(values))
        starts = np.ones(len(values), np.bool_)
        starts[1:] = series[1:] != series[:-1]
        windows = np.minimum(rows - np.maximum.accumulate(np.where(starts, rows, 0)), self.history)
        score, median = np.full((2, len(values)), np.nan)
        judged = _roots(values) if counts else values
        before = sliding_window_view(np.concatenate([np.zeros(self.history), judged]), self.history)
        # An empty window is anomalous only if the median is above the threshold: most need no look at their history.
        high = np.concatenate([[0], np.cumsum(judged > self.threshold)])
        looked_at = ~filled | (2 * (high[rows] - high[rows - windows]) >= windows)
        enough = np.flatnonzero((windows >= self.min_history) & looked_at)
        for first in range(0, len(enough), _CHUNK):
            at = enough[first : first + _CHUNK]
            low, high, scale = _middles_and_scale(before[at], windows[at])
            middle, now = (low + high) / 2, judged[at]
            floor = np.maximum(1, np.abs(middle) * _FLOOR / 2) if counts else np.abs(middle) * _FLOOR
            scale = np.maximum(scale, floor)
            # A series that was always 0 has no scale: what differs from it is as far off as the floor can make it.
            scale = np.where(scale > 0, scale, np.abs(now) * _FLOOR)
            score[at] = np.divide(np.abs(now - middle), scale, out=np.zeros(len(at)), where=scale > 0)
            median[at] = (_squares(low) + _squares(high)) / 2 if counts else middle
        return score, median, windows


def _middles_and_scale(history: Floats, windows: Integers) -> tuple[Floats, Floats, Floats]:
    """Of each row's last so many values the lower and upper median, and the scale without its floor; sorts in place."""
    rows = np.arange(len(history))
    lower, upper, tail = (windows - 1) // 2, windows // 2, np.ceil(windows * _TAIL_AT).astype(np.int64) - 1
    history[np.arange(history.shape[1]) < history.shape[1] - windows[:, None]] = np.inf
    history.sort(axis=1)
    low, high = history[rows, lower], history[rows, upper]
    history -= ((low + high) / 2)[:, None]
    np.abs(history, out=history)
    history.sort(axis=1)
    mad = (history[rows, lower] + history[rows, upper]) / 2
    scale = np.maximum(MAD * mad, _TAIL * history[rows, tail])
    flat = np.flatnonzero(scale == 0)
    mean = np.where(np.isfinite(history[flat]), history[flat], 0).sum(axis=1) / windows[flat]
    scale[flat] = MEAN_DEVIATION * mean
    return low, high, scale


def _roots(counts: Floats) -> Floats:
    """Anscombe's transformation, shifted so that 0 stays 0, and odd so that it takes negative numbers."""
    roots: Floats = 2 * np.sign(counts) * (np.sqrt(np.abs(counts) + 3 / 8) - np.sqrt(3 / 8))
    return roots


def _squares(roots: Floats) -> Floats:
    counts: Floats = np.sign(roots) * np.abs((np.abs(roots) / 2 + np.sqrt(3 / 8)) ** 2 - 3 / 8)
    return counts


def _explain(verdicts: pl.DataFrame) -> pl.DataFrame:
    """Add the reasons of the anomalies, in words."""
    at = verdicts["is_anomaly"].arg_true()
    direction = pl.when(pl.col("value") > pl.col("median")).then(pl.lit("above")).otherwise(pl.lit("below"))
    text = pl.format(
        "{} {} is {} robust deviations {} the median {} of the previous {} windows",
        *("measure", in_words(pl.col("value")), in_words(pl.col("score").round(1)), direction),
        *(in_words(pl.col("median")), "windows"),
    )
    reasons = pl.repeat(None, verdicts.height, dtype=pl.String, eager=True)
    return verdicts.with_columns(reasons.scatter(at, verdicts[at].select(text).to_series()).alias("reason"))
