"""The element of every PCollection: an Arrow record batch, its type hint, its coder and its two-way trip to Polars."""

from __future__ import annotations

import base64
import weakref
from typing import Any

import polars as pl
import pyarrow as pa
from apache_beam import coders
from apache_beam.typehints import typehints

#: A batch's rows are ordered in time by the first of these columns that it has.
EVENT_TIME = ("timestamp", "window_start")

#: The newest string and binary layouts (views), so that Polars and Arrow share memory instead of copying.
_VIEWS = pl.CompatLevel.newest()
_SMALL = 1 << 16
#: The tables behind batches that are alive, by the batch's `id`: the next step of a fused stage gets the very object
#: that the step before made, and importing its strings again would mean validating every byte of them again.
_TABLES: dict[int, tuple[weakref.ref[pa.RecordBatch], pl.DataFrame]] = {}


def from_batch(batch: pa.RecordBatch) -> pl.DataFrame:
    """See a batch as a Polars table, without copying.

    Args:
        batch: a record batch.

    Returns:
        The same rows and columns.
    """
    known = _TABLES.get(id(batch))
    if known is not None and known[0]() is batch:
        return known[1]
    table = pl.from_arrow(batch)
    assert isinstance(table, pl.DataFrame)
    return table


def to_batch(table: pl.DataFrame) -> pa.RecordBatch:
    """See a Polars table as one batch, without copying if it is in one chunk.

    Args:
        table: any table.

    Returns:
        One batch with all of its rows, strings as `string_view`.

    Example:
        >>> to_batch(pl.DataFrame({"body": ["a", "b"]})).schema.field("body").type
        DataType(string_view)
    """
    arrow = table.rechunk().to_arrow(compat_level=_VIEWS)
    batches = arrow.to_batches()
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=arrow.schema)
    if any(pa.types.is_large_list(field.type) for field in arrow.schema):
        return pa.RecordBatch.from_arrays([_from_zero(column) for column in batches[0].columns], schema=arrow.schema)
    batch, key = batches[0], id(batches[0])
    _TABLES[key] = (weakref.ref(batch, lambda _: _TABLES.pop(key, None)), table)
    return batch


def _from_zero(column: pa.Array) -> pa.Array:
    """Lists whose values begin at zero: pyarrow 16 writes IPC that cannot be read where those of a slice do not."""
    return pa.concat_arrays([column, column.slice(0, 0)]) if pa.types.is_large_list(column.type) else column


def arrow_schema(table: pl.DataFrame) -> pa.Schema:
    """The Arrow schema of `to_batch(table)`."""
    return table.head(0).to_arrow(compat_level=_VIEWS).schema


def schema_to_text(schema: pa.Schema) -> str:
    """An Arrow schema as text, to be kept beside what has it."""
    return base64.b64encode(schema.serialize()).decode()


def schema_from_text(text: str) -> pl.Schema:
    """The Polars schema that `schema_to_text` was given as Arrow's.

    Example:
        >>> dict(schema_from_text(schema_to_text(arrow_schema(pl.DataFrame({"a": [1]})))))
        {'a': Int64}
    """
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
    return pl.DataFrame(pl.from_arrow(schema.empty_table())).schema


def event_time(schema: pa.Schema) -> str | None:
    """The column that orders the rows in time, or None.

    Example:
        >>> event_time(pa.schema([("body", pa.string()), ("timestamp", pa.timestamp("us", "UTC"))]))
        'timestamp'
    """
    times = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    return next((name for name in EVENT_TIME if name in times), None)


def _compact(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose strings own about the bytes they need.

    A few rows left over of many still point into the blocks of all of them, and those would be sent along.
    """
    table = from_batch(batch)
    if batch.get_total_buffer_size() <= 2 * table.estimated_size() + _SMALL:
        return batch
    copied = pl.from_arrow(table.to_arrow(compat_level=pl.CompatLevel.oldest()), schema=table.schema)
    assert isinstance(copied, pl.DataFrame)
    return to_batch(copied)


class BatchOf(typehints.TypeConstraint):
    """The type hint of a PCollection of batches that all have one schema.

    Args:
        schema: the columns, as Arrow types.

    Example:
        >>> BatchOf(pa.schema([("body", pa.string_view())]))
        BatchOf[body: string_view]
    """

    def __init__(self, schema: pa.Schema) -> None:
        super().__init__()
        self.schema: pa.Schema = schema.remove_metadata()

    def empty(self) -> pl.DataFrame:
        """A table of this schema with no rows: what a kernel is tried on while the pipeline is built."""
        return pl.DataFrame(pl.from_arrow(self.schema.empty_table()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BatchOf) and self.schema.equals(other.schema)

    def __hash__(self) -> int:
        return hash((BatchOf, tuple(self.schema.names)))

    def __repr__(self) -> str:
        return f"BatchOf[{', '.join(f'{field.name}: {field.type}' for field in self.schema)}]"

    def _consistent_with_check_(self, sub: object) -> bool:
        return self == sub

    def type_check(self, instance: object) -> None:
        if not isinstance(instance, pa.RecordBatch) or not instance.schema.equals(self.schema):
            raise typehints.CompositeTypeHintError(f"{self} expected, not {type(instance).__name__}: {instance}")


class BatchCoder(coders.Coder):
    """Record batches as Arrow IPC streams: one schema message, one batch, body not copied on reading.

    Source: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
    """

    def encode(self, value: pa.RecordBatch) -> bytes:
        value = _compact(value)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_batch(value)
        return bytes(sink.getvalue())

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        return pa.ipc.open_stream(pa.py_buffer(encoded)).read_next_batch()

    def estimate_size(self, value: pa.RecordBatch) -> int:
        # Beam samples sizes for its metrics, by encoding the element unless it is told another way.
        return int(value.get_total_buffer_size())

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> Any:
        return pa.RecordBatch

    @classmethod
    def from_type_hint(cls, typehint: Any, registry: Any) -> BatchCoder:
        return cls()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


coders.registry.register_coder(BatchOf, BatchCoder)
coders.registry.register_coder(pa.RecordBatch, BatchCoder)
