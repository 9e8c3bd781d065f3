"""FromDeadLetters: the rows that a sink did not take, as they were."""

from __future__ import annotations

import polars as pl

from fabric_beam import dead_letters
from fabric_beam.errors import SchemaError
from fabric_beam.json_rows import from_json
from fabric_beam.kernel import Kernel, Split, reject
from fabric_beam.map_batches import MapBatches


class FromDeadLetters(MapBatches):
    """Make rows again of the dead letters of sinks, to write them once more.

    Args:
        schema: the rows' columns and types.
        step: what the labels of the sinks begin with; the letters of other steps are filtered out.

    Columns in: `body`, a dead letter as JSON (`fabric_beam.dead_letters.SCHEMA`), and others. Columns out: those of the
    schema. Lines that are no dead letters, and payloads that are no such rows, are rejected.

    Raises:
        SchemaError: when the pipeline is built, if there is no `body`.

    Example:
        >>> from fabric_beam.testing import batch, collect
        >>> letter = '{"payload": "{\\\\"a\\\\": 1}", "step": "WriteTo(redis://host/0)", "rule": "unavailable"}'
        >>> collect(batch(body=[letter]), FromDeadLetters(pl.Schema({"a": pl.Int64()}), "WriteTo(")).to_dicts()
        [{'a': 1}]
    """

    def __init__(self, schema: pl.Schema, step: str) -> None:
        super().__init__(filters=True)
        self._schema = schema
        self._step = step

    def bind(self, schema: pl.Schema) -> Kernel:
        if schema.get("body") != pl.String:
            raise SchemaError(
                f"FromDeadLetters takes lines in a String column 'body', which is not in: {dict(schema)}."
            )
        return self._rows

    def _rows(self, table: pl.DataFrame) -> Split:
        letters, is_letter = _decoded(table["body"], dead_letters.SCHEMA)
        is_letter &= letters["step"].is_not_null() & letters["payload"].is_not_null()
        is_ours = is_letter & letters["step"].str.starts_with(self._step).fill_null(False)
        rows, is_row = _decoded(letters.filter(is_ours)["payload"], self._schema)
        unreadable = table.filter(is_ours).filter(~is_row)
        return Split(
            rows.filter(is_row),
            pl.concat(
                [
                    reject(table.filter(~is_letter), "dead_letter", "the line is not a dead letter of ours"),
                    reject(unreadable, "payload", f"the payload is not a row of {', '.join(self._schema)}"),
                ]
            ),
        )


def _decoded(texts: pl.Series, schema: pl.Schema) -> tuple[pl.DataFrame, pl.Series]:
    """The rows that JSON texts are, and for each whether it is one; nulls in the places of those that are not."""
    try:
        return from_json(texts, schema), pl.repeat(True, len(texts), eager=True)
    except pl.exceptions.PolarsError:
        if len(texts) == 1:
            return pl.DataFrame([None], schema={"_": pl.Null}).select(
                pl.lit(None, dtype).alias(name) for name, dtype in schema.items()
            ), pl.Series([False])
    # A few of them are not: those are found by halves.
    half = len(texts) // 2
    parts = [_decoded(part, schema) for part in (texts[:half], texts[half:])]
    return pl.concat([rows for rows, _ in parts]), pl.concat([good for _, good in parts])
