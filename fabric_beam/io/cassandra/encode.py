"""Rows as CQL's protocol sends them, made column by column by compiled loops.

Source: https://github.com/apache/cassandra/blob/trunk/doc/native_protocol_v4.spec
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fabric_beam.views import Bytes, Positions, compiled

#: Lengths that stand for no value.
NULL, UNSET = -1, -2
#: Far below `batch_size_fail_threshold` (50 KiB), and soon done: larger ones are not faster.
_BATCH_BYTES, _BATCH_ROWS = 8 << 10, 500


@dataclass(frozen=True)
class Batches:
    """Rows as statements of batches, one after the other.

    Args:
        data: all statements.
        starts: where each one starts, and last where they end.
        rows: the row's number that each one is of.
        firsts: the first statement of each batch, and last how many statements there are.
        keys: the values of the partition key's columns: bytes, and where each row's start and how many they are.
    """

    data: memoryview
    starts: Positions
    rows: Positions
    firsts: Positions
    keys: list[tuple[Bytes, Positions, Positions]]

    def __len__(self) -> int:
        return len(self.firsts) - 1

    def statements(self, first: int, last: int) -> memoryview:
        """The bytes of some statements."""
        return self.data[self.starts[first] : self.starts[last]]

    def routing_key(self, statement: int) -> bytes:
        """What says which nodes have a statement's row.

        Source: https://github.com/apache/cassandra/blob/trunk/doc/native_protocol_v4.spec, section 4.2.5.4 (pk_index)
        """
        row = self.rows[statement]
        parts = [text[starts[row] : starts[row] + lengths[row]].tobytes() for text, starts, lengths in self.keys]
        if len(parts) == 1:
            return parts[0]
        # One that is longer is refused wherever it goes.
        return b"".join(min(len(part), 0xFFFF).to_bytes(2, "big") + part + b"\0" for part in parts)


def batches(statement: bytes, columns: list[pl.Series], partition: list[int], missing: int) -> Batches:
    """Encode rows, put together by the partition that they belong to.

    Args:
        statement: the id of the prepared statement.
        columns: its values: numbers of the width that CQL has, booleans, texts or bytes.
        partition: which of them are the partition key.
        missing: what a null becomes, `NULL` or `UNSET`.

    Example:
        >>> made = batches(b"id", [pl.Series([2, 1, 2], dtype=pl.Int32), pl.Series(["a", "b", None])], [0], NULL)
        >>> len(made), made.rows.tolist()
        (2, [1, 0, 2])
        >>> bytes(made.statements(0, 1)).hex()
        '0100026964000200000004000000010000000162'
    """
    keys = pl.DataFrame([columns[n].alias(str(n)) for n in partition])
    order = keys.select(pl.arg_sort_by(keys.columns, maintain_order=True)).to_series().to_numpy().astype(np.int64)
    values = [_values(column, missing) for column in columns]
    head = np.frombuffer(
        b"\1" + len(statement).to_bytes(2, "big") + statement + len(columns).to_bytes(2, "big"), np.uint8
    )
    sizes = np.full(len(order), len(head) + 4 * len(columns), np.int64)
    for _, _, lengths in values:
        sizes += np.maximum(lengths, 0)
    starts = np.zeros(len(order) + 1, np.int64)
    np.cumsum(sizes[order], out=starts[1:])
    data = np.empty(starts[-1], np.uint8)
    at = np.empty(len(order), np.int64)
    at[order] = starts[:-1]
    _put_heads(data, at, head)
    for each in values:
        _put_values(data, at, *each)
    ordered = keys[order].select(pl.any_horizontal(pl.all() != pl.all().shift()).fill_null(True))
    firsts = np.empty(len(order) + 1, np.int64)
    count = _cut(starts, ordered.to_series().to_numpy(), _BATCH_BYTES, _BATCH_ROWS, firsts)
    return Batches(data.data, starts, order, firsts[: count + 1].copy(), [values[n] for n in partition])


def _values(column: pl.Series, missing: int) -> tuple[Bytes, Positions, Positions]:
    """A column's bytes, and where each value's start and how many they are."""
    rows = len(column)
    if column.dtype in (pl.String, pl.Binary):
        flat = column.cast(pl.Binary).rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        offsets = np.frombuffer(flat.buffers()[1], np.int64)[flat.offset : flat.offset + rows + 1]
        text = np.frombuffer(flat.buffers()[2] or b"", np.uint8)
        starts, lengths = offsets[:-1], np.diff(offsets)
    else:
        numbers = column.cast(pl.Int8) if column.dtype == pl.Boolean else column
        array: npt.NDArray[Any] = numbers.fill_null(0).to_numpy()
        text = np.ascontiguousarray(array.astype(array.dtype.newbyteorder(">"))).view(np.uint8)
        starts = np.arange(rows, dtype=np.int64) * array.itemsize
        lengths = np.full(rows, array.itemsize, np.int64)
    if column.null_count():
        lengths = np.where(column.is_null().to_numpy(), missing, lengths)
    return text, starts, lengths


@compiled
def _put_heads(data: Bytes, at: Positions, head: Bytes) -> None:
    for row in range(len(at)):
        for n in range(len(head)):
            data[at[row] + n] = head[n]
        at[row] += len(head)


@compiled
def _put_values(data: Bytes, at: Positions, text: Bytes, starts: Positions, lengths: Positions) -> None:
    """Put a value, its length first, at each row's place, which moves on."""
    for row in range(len(at)):
        place, start, length = at[row], starts[row], lengths[row]
        for n in range(4):
            data[place + n] = np.uint8((length >> (24 - 8 * n)) & 255)
        place += 4
        for n in range(length):
            data[place + n] = text[start + n]
        at[row] = place + max(length, 0)


@compiled
def _cut(starts: Positions, is_new: npt.NDArray[np.bool_], size: int, rows: int, firsts: Positions) -> int:
    """Find each batch's first statement, and behind them how many statements there are; returns how many batches."""
    count, first = 0, 0
    for row in range(len(is_new)):
        if is_new[row] or row - first >= rows or starts[row + 1] - starts[first] > size:
            firsts[count] = first = row
            count += 1
    firsts[count] = len(is_new)
    return count
