"""Dictionary encoding of text columns: values that repeat, and for each row which of them it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fabric_beam.views import INLINE, Bytes, Positions, Words, compiled, inlined, load

Codes = npt.NDArray[np.int32]

#: What a dictionary has room for. With more, the loop waits for memory: Arrow's own are as fast then.
_VALUES, _BYTES = 1 << 12, 1 << 18
#: How often a column may go from one of its buffers to another: each change is a call of the loop.
_CHANGES = 1024
_MIX, _LOW = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFFFFFFFF)
_NULL = -1
_NOTHING = np.zeros(1, np.uint8)


class DictionaryBuilder:
    """Finds the distinct values of a text column that comes in parts.

    Example:
        >>> builder = DictionaryBuilder()
        >>> builder.append(pl.Series(["GET", "POST", None])), builder.append(pl.Series(["GET"]))
        (True, True)
        >>> builder.finish().indices.to_pylist()
        [0, 1, None, 0]
    """

    def __init__(self) -> None:
        self._codes: list[Codes] = []
        self._count = 0
        self._slots = np.zeros(_VALUES * 2, np.int32)
        self._views = np.empty((_VALUES, 2), np.uint64)
        self._ends = np.zeros(_VALUES + 1, np.int64)
        self._text = np.empty(_BYTES, np.uint8)

    def append(self, column: pl.Series) -> bool:
        """Add rows.

        Args:
            column: strings.

        Returns:
            False, and nothing is added, if there would be more than 4,096 values, or 256 KiB of them.
        """
        codes = np.empty(column.len(), np.int32)
        row = 0
        for chunk in column.get_chunks():
            if not self._encode(chunk, codes[row : row + chunk.len()]):
                return False
            row += chunk.len()
        self._codes.append(codes)
        return True

    def finish(self) -> pa.DictionaryArray:
        """The rows since the last call, and a dictionary of large strings in order of appearance, none twice."""
        codes = np.concatenate([np.empty(0, np.int32), *self._codes])
        valid = codes != _NULL
        bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
        indices = pa.Array.from_buffers(pa.int32(), len(codes), [bitmap, pa.py_buffer(codes)])
        ends = self._ends[: self._count + 1].copy()
        text = self._text[: ends[-1]].copy()
        values = pa.Array.from_buffers(pa.large_string(), self._count, [None, pa.py_buffer(ends), pa.py_buffer(text)])
        self._codes, self._count = [], 0
        self._slots.fill(0)
        return pa.DictionaryArray.from_arrays(indices, values, safe=False)

    def _encode(self, chunk: pl.Series, codes: Codes) -> bool:
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
                self._ends,
                self._text,
                self._count,
                codes,
            )
            if row == len(array):
                return True
            if number < 0:
                break
        return False


@inlined
def _hash(head: Any, tail: Any, text: Bytes, at: Any, size: int) -> Any:
    mixed = head ^ tail
    if size > INLINE:
        mixed = head
        for _ in range((size - 1) >> 3):
            mixed = (mixed << np.uint64(23) | mixed >> np.uint64(41)) ^ load(text, at)
            at += np.uint64(8)
        mixed = (mixed << np.uint64(23) | mixed >> np.uint64(41)) ^ load(text, at - np.uint64(-size & 7))
    mixed *= _MIX
    return (mixed ^ mixed >> np.uint64(32)) * _MIX >> np.uint64(32)


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
    ends: Positions,
    values: Bytes,
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
        ends: where each value ends there, behind a zero.
        values: the values' bytes.
        count: how many values there are.
        codes: filled with the rows' codes.

    Returns:
        The first row that was not looked at, the buffer that its text lies in (-1: there is no room for it), the count.
    """
    last = np.uint64(len(slots) - 1)
    code = before = -1
    for row in range(start, len(views)):
        if first_bit >= 0 and not valid[(first_bit + row) >> 3] >> ((first_bit + row) & 7) & 1:
            codes[row] = _NULL
            continue
        head, tail = views[row, 0], views[row, 1]
        if before >= 0 and head == views[before, 0] and tail == views[before, 1]:
            # A constant, such as the file that lines are from: its rows have one view.
            codes[row] = code
            continue
        size, at = int(np.int64(head & _LOW)), tail >> np.uint64(32)
        other = int(np.int64(tail & _LOW))
        if size > INLINE and other != number:
            return row, other, count
        slot = _hash(head, tail, text, at, size) & last
        code = slots[slot] - 1
        while code >= 0:
            if known[code, 0] == head and (
                known[code, 1] == tail if size <= INLINE else _same(text, at, values, known[code, 1], size)
            ):
                break
            slot = (slot + np.uint64(1)) & last
            code = slots[slot] - 1
        if code < 0:
            place = ends[count]
            if count == len(known) or place + size > len(values):
                return row, -1, count
            if size > INLINE:
                for step in range(size):
                    values[place + step] = text[at + np.uint64(step)]
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
        codes[row], before = code, row
    return len(views), number, count
