"""What of JSON objects has no column, or is an object in one, found without decoding them anew."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fabric_beam.memory import empty
from fabric_beam.views import Bytes, Positions, Words, compiled, inlined, pieces

#: More objects inside of one another, bytes of a name, or fields without a column are left to others; and, in all lines
#: together, more objects in columns than so many a line.
_DEPTH, _NAME, _FIELDS, _OBJECTS = 32, 4096, 256, 4
_PRIME, _BASIS = np.uint64(0x100000001B3), np.uint64(0xCBF29CE484222325)
_QUOTE, _BACKSLASH, _COMMA, _COLON, _DOT = (ord(character) for character in '"\\,:.')
_OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST, _SPACE = (ord(character) for character in "{}[] ")
_NULL, _EXPONENT, _CAPITAL_EXPONENT, _LETTERS = (ord(character) for character in "neEA")
_UNCERTAIN = -1

Slots = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]


class Found(NamedTuple):
    """What lines hold besides simple values of columns.

    Attributes:
        others: the fields without a column, as a JSON object of flattened names, null where there is none.
        named: how many fields that are not null have a column; -1 where the line is left to others.
        objects: by column, the lines' numbers in which it is an object or has some in it, and their JSON text.
    """

    others: pl.Series
    named: pl.Series
    objects: dict[str, tuple[pl.Series, pl.Series]]


class OtherFields:
    """Find what a schema has no column for, and objects in its columns.

    Args:
        names: those of the schema's fields, by their flattened names.

    Example:
        >>> line = '{"level": "info", "http": {"path": "/", "size": null}}'
        >>> found = OtherFields(["level"])(pl.Series([line]))
        >>> found.others.to_list(), found.named.to_list()
        (['{"http.path": "/"}'], [1])
    """

    def __init__(self, names: Collection[str]) -> None:
        self._columns = list(names)
        texts = [name.encode() for name in names]
        self._names = np.frombuffer(b"".join(texts) + b"\0", np.uint8)
        self._ends = np.cumsum([0, *(len(text) for text in texts)], dtype=np.int64)
        self._slots = np.zeros(4 << len(texts).bit_length(), np.int32)
        for number, text in enumerate(texts, 1):
            hash = int(_BASIS)
            for byte in text:
                hash = (hash ^ byte) * int(_PRIME) & 0xFFFFFFFFFFFFFFFF
            slot = _slot(hash) % len(self._slots)
            while self._slots[slot]:
                slot = (slot + 1) % len(self._slots)
            self._slots[slot] = number

    def __call__(self, lines: pl.Series) -> Found:
        """Look through lines.

        Args:
            lines: a JSON object each, known to be right, without white space around it.

        Returns:
            What is found. Left to others are lines with escapes in a key, twice the same key, numbers with an exponent,
            and what is larger than usual.
        """
        text, starts, lengths = pieces(lines)
        found = empty(2 * int(lengths.sum()) + 64, np.uint8)
        ends, named = np.zeros(len(lines) + 1, np.int64), np.empty(len(lines), np.int64)
        objects = np.empty((_OBJECTS * len(lines), 4), np.int64)
        count = _find_all(
            text.bytes,
            starts,
            lengths,
            self._names,
            self._ends,
            self._slots,
            np.empty(_NAME, np.uint8),
            np.empty(_FIELDS, np.uint64),
            np.empty((_DEPTH, 2), np.uint64),
            found,
            ends,
            named,
            objects,
        )
        bitmap = pa.py_buffer(np.packbits(np.diff(ends) > 0, bitorder="little"))
        buffers = [bitmap, pa.py_buffer(ends), pa.py_buffer(found[: ends[-1]].copy())]
        others = pl.from_arrow(pa.Array.from_buffers(pa.large_string(), len(lines), buffers))
        assert isinstance(others, pl.Series)
        columns, rows, begins, sizes = objects[:count].T.copy()
        texts = text.cut(begins, sizes)
        each = {number: pl.Series(columns == number).arg_true() for number in np.unique(columns)}
        row = pl.Series(rows)
        return Found(
            others,
            pl.Series(named),
            {self._columns[number - 1]: (row.gather(at), texts.gather(at)) for number, at in each.items()},
        )


def _slot(hash: int) -> int:
    return hash ^ hash >> 32


@compiled
def _find_all(
    text: Bytes,
    starts: Positions,
    lengths: Positions,
    names: Bytes,
    name_ends: Positions,
    slots: Slots,
    name: Bytes,
    seen: Words,
    prefixes: Words,
    found: Bytes,
    ends: Positions,
    named: Positions,
    objects: Places,
) -> int:
    """Look through lines.

    Args:
        text: what the lines lie in, with zeros behind.
        starts: each line's first byte.
        lengths: each line's length.
        names: the columns' names, one behind the other.
        name_ends: where each ends, behind a zero.
        slots: hash table with open addressing, of columns' numbers from 1 on.
        name: room for a field's flattened name.
        seen: room for the hashes of an object's fields.
        prefixes: room for each object's length and hash of what comes before its keys.
        found: filled with the other fields of each line.
        ends: filled with where those of each line end, behind a zero.
        named: filled with how many fields of each line have a column, or -1.
        objects: filled with the column's number, the line, the first byte and the length of each object in a column.

    Returns:
        How many objects in columns there are.
    """
    count = 0
    for line in range(len(starts)):
        start, end = starts[line], starts[line] + lengths[line]
        named[line], ends[line + 1], count = _find(
            text, start, end, names, name_ends, slots, name, seen, prefixes, found, ends[line], objects, count, line
        )
    return count


@compiled
def _find(  # noqa: PLR0911, PLR0912 - one pass over a line's bytes, from left to right
    text: Bytes,
    at: int,
    end: int,
    names: Bytes,
    name_ends: Positions,
    slots: Slots,
    name: Bytes,
    seen: Words,
    prefixes: Words,
    found: Bytes,
    size: int,
    objects: Places,
    count: int,
    line: int,
) -> tuple[int, int, int]:
    """How many fields of a line have a column, or -1; where the others end in `found`, and the objects in `objects`."""
    begin, before, named, others, depth, prefix, prefix_hash = size, count, 0, 0, 0, 0, _BASIS
    at += 1
    while at < end:
        byte = text[at]
        if byte <= _SPACE or byte == _COMMA:
            at += 1
            continue
        if byte == _CLOSE:
            at += 1
            depth -= 1
            if depth < 0:
                break
            prefix, prefix_hash = int(np.int64(prefixes[depth, 0])), prefixes[depth, 1]
            continue
        at, stop, hash = _key(text, at + 1, end, name, prefix, prefix_hash)
        if stop < 0:
            return _UNCERTAIN, begin, before
        at = _skip(text, _skip(text, at, end) + 1, end)
        byte, value = text[at], at
        column = _column(name, stop, hash, names, name_ends, slots)
        if byte == _OPEN and not column:
            at = _skip(text, at + 1, end)
            if text[at] == _CLOSE:
                at += 1
                continue
            if depth == len(prefixes) or stop == len(name):
                return _UNCERTAIN, begin, before
            prefixes[depth, 0], prefixes[depth, 1] = np.uint64(prefix), prefix_hash
            depth += 1
            name[stop] = _DOT
            prefix, prefix_hash = stop + 1, (hash ^ np.uint64(_DOT)) * _PRIME
            continue
        at, nested = _value_end(text, at, end)
        if column:
            if nested:
                if count == len(objects):
                    return _UNCERTAIN, begin, before
                objects[count, 0], objects[count, 1] = column, line
                objects[count, 2], objects[count, 3] = value, at - value
                count += 1
            named += byte != _NULL
        elif byte != _NULL:
            size = _write(text, value, at, name, stop, found, begin, size)
            if size < 0 or others == len(seen):
                return _UNCERTAIN, begin, before
            for other in range(others):
                if seen[other] == hash:
                    return _UNCERTAIN, begin, before
            seen[others] = hash
            others += 1
    if at != end or depth >= 0:
        return _UNCERTAIN, begin, before
    if others:
        found[size] = _CLOSE
        size += 1
    return named, size, count


@inlined
def _skip(text: Bytes, at: int, end: int) -> int:
    """Behind white space."""
    while at < end and text[at] <= _SPACE:
        at += 1
    return at


@inlined
def _key(text: Bytes, at: int, end: int, name: Bytes, stop: int, hash: Any) -> tuple[int, int, Any]:
    """Behind a key, where the flattened name ends that it is added to (-1: it cannot be), and the name's hash."""
    while at < end and text[at] != _QUOTE:
        if text[at] == _BACKSLASH or stop == len(name):
            return at, -1, hash
        name[stop] = text[at]
        hash = (hash ^ np.uint64(text[at])) * _PRIME
        stop += 1
        at += 1
    return at + 1, stop, hash


@inlined
def _column(name: Bytes, length: int, hash: Any, names: Bytes, ends: Positions, slots: Slots) -> Any:
    """The number of the column with a name, from 1 on; 0 if there is none."""
    last = np.uint64(len(slots) - 1)
    slot = (hash ^ hash >> np.uint64(32)) & last
    while slots[slot]:
        number = slots[slot]
        start, step = ends[number - 1], 0
        if ends[number] - start == length:
            while step < length and names[start + step] == name[step]:
                step += 1
            if step == length:
                return number
        slot = (slot + np.uint64(1)) & last
    return np.int32(0)


@inlined
def _string_end(text: Bytes, at: int, end: int) -> int:
    at += 1
    while at < end and text[at] != _QUOTE:
        at += 1 + (text[at] == _BACKSLASH)
    return at + 1


@compiled
def _value_end(text: Bytes, at: int, end: int) -> tuple[int, bool]:
    """Behind a value, and whether there are objects in it."""
    if text[at] == _QUOTE:
        return _string_end(text, at, end), False
    if text[at] not in (_OPEN, _OPEN_LIST):
        while at < end and text[at] > _SPACE and text[at] not in (_COMMA, _CLOSE):
            at += 1
        return at, False
    depth, nested = 0, False
    while at < end:
        byte = text[at]
        if byte == _QUOTE:
            at = _string_end(text, at, end)
            continue
        nested |= byte == _OPEN
        depth += (byte in (_OPEN, _OPEN_LIST)) - (byte in (_CLOSE, _CLOSE_LIST))
        at += 1
        if depth == 0:
            break
    return at, nested


@inlined
def _write(text: Bytes, at: int, end: int, name: Bytes, length: int, found: Bytes, begin: int, size: int) -> int:
    """Behind a field and its value, written as Python's json does but for what is within the value; -1 if it cannot."""
    if size + length + end - at + 8 > len(found):
        return -1
    number = text[at] < _LETTERS and text[at] != _QUOTE
    if size == begin:
        found[size] = _OPEN
        size += 1
    else:
        found[size], found[size + 1] = _COMMA, _SPACE
        size += 2
    found[size] = _QUOTE
    size += 1
    for step in range(length):
        found[size + step] = name[step]
    size += length
    found[size], found[size + 1], found[size + 2] = _QUOTE, _COLON, _SPACE
    size += 3
    for step in range(at, end):
        if number and text[step] in (_EXPONENT, _CAPITAL_EXPONENT):
            return -1
        found[size] = text[step]
        size += 1
    return size
