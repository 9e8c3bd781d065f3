"""`p50(column)`, `p99.9(column)`, …: percentiles within one percent, by a logarithmic histogram."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import ClassVar

import numpy as np
import polars as pl
import pyarrow as pa

from transforms.measures.measure import Measure, column_type, register
from transforms.measures.parse import Call
from transforms.measures.state import Numbers, Sketch

#: The bound on |estimate - value| / |value|.
RELATIVE_ERROR = 0.01

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
# More than the number of the bucket of any finite double, which is within ±35,500.
_BIAS = 1 << 16
_TINY = float(np.finfo(np.float64).tiny)


class DDSketch(Sketch):
    """Cells are signed logarithmic buckets, their value the number of values in them.

    Bucket i holds the magnitudes in (gamma^(i-1), gamma^i], with gamma = (1 + a) / (1 - a) for a relative error a.
    Cell 0 is zero, with magnitudes below 2.3e-308. A cell has its values' sign and its size grows with the bucket's
    number, so cells sort as values do; an infinity has the outermost one.
    """

    value_type: ClassVar[type[np.generic]] = np.int64

    def cells(self, events: pl.DataFrame) -> tuple[Numbers, Numbers, Numbers | int]:
        """Give each value's bucket; null and NaN have none."""
        values = events[self.column].cast(pl.Float64).to_numpy()  # null becomes NaN
        counted = ~np.isnan(values)
        values = values[counted]
        magnitude = np.abs(values)
        bucket = np.ceil(np.log(np.maximum(magnitude, _TINY)) / _LOG_GAMMA)
        cell = np.sign(values) * (np.minimum(bucket, _BIAS) + _BIAS)
        return counted, np.where(magnitude < _TINY, 0, cell).astype(np.int32), 1

    def combine(self, key: Numbers, value: Numbers | int) -> tuple[Numbers, Numbers]:
        """Add up the counts."""
        if isinstance(value, int):
            key, count = np.unique(key, return_counts=True)
            return key, count * value
        # Merged tables are sorted runs one below the other, for which the stable sort is the fastest.
        order = np.argsort(key, kind="stable")
        key = key[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        return key[first], np.add.reduceat(value[order], first)


@register(r"p(\d{1,2}(\.\d+)?|100)", "p50", "p95", "p99", "p99.9")
class Percentile(Measure):
    """The nearest-rank percentile of the values that are neither null nor NaN, within one percent of it: Float64.

    That is the least value that at least p percent of the values do not exceed; null where there is no value.

    Source: Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
    PVLDB 12(12), 2019.
    """

    def __init__(self, call: Call, schema: pl.Schema) -> None:
        column_type(call, schema)
        self._share = Fraction(call.function[1:]) / 100
        self._sketch = DDSketch(call.argument)
        self.states = (self._sketch,)

    def finish(self, merged: pl.DataFrame) -> pl.Series:
        """Find the bucket in which the rank falls and give the value in its relative middle."""
        row, cell, count = self._sketch.entries(merged)
        upto = np.concatenate(([0], np.cumsum(count)))
        bounds = upto[np.searchsorted(row, np.arange(len(merged) + 1))]
        before, total = bounds[:-1], np.diff(bounds)
        rank = np.maximum(-(-self._share.numerator * total // self._share.denominator), 1)
        value = np.zeros(len(merged))
        value[total > 0] = _value(cell[np.searchsorted(upto, (before + rank)[total > 0]) - 1])
        return pl.Series(pa.array(value, mask=total == 0))


def _value(cell: Numbers) -> Numbers:
    with np.errstate(over="ignore"):
        magnitude = np.exp((np.abs(cell) - _BIAS) * _LOG_GAMMA + math.log(2 / (_GAMMA + 1)))
    return np.where(cell == 0, 0.0, np.copysign(magnitude, cell))
