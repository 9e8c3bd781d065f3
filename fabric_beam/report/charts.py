"""What the report's charts show: the common time axis, and the values of each chart on it.

The page draws them itself (`report.js`), in SVG, from these values: ten times lighter than a charting library's
script alone, and in the colours and type of the page, on screen, in the dark and on paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from fabric_beam.report.findings import window_length
from fabric_beam.report.wording import duration, instant, per, period, share, short

#: More windows than this are added up into wider ones.
MAX_BINS = 2000
MAX_QUANTILE_CHARTS = 8
_COLUMN = "window_start"
_MINUTE = 60_000_000
_ROUND_STEPS = [
    seconds * 1_000_000
    for seconds in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200)
] + [days * 86_400_000_000 for days in (1, 2, 7, 14, 28)]

# The severities of the OpenTelemetry log data model, and its mapping of other systems' names:
# https://opentelemetry.io/docs/specs/otel/logs/data-model/#displaying-severity (appendix B for syslog and others).
_SEVERITIES = {
    "fatal": r"(?i)^(fatal|emerg|panic)",
    "error": r"(?i)^(err|crit|alert|severe)",
    "warn": r"(?i)^warn",
    "info": r"(?i)^(info|notice)",
    "debug": r"(?i)^(debug|fine$|config$)",
    "trace": r"(?i)^(trace|verbose|finer|finest)",
}
_STATUS_CLASSES = {5: "5xx server error", 4: "4xx client error", 3: "3xx redirect", 2: "2xx success", 1: "1xx info"}
_LINE_COLOURS = ("line1", "line2", "line3", "line4", "line5")


@dataclass(frozen=True)
class Axis:
    """Time cut into equal bins, the same for every chart.

    Attributes:
        start: the first bin's start, microseconds since 1970.
        step: the length of a bin in microseconds.
        bins: how many there are.
        outside: events whose time lies so far from nearly all others' that they are not drawn.
    """

    start: int
    step: int
    bins: int
    outside: int = 0

    def place(self, table: pl.DataFrame) -> pl.DataFrame:
        """Add the column `bin` to a table of windows and drop what is outside of the axis."""
        index = (pl.col(_COLUMN).dt.epoch("us") - self.start).floordiv(self.step)
        return table.with_columns(index.alias("bin")).filter(pl.col("bin").is_between(0, self.bins - 1))

    def position(self, micros: int) -> float:
        """Give a time's distance from the axis's start, in bins."""
        return (micros - self.start) / self.step

    @property
    def text(self) -> str:
        return period(instant(self.start), instant(self.start + self.bins * self.step))


@dataclass(frozen=True)
class Series:
    """One area or line: its name, the name of its colour in `report.css`, and a value for each bin."""

    name: str
    colour: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Chart:
    """One chart over time.

    Attributes:
        id: the section's anchor.
        title: its heading.
        note: a sentence that says in words what it shows.
        unit: what its values count.
        kind: `stack` (areas, the first series at the bottom) or `line`.
        gap: the longest distance, in bins, that a line crosses.
        series: at least one.
    """

    id: str
    title: str
    note: str
    unit: str
    kind: str
    series: list[Series]
    gap: int = 1
    log: bool = False

    def data(self) -> dict[str, object]:
        """Give what the page's script needs to draw it."""
        return {"kind": self.kind, "gap": self.gap, "log": self.log, "series": [asdict(one) for one in self.series]}


def time_axis(throughput: pl.DataFrame, quantiles: pl.DataFrame) -> Axis | None:
    """Choose the time axis that all charts share.

    Args:
        throughput: `window_start` (Datetime) and `count`, any number of rows a window.
        quantiles: `window_start`; looked at only where there is no throughput.

    Returns:
        At most `MAX_BINS` bins, each a whole number of windows long; None where no window has a time.
    """
    source = throughput.select(_COLUMN, "count") if not throughput.is_empty() else quantiles
    if source.is_empty():
        return None
    weight = pl.col("count") if "count" in source.columns else pl.lit(1)
    windows = (
        source.lazy()
        .drop_nulls(_COLUMN)
        .group_by(pl.col(_COLUMN).dt.epoch("us").alias("start"))
        .agg(weight.cast(pl.Int64).sum().alias("count"))
        .sort("start")
        .collect()
    )
    if windows.is_empty():
        return None
    starts, counts = windows["start"].to_numpy(), windows["count"].to_numpy()
    width = max(int(np.diff(starts).min()) if len(starts) > 1 else _MINUTE, 1000)
    first, last = int(starts[0]), int(starts[-1])
    drawn = slice(None)
    # One line with a wrong clock (1970, say) must not squeeze all the others into a single bar.
    cumulated = counts.cumsum() / max(int(counts.sum()), 1)
    low, high = (int(starts[min(int(np.searchsorted(cumulated, share)), len(starts) - 1)]) for share in (5e-4, 0.9995))
    if last - first > 20 * (high - low + width):
        first, last = low, high
        drawn = slice(int(np.searchsorted(starts, low)), int(np.searchsorted(starts, high, side="right")))
    step = _step(first, last, width)
    origin = first if step == width else first // step * step
    return Axis(origin, step, (last - origin) // step + 1, int(counts.sum() - counts[drawn].sum()))


def _step(first: int, last: int, width: int) -> int:
    if (last - first) // width < MAX_BINS:
        return width
    # Whole windows only: bins of different numbers of windows would show a ripple that is not in the data.
    whole = (step for step in _ROUND_STEPS if step % width == 0 and last // step - first // step < MAX_BINS)
    return next(whole, -(-((last - first) // (MAX_BINS - 1) + 1) // width) * width)


def _sums(table: pl.DataFrame, axis: Axis, group: pl.Expr) -> dict[object, list[int]]:
    placed = axis.place(table).with_columns(group.alias("group"))
    sums: dict[object, list[int]] = {}
    for (name,), part in placed.group_by("bin", "group").agg(pl.col("count").sum()).group_by("group"):
        values = np.zeros(axis.bins, dtype=np.int64)
        values[part["bin"].to_numpy()] = part["count"].fill_null(0).to_numpy()
        sums[name] = values.tolist()
    return sums


def _events(count: int) -> str:
    return f"{count:,} event" if count == 1 else f"{count:,} events"


def throughput_chart(throughput: pl.DataFrame, axis: Axis) -> Chart:
    """Count the events of each bin.

    Args:
        throughput: `window_start` (Datetime), `count` (Int64).
        axis: the bins.

    Returns:
        A chart of one area.
    """
    values = next(iter(_sums(throughput, axis, pl.lit("events")).values()), [0] * axis.bins)
    peak = int(np.argmax(values))
    at = period(*[instant(axis.start + axis.step * peak)] * 2)
    note = f"{_events(sum(values))} in steps of {duration(axis.step)}: peak {short(values[peak])} at {at}"
    note += f", median {short(round(float(np.median(values))))}."
    if axis.outside:
        note += f" Not drawn: {_events(axis.outside)} with a time far from all others."
    return Chart(
        "throughput", "Throughput", note, f"events per {per(axis.step)}", "stack",
        [Series("events", "total", values)],
    )  # fmt: skip


def severity_chart(throughput: pl.DataFrame, axis: Axis) -> Chart | None:
    """Count the events of each bin by severity.

    Args:
        throughput: `window_start` (Datetime), `severity_text` (String), `count` (Int64).
        axis: the bins.

    Returns:
        A stacked chart, the worst severity at the bottom, where its height can be read; None where no event has one.
    """
    if "severity_text" not in throughput.columns or throughput["severity_text"].drop_nulls().is_empty():
        return None
    level: pl.Expr = pl.lit("other")
    for name, pattern in reversed(_SEVERITIES.items()):
        matches = pl.col("severity_text").cast(pl.String).str.contains(pattern)
        level = pl.when(matches).then(pl.lit(name)).otherwise(level)
    sums = _sums(throughput, axis, level)
    series = [Series(name.upper(), name, sums[name]) for name in (*_SEVERITIES, "other") if name in sums]
    total = sum(sum(values) for values in sums.values())
    bad = sum(sum(sums.get(name, [])) for name in ("fatal", "error"))
    note = f"{short(bad)} at ERROR or above, {share(bad, total)} of all."
    return Chart("severities", "Severities", note, f"events per {per(axis.step)}", "stack", series)


def status_chart(throughput: pl.DataFrame, axis: Axis) -> Chart | None:
    """Count the HTTP responses of each bin by status class.

    Args:
        throughput: `window_start` (Datetime), `http.response.status_code` (an integer), `count` (Int64).
        axis: the bins.

    Returns:
        A stacked chart, server errors at the bottom; None where no event has a status.
    """
    column = "http.response.status_code"
    if column not in throughput.columns:
        return None
    sums = _sums(throughput.drop_nulls(column), axis, pl.col(column).cast(pl.Int64).floordiv(100))
    if not sums:
        return None
    total, failed = sum(sum(values) for values in sums.values()), sum(sums.get(5, []))
    series = [
        Series(name, f"s{number}xx", sums.pop(number)) for number, name in _STATUS_CLASSES.items() if number in sums
    ]
    if sums:
        series.append(Series("other", "other", np.sum(list(sums.values()), axis=0).tolist()))
    note = f"{short(total)} responses, {share(failed, total)} of them server errors."
    return Chart("statuses", "HTTP status classes", note, f"responses per {per(axis.step)}", "stack", series)


def quantile_charts(quantiles: pl.DataFrame, axis: Axis) -> list[Chart]:
    """Draw each measure's quantiles.

    Args:
        quantiles: `window_start` (Datetime) and numbers named after measure and quantile, such as
            `http.response.body.size.p99`. Of several in one bin the greatest
            counts.
        axis: the bins.

    Returns:
        One chart a measure, at most `MAX_QUANTILE_CHARTS`.
    """
    measures: dict[str, list[str]] = {}
    for column, dtype in quantiles.schema.items():
        if column != _COLUMN and dtype.is_numeric() and "." in column and quantiles[column].is_not_null().any():
            measures.setdefault(column.rpartition(".")[0], []).append(column)
    if not measures:
        return []
    own = window_length(quantiles[_COLUMN]) or timedelta(0)
    gap = max(1, -(-int(own.total_seconds() * 1e6) // axis.step))
    columns = [column for group in measures.values() for column in group]
    highest = (
        axis.place(quantiles.with_columns(pl.col(columns).cast(pl.Float64)))
        .group_by("bin")
        .agg(pl.col(name).filter(pl.col(name).is_finite()).max().round_sig_figs(4) for name in columns)
    )
    table = pl.DataFrame({"bin": range(axis.bins)}, schema={"bin": pl.Int64}).join(highest, on="bin", how="left")
    shown = list(measures)[:MAX_QUANTILE_CHARTS]
    return [_lines(number, name, measures[name], table.sort("bin"), gap) for number, name in enumerate(shown)]


def _lines(number: int, measure: str, columns: list[str], table: pl.DataFrame, gap: int) -> Chart:
    names = [column.rpartition(".")[2] for column in columns]
    series = [
        Series(name, _LINE_COLOURS[index % len(_LINE_COLOURS)], table[column].to_list())
        for index, (name, column) in enumerate(zip(names, columns, strict=True))
    ]
    drawn = [value for one in series for value in one.values if value is not None]
    log = bool(drawn) and min(drawn) > 0 and max(drawn) > 30 * min(drawn)
    highest = ", ".join(
        f"{one.name} {short(max((value for value in one.values if value is not None), default=None))}" for one in series
    )
    note = f"Highest: {highest}.{' Logarithmic scale.' if log else ''}"
    return Chart(f"quantiles-{number}", measure, note, "", "line", series, gap, log)
