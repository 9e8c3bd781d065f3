"""What a detector is: scores for tables of windows or events, with nothing of Beam."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import polars as pl

from fabric_beam.errors import SchemaError, nearest

WINDOW_START = "window_start"
WINDOW_END = "window_end"
#: What says when a row was or where it came from: carried into the output, and no measure unless it is named as one.
IDENTITY = (WINDOW_START, WINDOW_END, "timestamp", "source", "offset")
#: The columns that every detector adds.
VERDICT = pl.Schema(
    {
        "measure": pl.String(),
        "value": pl.Float64(),
        "score": pl.Float64(),
        "threshold": pl.Float64(),
        "is_anomaly": pl.Boolean(),
        "reason": pl.String(),
    }
)

#: What makes the MAD (the median of |x - median|) of a normal distribution its standard deviation, and what makes the
#: mean of |x - median| that, for where the MAD is 0 (Iglewicz and Hoaglin, 1993).
MAD, MEAN_DEVIATION = 1.4826, 1.2533


class Detector(ABC):
    """Scores rows by how unusual they are.

    A detector keeps nothing between calls: the same table gives the same scores. `check_detector` in
    `fabric_beam.testing.detectors` is the suite that every detector must pass.

    Attributes:
        causal: whether a row's score depends on rows before it alone, so that later rows change nothing.
    """

    causal = False

    @abstractmethod
    def score(self, table: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
        """Score the rows of a table.

        Args:
            table: `window_start`, `window_end` (Datetime µs UTC), the series' columns and numeric measures.
            by: the columns that name a series, such as `service.name`; null is a name of its own.

        Returns:
            `window_start`, `window_end`, the columns of `by`, and those of `VERDICT`: `measure` (what was judged), its
            `value`, `score` (higher is less usual; null where there is too little to judge by), `threshold` (an
            anomaly's score is above it), `is_anomaly` (never null), and `reason` in words (null if not anomalous).

        Raises:
            SchemaError: the table lacks a column or one is of the wrong type.
        """


def measures_of(table: pl.DataFrame, by: Sequence[str], chosen: Sequence[str] | None, detector: str) -> list[str]:
    """Find the columns to judge, and check those of the series.

    Args:
        table: any table.
        by: the columns that name a series.
        chosen: the measures, or None for every numeric column that is neither in `by` nor in `IDENTITY`.
        detector: who asks, for messages.

    Returns:
        The measures' names, in order.

    Raises:
        SchemaError: a column is missing, is not numeric, or is named as the output's own columns are.

    Example:
        >>> measures_of(pl.DataFrame({"host.name": ["a"], "count": [1], "offset": [0]}), ["host.name"], None, "D")
        ['count']
    """
    schema = table.schema
    for name in (*by, *(chosen or ())):
        if name not in schema:
            raise SchemaError(f"{detector}: there is no column {name!r}. {nearest(name, schema)}")
    if reserved := [name for name in by if name in VERDICT or name in IDENTITY[:2]]:
        raise SchemaError(
            f"{detector}: {reserved[0]!r} names a column of the output; rename it before it can be in `by`."
        )
    if chosen is None:
        chosen = [name for name, dtype in schema.items() if dtype.is_numeric() and name not in (*by, *IDENTITY)]
        if not chosen:
            raise SchemaError(f"{detector}: no numeric column to judge. {nearest('', schema)}")
    if twice := [name for name in chosen if name in by]:
        raise SchemaError(f"{detector}: column {twice[0]!r} is in `by`, so it cannot be judged.")
    if wrong := [name for name in chosen if not schema[name].is_numeric()]:
        raise SchemaError(f"{detector}: column {wrong[0]!r} is {schema[wrong[0]]}, expected a number.")
    return list(chosen)


def in_words(number: pl.Expr) -> pl.Expr:
    """A number as a person would write it, to six significant digits.

    Example:
        >>> pl.select(in_words(pl.Series([812.0, 0.1 + 0.2]))).to_series().to_list()
        ['812', '0.3']
    """
    return number.cast(pl.Float64).round_sig_figs(6).cast(pl.String).str.strip_suffix(".0")
