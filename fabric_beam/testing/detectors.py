"""The rules that every detector keeps, as one check."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

_BY = ["service.name"]
_KEYS = ["window_start", "window_end", *_BY]
_VERDICT = {
    "measure": pl.String,
    "value": pl.Float64,
    "score": pl.Float64,
    "threshold": pl.Float64,
    "is_anomaly": pl.Boolean,
    "reason": pl.String,
}
_MINUTES = 200


class Detector(Protocol):
    """What is checked: `transforms.detectors.Detector` and whatever else has its form."""

    causal: bool

    def score(self, table: pl.DataFrame, by: Sequence[str] = (), /) -> pl.DataFrame: ...


def check_detector(detector: Detector) -> None:
    """Check that a detector keeps the rules.

    The same table gives the same scores; every row is scored and keeps its identity; a table without rows gives the
    same columns; a verdict is whole (an anomaly's score is above the threshold, and it alone has a reason); a constant
    series never fires and one huge spike does; a measure's unit does not matter; nulls, NaN and infinities are borne;
    and if the detector says that it is causal, rows that come later change no score.

    Args:
        detector: a detector made to judge every numeric column.

    Raises:
        AssertionError: it breaks a rule; the message says which.

    Example:
        >>> from transforms.detectors import RobustZScore
        >>> check_detector(RobustZScore())
    """
    usual = _windows()
    scored = detector.score(usual, _BY)
    assert_frame_equal(scored, detector.score(usual, _BY), check_exact=True)
    _check_identity(scored, usual)
    _check_verdicts(scored)
    assert detector.score(usual.clear(), _BY).schema == scored.schema, "a table without rows gives the same columns"

    constant = usual.with_columns(pl.lit(240).alias("count"), pl.lit(0.25).alias("duration.p99"))
    assert not detector.score(constant, _BY)["is_anomaly"].any(), "a constant series never fires"

    spiked = _spike(usual)
    found = detector.score(spiked, _BY).filter(pl.col("window_start") == spiked["window_start"].max(), "is_anomaly")
    assert found["service.name"].to_list() == ["api"], "one huge spike fires, and only in its own series"
    assert "duration.p99" in found["reason"][0], "the reason names what deviates"

    # A power of two scales floating-point numbers exactly.
    seconds, scaled = (t.drop("count") for t in (spiked, spiked.with_columns(pl.col("duration.p99") * 1024)))
    assert (
        detector.score(seconds, _BY)["is_anomaly"].to_list() == detector.score(scaled, _BY)["is_anomaly"].to_list()
    ), "the unit of a measure does not matter"

    odd = pl.Series([None, float("nan"), float("inf"), -float("inf")])[np.arange(_MINUTES * 2) % 40 % 4]
    holes = usual.with_columns(
        pl.when(pl.int_range(pl.len()) % 40 < 4).then(odd).otherwise("duration.p99").alias("duration.p99"),
        pl.when(pl.int_range(pl.len()) % 7 > 0).then("count").alias("count"),
        pl.lit(None, pl.Float64).alias("never"),
    )
    _check_identity(detector.score(holes, _BY), holes)
    _check_verdicts(detector.score(holes, _BY))

    if detector.causal:
        before = spiked.filter(pl.col("window_start") < spiked["window_start"].max())
        later = detector.score(spiked, _BY).filter(pl.col("window_start") < spiked["window_start"].max())
        assert_frame_equal(later, detector.score(before, _BY), check_exact=True)


def _windows() -> pl.DataFrame:
    """Two series, one of them without a name, of ordinary minutes: a count and a duration in seconds."""
    rng = np.random.default_rng(7)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = pl.datetime_range(start, start + timedelta(minutes=_MINUTES - 1), "1m", eager=True)
    series = pl.DataFrame({"service.name": pl.Series(["api", None])})
    windows = pl.DataFrame({"window_start": times, "window_end": times + timedelta(minutes=1)})
    return windows.join(series, how="cross", maintain_order="left_right").with_columns(
        pl.Series("count", rng.poisson(240, 2 * _MINUTES)),
        pl.Series("duration.p99", rng.normal(0.25, 0.02, 2 * _MINUTES)),
    )


def _spike(table: pl.DataFrame) -> pl.DataFrame:
    last = (pl.col("window_start") == pl.col("window_start").max()) & (pl.col("service.name") == "api")
    return table.with_columns(pl.when(last).then(90.0).otherwise("duration.p99").alias("duration.p99"))


def _check_identity(scored: pl.DataFrame, table: pl.DataFrame) -> None:
    counts = scored.group_by(_KEYS).len()
    assert counts["len"].n_unique() == 1, "every row is scored equally often"
    assert_frame_equal(counts.select(_KEYS), table.select(_KEYS), check_row_order=False)


def _check_verdicts(scored: pl.DataFrame) -> None:
    assert {name: scored.schema[name] for name in _VERDICT} == _VERDICT, "a verdict has these columns"
    above = (scored["score"] > scored["threshold"]).fill_null(False)
    assert scored["is_anomaly"].to_list() == above.to_list(), "an anomaly's score is above the threshold"
    assert scored["reason"].is_not_null().to_list() == above.to_list(), "an anomaly, and nothing else, has a reason"
    assert scored["measure"].null_count() == 0 and scored["threshold"].null_count() == 0, "a verdict is whole"
