"""ToBatches and FromBatches: between batches and ordinary Beam rows or dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import apache_beam as beam
import polars as pl
import pyarrow as pa
from apache_beam.transforms.error_handling import ErrorHandler
from apache_beam.typehints import arrow_type_compatibility, row_type, schemas

from fabric_beam import dead_letters, ledger
from fabric_beam.batches import BatchOf, arrow_schema, event_time, from_batch, to_batch
from fabric_beam.errors import RejectedRowsError, SchemaError

_ROWS_PER_BATCH = 16_384


class ToBatches(beam.PTransform):
    """Gather rows or dicts into batches.

    Args:
        schema: column → Polars type, for a PCollection of dicts; a PCollection of rows with a Beam schema
            (`beam.Row`, NamedTuple) brings its own.
        max_rows: the most rows that one batch may have.

    Input: `beam.Row`s, NamedTuples or dicts. A missing key is null; a key outside the schema, or a value that does not
    fit its type, rejects that row.
    Output: batches with the schema's columns.

    Raises:
        SchemaError: when the pipeline is built, if the rows have no schema and none is given.

    Example:
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> with TestPipeline() as p:
        ...     batches = p | beam.Create([{"body": "a"}, {"body": "b"}]) | ToBatches({"body": pl.String()})
        >>> batches.element_type
        BatchOf[body: string_view]
    """

    def __init__(self, schema: Mapping[str, pl.DataType] | None = None, *, max_rows: int = _ROWS_PER_BATCH) -> None:
        super().__init__()
        self._schema = pl.Schema(schema) if schema is not None else None
        self._max_rows = max_rows
        self._error_handler: ErrorHandler | None = None

    def with_error_handler(self, error_handler: ErrorHandler | None) -> Self:
        """Send rows that do not fit the schema to one of Beam's error handlers instead of failing the run."""
        self._error_handler = error_handler
        return self

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        step = pcoll.pipeline._current_transform().full_label
        schema = self._schema or _row_schema(pcoll.element_type, step)
        outputs = (
            pcoll
            | "Gather" >> beam.BatchElements(min_batch_size=1, max_batch_size=self._max_rows)
            | "Pack"
            >> beam.ParDo(_Pack(schema, step, self._error_handler is not None)).with_outputs(
                "dead_letters", main="kept"
            )
        )
        outputs.kept.element_type = BatchOf(arrow_schema(pl.DataFrame(schema=schema)))
        letters = outputs["dead_letters"]
        letters.element_type = BatchOf(arrow_schema(pl.DataFrame(schema=dead_letters.SCHEMA)))
        if self._error_handler is not None:
            self._error_handler.add_error_pcollection(letters)
        return outputs.kept


def _row_schema(element_type: Any, step: str) -> pl.Schema:
    try:
        beam_schema = schemas.schema_from_element_type(element_type)
    except TypeError as error:
        raise SchemaError(
            f"{step}: its input has no schema (element type {element_type}). Give batches, rows with a schema "
            "(beam.Row(...), a NamedTuple), or dicts by way of ToBatches({'column': type, ...})."
        ) from error
    empty = arrow_type_compatibility.arrow_schema_from_beam_schema(beam_schema).empty_table()
    return pl.DataFrame(pl.from_arrow(empty)).schema


class _Pack(beam.DoFn):
    def __init__(self, schema: pl.Schema, step: str, handled: bool) -> None:
        self._schema = schema
        self._step = step
        self._handled = handled
        self._account = ledger.Account(step)
        self._time_column = event_time(arrow_schema(pl.DataFrame(schema=schema)))

    def process(self, rows: Sequence[Any]) -> Iterator[Any]:
        from fabric_beam.map_batches import timestamped

        dicts = [row if isinstance(row, dict) else row._asdict() for row in rows]
        try:
            table = self._table(dicts)
            letters: list[dict[str, Any]] = []
        except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError):
            table, letters = self._row_by_row(dicts)
        self._account.add("read", len(dicts))
        self._account.add("in", len(dicts))
        self._account.add("out", table.height)
        self._account.add("rejected", len(letters))
        if letters:
            if not self._handled:
                raise RejectedRowsError(
                    f"{self._step}: {letters[0]['message']} (row {letters[0]['payload'][:200]}). To keep going and "
                    "collect such rows, give it an error handler: .with_error_handler(handler)."
                )
            yield beam.pvalue.TaggedOutput(
                "dead_letters", to_batch(pl.DataFrame(letters, schema=dead_letters.SCHEMA, orient="row"))
            )
        if table.height:
            yield timestamped(table, self._time_column)

    def _table(self, dicts: list[dict[str, Any]]) -> pl.DataFrame:
        for row in dicts:
            if extra := row.keys() - self._schema.keys():
                raise ValueError(
                    f"column {sorted(map(str, extra))[0]!r} is not in the schema ({', '.join(self._schema)})"
                )
        return pl.DataFrame(
            {name: pl.Series(name, [row.get(name) for row in dicts], dtype) for name, dtype in self._schema.items()}
        )

    def _row_by_row(self, dicts: list[dict[str, Any]]) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
        """Find the rows that do not fit: only for a batch that has one."""
        tables = [pl.DataFrame(schema=self._schema)]
        letters: list[dict[str, Any]] = []
        for row in dicts:
            try:
                tables.append(self._table([row]))
            except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
                message = str(error).split("\n", 1)[0]
                letters.append(
                    {"payload": repr(row), "step": self._step, "rule": "schema", "message": message}
                    | {name: row[name] for name in ("source", "offset") if name in row}
                )
        return pl.concat(tables), letters


class FromBatches(beam.PTransform):
    """Take batches apart into one element a row.

    Args:
        form: `row` for `beam.Row`s with a Beam schema (what SqlTransform and other schema'd transforms take),
            `dict` for plain dicts.

    Input: batches of any schema.
    Output: one element a row, timestamped by its event time where it has one.

    Example:
        >>> from fabric_beam.testing import batch, run
        >>> run(batch(body=["a", "b"]), FromBatches("dict"))
        [{'body': 'a'}, {'body': 'b'}]
    """

    def __init__(self, form: Literal["row", "dict"] = "row") -> None:
        super().__init__()
        self._form = form

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        hint = pcoll.element_type
        step = pcoll.pipeline._current_transform().full_label
        if not isinstance(hint, BatchOf):
            raise SchemaError(f"{step}: its input is not batches but {hint}.")
        rows = pcoll | "Unpack" >> beam.ParDo(_Unpack(self._form, event_time(hint.schema)))
        rows.element_type = dict[str, Any] if self._form == "dict" else _row_type(hint.schema)
        return rows


def _row_type(schema: pa.Schema) -> Any:
    plain = pa.schema([(f.name, pa.string() if f.type == pa.string_view() else f.type) for f in schema])
    beam_schema = arrow_type_compatibility.beam_schema_from_arrow_schema(plain)
    return row_type.RowTypeConstraint.from_fields(
        [(f.name, schemas.typing_from_runner_api(f.type)) for f in beam_schema.fields]
    )


class _Unpack(beam.DoFn):
    def __init__(self, form: str, time_column: str | None) -> None:
        self._form = form
        self._time_column = time_column

    def process(self, batch: pa.RecordBatch) -> Iterator[Any]:
        for row in from_batch(batch).iter_rows(named=True):
            element = row if self._form == "dict" else beam.Row(**row)
            when = row[self._time_column] if self._time_column else None
            yield beam.window.TimestampedValue(element, when.timestamp()) if when else element
