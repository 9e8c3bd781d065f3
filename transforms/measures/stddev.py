"""`stddev(column)`: the sample standard deviation, by mergeable central moments."""

from __future__ import annotations

import numpy as np
import polars as pl

from transforms.measures.measure import Measure, column_type, register
from transforms.measures.parse import Call
from transforms.measures.state import Grouped, Numbers


class Moments(Grouped):
    """The number of values n, their mean, and M2, the sum of their squared deviations from that mean.

    Parts merge by the many-way form of the pairwise update, which never subtracts one large square from another:
    mean = sum(n_i mean_i) / sum(n_i) and M2 = sum(M2_i) + sum(n_i (mean_i - mean)^2). An event is a part of n = 1.
    """

    def partial(self, events: pl.DataFrame, group: Numbers, groups: int) -> list[pl.Series]:
        """Take each event as a part."""
        values = events[self.column].cast(pl.Float64)
        counted = values.is_not_null().to_numpy()
        return self._merge(counted, np.where(counted, values.to_numpy(), 0), np.zeros(len(values)), group, groups)

    def merge(self, partials: pl.DataFrame, group: Numbers, groups: int) -> list[pl.Series]:
        """Merge parts."""
        n, mean, m2 = (partials[f"{self.name}.{part}"].to_numpy() for part in ("n", "mean", "m2"))
        return self._merge(n, mean, m2, group, groups)

    def _merge(self, n: Numbers, mean: Numbers, m2: Numbers, group: Numbers, groups: int) -> list[pl.Series]:
        def total(values: Numbers) -> Numbers:
            # Of no rows numpy gives integers.
            return np.bincount(group, weights=values, minlength=groups).astype(np.float64)

        with np.errstate(invalid="ignore"):  # an infinite value leaves no deviation that is a number
            merged_n = total(n)
            merged_mean = total(n * mean) / np.maximum(merged_n, 1)
            merged_m2 = total(m2) + total(n * np.square(mean - merged_mean[group]))
        columns = {"n": merged_n.astype(np.int64), "mean": merged_mean, "m2": merged_m2}
        return [pl.Series(f"{self.name}.{part}", column) for part, column in columns.items()]


@register("stddev")
class StandardDeviation(Measure):
    """The sample standard deviation of the values that are not null, null where there are fewer than two: Float64.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
    Stanford STAN-CS-79-773, 1979.
    """

    def __init__(self, call: Call, schema: pl.Schema) -> None:
        column_type(call, schema)
        self._moments = Moments(call.argument)
        self.states = (self._moments,)

    def finish(self, merged: pl.DataFrame) -> pl.Expr:
        """Give the square root of M2 over n - 1."""
        n, m2 = (pl.col(f"{self._moments.name}.{part}") for part in ("n", "m2"))
        return pl.when(n > 1).then((m2 / (n - 1)).sqrt())
