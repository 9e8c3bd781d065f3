"""Anomalous windows, merged into the findings a person acts on."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

_NOT_SERIES = {"window_start", "measure", "value", "score", "threshold", "is_anomaly", "reason"}
_EMPTY: dict[str, pl.DataType | type[pl.DataType]] = {
    "start": pl.Datetime("us"),
    "end": pl.Datetime("us"),
    "windows": pl.UInt32,
    "measure": pl.String,
    "score": pl.Float64,
    "threshold": pl.Float64,
    "value": pl.Float64,
    "reason": pl.String,
}


def findings(alerts: pl.DataFrame, window: timedelta | None = None) -> pl.DataFrame:
    """Merge neighbouring anomalous windows of the same series and measure into one finding.

    Args:
        alerts: scored windows: `window_start` (Datetime), the series' columns (such as `service.name`), `measure`
            (String), `value`, `score`, `threshold` (Float64), `is_anomaly` (Boolean) and `reason` (String). Only
            rows with a true `is_anomaly` count.
        window: the length of a window; two windows are neighbours if they start no further apart. By default the
            shortest distance between any two windows of the table, which is too long if those are few and far apart.

    Returns:
        One row a finding, the highest score first: `start`, `end` (of the last window), `windows` (how many),
        the series' columns, `measure`, and `score`, `threshold`, `value` and `reason` of its highest score.

    Example:
        >>> from datetime import datetime
        >>> minutes = [datetime(2026, 11, 20, 9, minute) for minute in (20, 21, 22, 40)]
        >>> alerts = pl.DataFrame({
        ...     "window_start": minutes, "service.name": ["api"] * 4, "measure": ["count"] * 4, "value": [9.0] * 4,
        ...     "score": [5.0, 7.0, 6.0, 4.0], "threshold": [3.0] * 4, "is_anomaly": [True] * 4,
        ...     "reason": ["high", "highest", "high", "again"],
        ... })
        >>> findings(alerts).select("windows", "score", "reason").rows()
        [(3, 7.0, 'highest'), (1, 4.0, 'again')]
    """
    if alerts.is_empty():
        return pl.DataFrame(schema=_EMPTY)
    alerts = alerts.with_columns(pl.col("window_start").dt.cast_time_unit("us"))
    width = window if window is not None else window_length(alerts["window_start"]) or timedelta(0)
    series = [name for name, dtype in alerts.schema.items() if name not in _NOT_SERIES and _is_key(dtype)]
    keys = [*series, "measure"]
    highest = [
        pl.col(name).sort_by("score", descending=True, nulls_last=True, maintain_order=True).first()
        for name in ("score", "threshold", "value", "reason")
    ]
    return (
        alerts.drop_nulls("window_start")
        .filter(pl.col("is_anomaly"))
        .with_columns(pl.col("score").fill_nan(None))
        .sort(*keys, "window_start", maintain_order=True)
        .with_columns(
            (pl.col("window_start").diff() > width).over(keys).fill_null(True).cum_sum().alias("finding"),
        )
        .group_by("finding", maintain_order=True)
        .agg(
            pl.col("window_start").min().alias("start"),
            (pl.col("window_start").max() + width).alias("end"),
            pl.col("window_start").n_unique().alias("windows"),
            pl.col(keys).first(),
            *highest,
        )
        .drop("finding")
        .sort("score", descending=True, nulls_last=True, maintain_order=True)
    )


def window_length(starts: pl.Series) -> timedelta | None:
    """Find the shortest distance between windows.

    Args:
        starts: window starts (Datetime), in any order.

    Returns:
        The distance, or None where there are fewer than two windows.
    """
    shortest = starts.drop_nulls().unique().sort().diff().min()
    return shortest if isinstance(shortest, timedelta) else None


def _is_key(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean)
