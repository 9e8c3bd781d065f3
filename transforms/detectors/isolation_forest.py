"""IsolationForest: rows whose features, taken together, are easily told apart from the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from fabric_beam.errors import MissingExtraError, UsageError
from transforms.detectors.base import (
    IDENTITY,
    MAD,
    MEAN_DEVIATION,
    WINDOW_START,
    Detector,
    in_words,
    measures_of,
)

Floats: TypeAlias = npt.NDArray[np.float64]

#: Fewer rows than this are too few to say what is usual.
_LEAST = 20
#: A reason names the features that are this many robust deviations off, three at most; failing any, those one off.
_NOTABLE, _NAMED = 3, 3
#: Further off than this is all the same to a tree, whose numbers are of single precision.
_FARTHEST = 1e6


class IsolationForest(Detector):
    """Score rows by how few random cuts set them apart from the other rows of the table.

    score = 2 ** (-E(h) / c(n)) for a mean path length E(h) in trees of n rows: above 0.5 is less usual than the average
    row, near 1 is far from all others. It sees what no single measure shows, such as few requests with many errors. All
    rows of a table are judged together, whatever their order in time: unlike `RobustZScore` it is for a finished table
    of windows or events.

    Features are robust deviations from the median of the row's series, so that a small service is not odd for being
    small. A null, NaN or infinite value is taken for the median.

    Args:
        features: the columns to judge; None for every numeric column that is not in `by` and no provenance.
        threshold: the score above which a row is anomalous.
        contamination: the share of rows to take for anomalous (0 to 0.5), in place of a fixed threshold.
        sample: rows that each tree is grown from, at most. Liu et al. take 256; trees that see more of the table tell
            one odd row in thousands apart, at little cost.
        trees: how many trees.
        seed: the same seed, table and version of scikit-learn give the same scores.

    Output of `score`: a row for each input row, in order. For windows `window_start` and `window_end`; for events (a
    table without `window_start`) their `timestamp`, `source` and `offset`, as far as there are. `measure` is
    `isolation_forest`, `value` null, and `reason` names the features that deviate most. Tables of fewer than 20 rows
    get no scores.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        UsageError: a number is out of its range.

    Source: F. T. Liu, K. M. Ting and Z.-H. Zhou, Isolation Forest (ICDM, 2008).

    Example:
        >>> sizes = [500 + row % 7 for row in range(99)] + [90_000]
        >>> events = pl.DataFrame({"offset": range(100), "http.response.body.size": sizes})
        >>> scored = IsolationForest().score(events)
        >>> scored.filter("is_anomaly").select("offset", "reason").row(0)
        (99, 'http.response.body.size 90000 is 30182.4 robust deviations above its median 503')
    """

    def __init__(
        self,
        features: Sequence[str] | None = None,
        *,
        threshold: float = 0.65,
        contamination: float | None = None,
        sample: int = 4096,
        trees: int = 100,
        seed: int = 0,
    ) -> None:
        try:
            import sklearn.ensemble  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("IsolationForest", "sklearn") from error
        if not 0 < threshold < 1:
            raise UsageError(f"IsolationForest: threshold {threshold} must be between 0 and 1; 0.65 is usual.")
        if contamination is not None and not 0 < contamination <= 0.5:
            raise UsageError(f"IsolationForest: contamination {contamination} must be above 0 and at most 0.5.")
        if sample < 2 or trees < 1:
            raise UsageError(f"IsolationForest: expected sample >= 2 and trees >= 1, not {sample} and {trees}.")
        self.features = features
        self.threshold = threshold
        self.contamination = contamination
        self.sample = sample
        self.trees = trees
        self.seed = seed

    def score(self, table: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
        features = measures_of(table, by, self.features, "IsolationForest")
        carried = IDENTITY[:2] if WINDOW_START in table.columns else IDENTITY[2:]
        keys = table.select(*(name for name in carried if name in table.columns and name not in by), *by)
        values, medians, deviations = _deviations(table, by, features)
        score = np.full(table.height, np.nan)
        if table.height >= _LEAST:
            score = self._scores(deviations.to_numpy().clip(-_FARTHEST, _FARTHEST))
        threshold = self.threshold
        if self.contamination is not None and table.height >= _LEAST:
            threshold = float(np.quantile(score, 1 - self.contamination))
        anomalies = np.flatnonzero(score > threshold)
        reasons = pl.repeat(None, table.height, dtype=pl.String, eager=True)
        if len(anomalies):
            texts = _reasons(values[anomalies], medians[anomalies], deviations[anomalies])
            reasons = reasons.scatter(pl.Series(anomalies), texts)
        verdict = {
            "measure": pl.repeat("isolation_forest", table.height, eager=True),
            "value": pl.repeat(None, table.height, dtype=pl.Float64, eager=True),
            "score": pl.Series(score, nan_to_null=True),
            "threshold": pl.repeat(threshold, table.height, dtype=pl.Float64, eager=True),
            "is_anomaly": score > threshold,
            "reason": reasons,
        }
        return pl.DataFrame({**keys.to_dict(), **verdict})

    def _scores(self, deviations: Floats) -> Floats:
        from sklearn.ensemble import IsolationForest as Forest

        sample = min(self.sample, len(deviations))
        forest = Forest(n_estimators=self.trees, max_samples=sample, random_state=self.seed, n_jobs=1)
        return np.asarray(-forest.fit(deviations).score_samples(deviations))


def _deviations(
    table: pl.DataFrame, by: Sequence[str], features: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The features' finite values, the medians of their series, and how many robust deviations lie between."""

    def each(table: pl.DataFrame, expression: Callable[[pl.Expr], pl.Expr]) -> pl.DataFrame:
        return table.with_columns(expression(pl.col(name)).alias(name) for name in features)

    def usual(statistic: pl.Expr) -> pl.Expr:
        return statistic.over(by) if by else statistic

    numbers = each(table.select(*by, *features), lambda x: x.cast(pl.Float64))
    values = each(numbers, lambda x: pl.when(x.is_finite()).then(x))
    medians = each(values, lambda x: usual(x.median()))
    distance = each(values, lambda x: x - usual(x.median()))
    mad = each(distance, lambda x: MAD * usual(x.abs().median()))
    mean = each(distance, lambda x: MEAN_DEVIATION * usual(x.abs().mean()))
    scales = pl.DataFrame({name: mad[name].set(mad[name] == 0, None).fill_null(mean[name]) for name in features})
    deviations = pl.DataFrame({name: (distance[name] / scales[name]).fill_nan(0).fill_null(0) for name in features})
    return values.select(features), medians.select(features), deviations


def _reasons(values: pl.DataFrame, medians: pl.DataFrame, deviations: pl.DataFrame) -> pl.Series:
    """What deviates most in each row, in words."""
    texts = []
    for name in values.columns:
        off = deviations[name]
        rows = pl.DataFrame({"value": values[name], "median": medians[name], "size": off.abs(), "above": off > 0})
        text = pl.format(
            "{} {} is {} robust deviations {} its median {}",
            *(pl.lit(name), in_words(pl.col("value")), in_words(pl.col("size").round(1))),
            *(pl.when("above").then(pl.lit("above")).otherwise(pl.lit("below")), in_words(pl.col("median"))),
        )
        texts.append(rows.select(text).to_series().to_numpy())
    distances = np.abs(deviations.to_numpy())
    farthest = np.argsort(-distances, axis=1, kind="stable")[:, :_NAMED]
    distances = np.take_along_axis(distances, farthest, axis=1)
    usual = distances[:, 0] < _NOTABLE
    named = np.take_along_axis(np.column_stack(texts), farthest, axis=1)
    named[distances < np.where(usual, 1, _NOTABLE)[:, None]] = None
    start = pl.Series(usual).replace_strict([True, False], ["an unusual combination", None], return_dtype=pl.String)
    columns = [start, *(pl.Series(named[:, rank].tolist(), dtype=pl.String) for rank in range(named.shape[1]))]
    table = pl.DataFrame({str(place): column for place, column in enumerate(columns)})
    return table.select(pl.concat_str(pl.all(), separator="; ", ignore_nulls=True)).to_series()
