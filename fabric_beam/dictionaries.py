"""Dictionary encoding of text columns: values that repeat, and for each row which of them it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fabric_beam.views import INLINE, Bytes, Positions, Words, compiled, inlined, load

Codes = npt.NDArray[np.int32]

#: What a dictionary holds at most: Parquet's writers give one up at as many bytes.
_VALUES, _BYTES = 1 << 16, 1 << 20
#: How often a column may go from one of its buffers to another: each change is a call of the loop.
_CHANGES = 1024
_SLOTS = np.uint64((_VALUES << 1) - 1)
_MIX, _LOW = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFFFFFFFF)
_NULL = -1
_NOTHING = np.zeros(1, np.uint8)


def dictionary_encoded(column: pl.Series) -> pa.DictionaryArray | None:
    """Find the distinct values of a text column.

    Args:
        column: strings.

    Returns:
        The same strings as a dictionary array; its dictionary has large strings in order of appearance, none twice.
        None if a dictionary does not pay: more than 65,536 values, or 1 MiB of them.

    Example:
        >>> dictionary_encoded(pl.Series(["GET", "POST", None, "GET"])).indices.to_pylist()
        [0, 1, None, 0]
    """
    values = _Values()
    codes = np.empty(column.len(), np.int32)
    row = 0
    for chunk in column.get_chunks():
        if not values.encode(chunk, codes[row : row + chunk.len()]):
            return None
        row += chunk.len()
    valid = pa.py_buffer(np.packbits(codes != _NULL, bitorder="little")) if column.null_count() else None
    indices = pa.Array.from_buffers(pa.int32(), len(codes), [valid, pa.py_buffer(codes)])
    return pa.DictionaryArray.from_arrays(indices, values.array(), safe=False)


class _Values:
    """The distinct values found so far."""

    def __init__(self) -> None:
        self._slots = np.zeros(int(_SLOTS) + 1, np.int32)
        self._views = np.empty((_VALUES, 2), np.uint64)
        self._text = np.empty(_BYTES, np.uint8)
        self._ends = np.zeros(_VALUES + 1, np.int64)
        self._count = 0

    def encode(self, chunk: pl.Series, codes: Codes) -> bool:
        """Give the rows of a chunk their codes; false if not all of their values found room."""
        array = chunk.to_arrow(compat_level=pl.CompatLevel.newest())
        buffers = array.buffers()
        views = np.frombuffer(buffers[1], np.uint64).reshape(-1, 2)[array.offset : array.offset + len(array)]
        valid = np.frombuffer(buffers[0], np.uint8) if array.null_count else _NOTHING
        texts = [np.frombuffer(buffer, np.uint8) for buffer in buffers[2:]] or [_NOTHING]
        row = number = 0
        for _ in range(_CHANGES):
            row, number, self._count = _encode(
                views,
                valid,
                array.offset if array.null_count else -1,
                number,
                texts[number],
                row,
                self._slots,
                self._views,
                self._text,
                self._ends,
                self._count,
                codes,
            )
            if row == len(array):
                return True
            if number < 0:
                break
        return False

    def array(self) -> pa.Array:
        """The values, as large strings."""
        buffers = [None, pa.py_buffer(self._ends), pa.py_buffer(self._text)]
        return pa.Array.from_buffers(pa.large_string(), self._count, buffers)


@inlined
def _slot(head: Any, tail: Any, text: Bytes, at: Any, size: int) -> Any:
    """Where in the hash table a value's code is looked for first."""
    mixed = head ^ tail
    if size > INLINE:
        mixed = head
        for _ in range((size - 1) >> 3):
            mixed = (mixed << np.uint64(23) | mixed >> np.uint64(41)) ^ load(text, at)
            at += np.uint64(8)
        mixed = (mixed << np.uint64(23) | mixed >> np.uint64(41)) ^ load(text, at - np.uint64(-size & 7))
    mixed *= _MIX
    return ((mixed ^ mixed >> np.uint64(32)) * _MIX >> np.uint64(40)) & _SLOTS


@inlined
def _same(text: Bytes, at: Any, other: Bytes, place: Any, size: int) -> bool:
    """Whether two pieces of more than eight bytes are equal."""
    for _ in range((size - 1) >> 3):
        if load(text, at) != load(other, place):
            return False
        at += np.uint64(8)
        place += np.uint64(8)
    back = np.uint64(-size & 7)
    return bool(load(text, at - back) == load(other, place - back))


@compiled
def _encode(
    views: Words,
    valid: Bytes,
    first_bit: int,
    number: int,
    text: Bytes,
    start: int,
    slots: Codes,
    known: Words,
    values: Bytes,
    ends: Positions,
    count: int,
    codes: Codes,
) -> tuple[int, int, int]:
    """Give rows their codes, as far as their text lies in one buffer.

    Args:
        views: the rows' views, two words each.
        valid: a bit for each row, unset where it is null.
        first_bit: which is the first row's; -1 if no row is null.
        number: which of the column's buffers `text` is.
        text: that buffer.
        start: the first row to look at.
        slots: hash table with open addressing, of codes + 1.
        known: the values' views; those of long ones have their place in `values`.
        values: the values' bytes.
        ends: where each value ends there, behind a zero.
        count: how many values there are.
        codes: filled with the rows' codes.

    Returns:
        The first row that was not looked at, the buffer that its text lies in (-1: there is no room for it), the count.
    """
    for row in range(start, len(views)):
        if first_bit >= 0 and not valid[(first_bit + row) >> 3] >> ((first_bit + row) & 7) & 1:
            codes[row] = _NULL
            continue
        head, tail = views[row, 0], views[row, 1]
        size, at = int(np.int64(head & _LOW)), tail >> np.uint64(32)
        other = int(np.int64(tail & _LOW))
        if size > INLINE and other != number:
            return row, other, count
        slot = _slot(head, tail, text, at, size)
        code = slots[slot] - 1
        while code >= 0:
            if known[code, 0] == head and (
                known[code, 1] == tail if size <= INLINE else _same(text, at, values, known[code, 1], size)
            ):
                break
            slot = (slot + np.uint64(1)) & _SLOTS
            code = slots[slot] - 1
        if code < 0:
            place = ends[count]
            if count == len(known) or place + size > len(values):
                return row, -1, count
            if size > INLINE:
                values[place : place + size] = text[np.int64(at) : np.int64(at) + size]
                tail = np.uint64(place)
            else:
                for step in range(size):
                    word, shift = (head, step + 4) if step < 4 else (tail, step - 4)
                    values[place + step] = np.uint8(word >> np.uint64(shift << 3) & np.uint64(0xFF))
            known[count, 0], known[count, 1] = head, tail
            code = count
            count += 1
            ends[count] = place + size
            slots[slot] = count
        codes[row] = code
    return len(views), number, count
