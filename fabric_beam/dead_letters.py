"""Dead letters: rejected rows, each with its reason and the way back to the bytes it came from."""

from __future__ import annotations

import polars as pl

from fabric_beam.json_rows import to_json
from fabric_beam.kernel import MESSAGE, RULE

#: Columns of the `dead_letters` dataset.
SCHEMA = pl.Schema(
    {
        "payload": pl.String(),
        "step": pl.String(),
        "rule": pl.String(),
        "message": pl.String(),
        "source": pl.String(),
        "offset": pl.Int64(),
    }
)

#: Where the original text of a row is kept, in order of preference (OpenTelemetry's `log.record.original`).
ORIGINAL = "log.record.original"


def dead_letters(rejected: pl.DataFrame, step: str) -> pl.DataFrame:
    """Turn a kernel's rejected rows into dead letters.

    Args:
        rejected: the rows as the step got them, with their reasons (`Split.rejected`).
        step: the label of the transform that rejected them.

    Returns:
        One row per rejected row, with the columns of `SCHEMA`. `payload` is the original record where the row still
        carries it, else the row itself as JSON.

    Example:
        >>> from fabric_beam.kernel import reject
        >>> row = reject(pl.DataFrame({"body": ["x"], "source": ["a.log"], "offset": [7]}), "json", "not JSON")
        >>> dead_letters(row, "Parse").row(0)
        ('x', 'Parse', 'json', 'not JSON', 'a.log', 7)
    """
    texts = [rejected[name] for name in (ORIGINAL, "body") if rejected.schema.get(name) == pl.String]
    return _letters(rejected, step, texts[0] if texts else _as_json(rejected))


def of_rows(rejected: pl.DataFrame, step: str) -> pl.DataFrame:
    """Turn rows that a sink did not take into dead letters, whose `payload` is the row as JSON: it can be sent again.

    Args:
        rejected: the rows, with their reasons.
        step: the label of the sink.

    Returns:
        One row per rejected row, with the columns of `SCHEMA`.
    """
    return _letters(rejected, step, _as_json(rejected))


def _as_json(rejected: pl.DataFrame) -> pl.Series:
    return to_json(rejected.drop(RULE, MESSAGE))


def _letters(rejected: pl.DataFrame, step: str, payload: pl.Series) -> pl.DataFrame:
    return rejected.select(
        payload.alias("payload"),
        pl.lit(step).alias("step"),
        pl.col(RULE).alias("rule"),
        pl.col(MESSAGE).alias("message"),
        *(
            (pl.col(name) if name in rejected.columns else pl.lit(None)).cast(SCHEMA[name]).alias(name)
            for name in ("source", "offset")
        ),
    )
