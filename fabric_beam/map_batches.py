"""MapBatches: the one place where kernels meet Beam."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import apache_beam as beam
import polars as pl
import pyarrow as pa
from apache_beam.transforms.error_handling import ErrorHandler
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from fabric_beam import dead_letters, ledger
from fabric_beam.batches import BatchOf, arrow_schema, event_time, from_batch, to_batch
from fabric_beam.errors import FabricBeamError, RejectedRowsError, SchemaError, nearest
from fabric_beam.kernel import Kernel, Split
from fabric_beam.progress import PROGRESS
from fabric_beam.rows import ToBatches

DEAD_LETTERS = "dead_letters"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MapBatches(beam.PTransform):
    """Apply a kernel to every batch of a PCollection.

    The kernel runs once on an empty table while the pipeline is built: what comes out is the output schema, and a
    misspelt column or a wrong type fails there, with the transform's name. Rows that the kernel rejects go to the error
    handler, each with its reason.

    Args:
        kernel: a function from table to table (`fabric_beam.kernel.Kernel`). Subclasses leave it out and override
            `bind`, which makes the kernel once the input schema is known.
        filters: whether the kernel may drop rows on purpose; the ledger counts those as filtered. Rows that another
            kernel drops are rows lost, and the ledger does not balance.

    Input: batches of any schema, or a PCollection of schema'd rows (`beam.Row`, NamedTuple), batched by itself.
    Output: batches of the kernel's output schema, timestamped by the least event time in each.

    Raises:
        SchemaError: when the pipeline is built, if the kernel does not fit the input's columns.
        RejectedRowsError: when the pipeline runs, if rows are rejected and there is no error handler.

    Example:
        >>> from fabric_beam.testing import batch, collect
        >>> with_tax = MapBatches(lambda table: table.with_columns((pl.col("price") * 1.2).alias("gross")))
        >>> collect(batch(price=[10.0, 20.0]), with_tax).to_dicts()
        [{'price': 10.0, 'gross': 12.0}, {'price': 20.0, 'gross': 24.0}]
    """

    def __init__(self, kernel: Kernel | None = None, *, filters: bool = False) -> None:
        super().__init__()
        self._kernel = kernel
        self._filters = filters
        self._error_handler: ErrorHandler | None = None

    def bind(self, schema: pl.Schema) -> Kernel:
        """Make the kernel for an input schema; called once, while the pipeline is built."""
        if self._kernel is None:
            raise TypeError(f"{type(self).__name__} must be given a kernel or override bind().")
        return self._kernel

    def with_error_handler(self, error_handler: ErrorHandler | None) -> Self:
        """Send rejected rows to one of Beam's error handlers instead of failing the run.

        Args:
            error_handler: an `apache_beam.transforms.error_handling.ErrorHandler`; it gets batches of dead letters.

        Returns:
            The transform itself.
        """
        self._error_handler = error_handler
        return self

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        step = pcoll.pipeline._current_transform().full_label
        batches, hint = as_batches(pcoll)
        kernel, schema = infer(self.bind, hint, step)
        outputs = batches | "Kernel" >> beam.ParDo(
            _Apply(kernel, step, event_time(schema), self._error_handler is not None, self._filters)
        ).with_outputs(DEAD_LETTERS, main="kept")
        outputs.kept.element_type = BatchOf(schema)
        outputs[DEAD_LETTERS].element_type = BatchOf(arrow_schema(pl.DataFrame(schema=dead_letters.SCHEMA)))
        if self._error_handler is not None:
            self._error_handler.add_error_pcollection(outputs[DEAD_LETTERS])
        return outputs.kept


def as_batches(pcoll: beam.PCollection) -> tuple[beam.PCollection, BatchOf]:
    """A PCollection as batches, and its type hint: rows with a Beam schema are batched."""
    if not isinstance(pcoll.element_type, BatchOf):
        pcoll = pcoll | ToBatches()
    return pcoll, pcoll.element_type


@contextmanager
def named(step: str) -> Iterator[None]:
    """Say in an error of ours which step it is about."""
    try:
        yield
    except FabricBeamError as error:
        error.args = (f"{step}: {error}",)
        raise


def infer(bind: Callable[[pl.Schema], Kernel], hint: BatchOf, step: str) -> tuple[Kernel, pa.Schema]:
    """Make a kernel and learn its output schema by running it on no rows.

    Args:
        bind: makes the kernel for an input schema.
        hint: the input's type hint.
        step: the transform's label, for messages.

    Returns:
        The kernel and its output's Arrow schema.

    Raises:
        FabricBeamError: if it does not fit the input's columns; the message starts with the step.
    """
    empty = hint.empty()
    try:
        with named(step):
            kernel = bind(empty.schema)
            result = kernel(empty)
    except pl.exceptions.ColumnNotFoundError as error:
        name = str(error).split("\n", 1)[0].strip('"')
        name = name.split('"')[1] if '"' in name else name
        raise SchemaError(f"{step}: there is no column {name!r}. {nearest(name, empty.columns)}") from error
    except pl.exceptions.PolarsError as error:
        columns = ", ".join(f"{name}: {dtype}" for name, dtype in empty.schema.items())
        raise SchemaError(f"{step}: the kernel does not fit its input ({columns}): {error}") from error
    return kernel, arrow_schema(result.kept if isinstance(result, Split) else result)


class _Apply(beam.DoFn):
    """Runs a kernel on each batch, counts its rows, and keeps the rejected ones apart."""

    def __init__(self, kernel: Kernel, step: str, time_column: str | None, handled: bool, filters: bool) -> None:
        self._kernel = kernel
        self._step = step
        self._time_column = time_column
        self._handled = handled
        self._filters = filters
        self._account = ledger.Account(step)

    def process(self, batch: pa.RecordBatch) -> Iterator[Any]:
        table = from_batch(batch)
        result = self._kernel(table)
        rejected = 0
        if isinstance(result, Split):
            if rejected := result.rejected.height:
                letters = dead_letters.dead_letters(result.rejected, self._step)
                if not self._handled:
                    raise RejectedRowsError(self._explain(letters))
                PROGRESS.add(dead_letters=rejected)
                yield beam.pvalue.TaggedOutput(DEAD_LETTERS, to_batch(letters))
            result = result.kept
        self._account.add("in", table.height)
        self._account.add("out", result.height)
        self._account.add("rejected", rejected)
        if self._filters:
            self._account.add("filtered", table.height - result.height - rejected)
        if result.height:
            yield timestamped(result, self._time_column)

    def teardown(self) -> None:
        if (close := getattr(self._kernel, "close", None)) is not None:
            close()

    def _explain(self, letters: pl.DataFrame) -> str:
        first = letters.row(0, named=True)
        where = f" at {first['source']}:{first['offset']}" if first["source"] else ""
        return (
            f"{self._step} rejected {letters.height} row(s) of a batch; the first{where}: {first['message']} "
            f"(rule {first['rule']!r}, payload {str(first['payload'])[:200]!r}). To keep going and collect such rows, "
            "give it an error handler: .with_error_handler(handler)."
        )


def timestamped(table: pl.DataFrame, time_column: str | None) -> Any:
    """A batch at the least event time in it, so that the watermark holds; as it is if no row has one."""
    if time_column is None:
        return to_batch(table)
    least = table[time_column].min()
    if not isinstance(least, datetime):
        return to_batch(table)
    aware = least if least.tzinfo else least.replace(tzinfo=UTC)
    micros = (aware - _EPOCH) // timedelta(microseconds=1)
    return TimestampedValue(to_batch(table), Timestamp(micros=micros))
