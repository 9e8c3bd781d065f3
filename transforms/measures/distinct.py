"""`distinct(column)`: about how many different values there are, by HyperLogLog."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import polars as pl

from transforms.measures.measure import Measure, column_type, register
from transforms.measures.parse import Call
from transforms.measures.state import Numbers, Sketch

_PRECISION = 12
_REGISTERS = 1 << _PRECISION


class HyperLogLog(Sketch):
    """Cells are the registers that are set, their value the highest rank seen: at most 4,096 of 5 bytes each.

    The hash is Polars' own, which another version of Polars or another type of column may compute differently: states
    merge within one run of a pipeline and are not for keeping.
    """

    value_type: ClassVar[type[np.generic]] = np.uint8

    def cells(self, events: pl.DataFrame) -> tuple[Numbers, Numbers, Numbers | int]:
        """Give the register (the hash's low bits) and the rank (the first set bit of the rest)."""
        values = events[self.column]
        if values.dtype in (pl.Categorical, pl.Enum):
            values = values.cast(pl.String)
        counted = values.is_not_null().to_numpy()
        hashes = values.hash().to_numpy()[counted]
        # The rest has 52 bits, which a double holds exactly: its exponent is the number of significant bits.
        _, bits = np.frexp((hashes >> _PRECISION).astype(np.float64))
        return counted, hashes & (_REGISTERS - 1), 65 - _PRECISION - bits

    def combine(self, key: Numbers, value: Numbers | int) -> tuple[Numbers, Numbers]:
        """Keep the highest rank."""
        # A rank has six bits: sorting it with its key is three times faster than sorting positions.
        packed = np.sort((key << 6) | value)
        key = packed >> 6
        last = np.flatnonzero(np.diff(key, append=-1))
        return key[last], packed[last] & 63


@register("distinct")
class Distinct(Measure):
    """The estimated number of different values that are not null: Int64, standard error 1.6 percent (1.04 / √4096).

    HyperLogLog with 64-bit hashes and the improved raw estimator, which has no bias to correct in the small range and
    so needs neither its own small-range case nor tables; its term for saturated registers vanishes at 64 bits.

    Sources: Flajolet, Fusy, Gandouet and Meunier, "HyperLogLog: the analysis of a near-optimal cardinality estimation
    algorithm", AofA 2007; Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", arXiv:1702.01284,
    2017, section 3.
    """

    def __init__(self, call: Call, schema: pl.Schema) -> None:
        column_type(call, schema, lambda dtype: not dtype.is_nested(), "a type that is not nested")
        self._sketch = HyperLogLog(call.argument)
        self.states = (self._sketch,)

    def finish(self, merged: pl.DataFrame) -> pl.Series:
        """Estimate the cardinality from the registers."""
        row, _, rank = self._sketch.entries(merged)
        zero = 1 - np.bincount(row, minlength=len(merged)) / _REGISTERS
        harmonic = np.bincount(row, weights=np.exp2(-rank.astype(np.float64)), minlength=len(merged))
        with np.errstate(divide="ignore"):
            estimate = _REGISTERS**2 / (2 * math.log(2)) / (harmonic + _REGISTERS * _sigma(zero))
        return pl.Series(np.rint(estimate).astype(np.int64))


def _sigma(x: Numbers) -> Numbers:
    """Give x + Σ 2^(k-1) x^(2^k) over k >= 1, which is infinite at 1."""
    total: Numbers = np.where(x < 1, x, np.inf)
    power, factor = x, 1.0
    while True:
        before, power = total, power * power
        total = before + power * factor
        factor += factor
        if np.array_equal(before, total):
            return total
