"""JSON objects taken apart by a compiled loop: a column of text for each field of a schema, and the other fields."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fabric_beam.memory import empty
from fabric_beam.views import Bytes, Mask, Positions, Text, Words, compiled, inlined, padded, pieces, put_view
from transforms.formats import json_text
from transforms.formats.json_text import (
    BACKSLASH,
    CLOSE,
    COLON,
    COMMA,
    DOT,
    EXPONENT,
    INTEGER,
    OPEN,
    QUOTE,
    SHORTEST,
    SPACE,
    skip,
)

#: More objects inside of one another, bytes of a name, or fields without a column are left to others.
_DEPTH, _NAME, _FIELDS = 32, 4096, 256
_PRIME, _BASIS = np.uint64(0x100000001B3), np.uint64(0xCBF29CE484222325)
#: What a column's type takes of numbers as they are written: all kinds up to one.
_TEXT_KINDS, _INTEGER_KINDS, _FLOAT_KINDS = SHORTEST, INTEGER, EXPONENT
_NULL = ord("n")
#: Where a number may begin are bytes below, where an object, an array or a literal does, above.
_LETTERS = ord("A")
_LEFT = -1

Numbers = npt.NDArray[np.int32]


class Fields(NamedTuple):
    """What lines hold.

    Attributes:
        columns: the text of each field of the schema, in its order; null where a line has none.
        others: the other fields, as a JSON object of flattened names, null where there is none.
        left: the numbers of the lines of which nothing is said: they may be wrong, or unusual.
    """

    columns: list[pl.Series]
    others: pl.Series
    left: pl.Series


class JsonFields:
    r"""Take lines of JSON objects apart, as far as that is certain.

    Strings are what they stand for, other values as they are written. Left to others are lines that are no objects, and
    what is unusual: escapes in a key, twice the same key, half a surrogate pair, an integer with a fraction.

    Args:
        schema: the fields' types, by their flattened names.

    Example:
        >>> lines = pl.Series(['{"level": "info", "http": {"path": "\/", "size": null}}', "[1]"])
        >>> columns, others, left = JsonFields(pl.Schema({"level": pl.String, "http.path": pl.String}))(lines)
        >>> columns[1].to_list(), others.to_list(), left.to_list()
        (['/', None], [None, None], [1])
    """

    def __init__(self, schema: pl.Schema) -> None:
        texts = [name.encode() for name in schema]
        self._names = np.frombuffer(bytearray(b"".join(texts) + b"\0"), np.uint8)
        self._ends = np.cumsum([0, *(len(text) for text in texts)], dtype=np.int64)
        kinds = [
            _INTEGER_KINDS if kind.is_integer() else _FLOAT_KINDS if kind.is_float() else _TEXT_KINDS
            for kind in schema.values()
        ]
        self._kinds = np.array([*kinds, 0], np.int64)
        self._slots = np.zeros(4 << len(texts).bit_length(), np.int32)
        for number, text in enumerate(texts, 1):
            hash = int(_BASIS)
            for byte in text:
                hash = (hash ^ byte) * int(_PRIME) & 0xFFFFFFFFFFFFFFFF
            slot = (hash ^ hash >> 32) % len(self._slots)
            while self._slots[slot]:
                slot = (slot + 1) % len(self._slots)
            self._slots[slot] = number

    def __call__(self, lines: pl.Series) -> Fields:
        """Take lines apart.

        Args:
            lines: text without nulls.
        """
        text, starts, lengths = pieces(lines)
        count, width = len(lines), len(self._ends) - 1
        unescaped = np.empty(0, np.uint8)
        if (text.bytes == BACKSLASH).any():
            # What escapes stand for is written over them: in a copy, in which no two lines share their bytes.
            flat = lines.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
            offsets = np.frombuffer(flat.buffers()[1], np.int64)[flat.offset : flat.offset + count + 1]
            starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
            words = padded(offsets[-1] - offsets[0])
            unescaped = words.view(np.uint8)
            unescaped[: offsets[-1] - offsets[0]] = np.frombuffer(flat.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
            text = Text(pa.py_buffer(words))
        taken = text.bytes.view()
        taken.flags.writeable = False
        found = empty(2 * int(lengths.sum()) + 64, np.uint8)
        ends = np.zeros(count + 1, np.int64)
        views, valid = empty((width * count, 2), np.uint64), np.zeros(width * count, np.bool_)
        # Views of nulls are looked at, too.
        views.fill(0)
        left = np.zeros(count, np.bool_)
        _take_all(
            taken,
            unescaped,
            starts,
            lengths,
            self._names,
            self._ends,
            self._kinds,
            self._slots,
            np.empty(_NAME, np.uint8),
            np.empty(_FIELDS, np.uint64),
            np.empty((_DEPTH, 2), np.uint64),
            views,
            valid,
            found,
            ends,
            left,
        )
        parts = [slice(column * count, (column + 1) * count) for column in range(width)]
        bitmap = pa.py_buffer(np.packbits(np.diff(ends) > 0, bitorder="little"))
        buffers = [bitmap, pa.py_buffer(ends), pa.py_buffer(found[: ends[-1]].copy())]
        others = pl.from_arrow(pa.Array.from_buffers(pa.large_string(), count, buffers))
        assert isinstance(others, pl.Series)
        return Fields([text.column(views[part], valid[part]) for part in parts], others, pl.Series(left).arg_true())


@compiled
def _take_all(
    text: Bytes,
    unescaped: Bytes,
    starts: Positions,
    lengths: Positions,
    names: Bytes,
    name_ends: Positions,
    kinds: Positions,
    slots: Numbers,
    name: Bytes,
    seen: Words,
    prefixes: Words,
    views: Words,
    valid: Mask,
    found: Bytes,
    ends: Positions,
    left: Mask,
) -> None:
    """Take lines apart.

    Args:
        text: what the lines lie in, with zeros behind.
        unescaped: the same, to be written to where there are escapes; may be empty if there are none.
        starts: each line's first byte.
        lengths: each line's length.
        names: the columns' names, one behind the other.
        name_ends: where each ends, behind a zero.
        kinds: the kinds of numbers that each column takes.
        slots: hash table with open addressing, of columns' numbers from 1 on.
        name: room for a field's flattened name.
        seen: room for the hashes of a line's fields without a column.
        prefixes: room for each object's length and hash of what comes before its keys.
        views: filled with the columns' views, one column behind the other.
        valid: set where a column has a value.
        found: filled with the other fields of each line.
        ends: filled with where those of each line end, behind a zero.
        left: set for lines of which nothing is said.
    """
    count = len(starts)
    for line in range(count):
        start, end = starts[line], starts[line] + lengths[line]
        size = _take(
            text, unescaped, start, end, names, name_ends, kinds, slots, name, seen, prefixes, views, valid, found,
            ends[line], line, count,
        )  # fmt: skip
        if size == _LEFT:
            left[line] = True
            size = ends[line]
            for column in range(len(name_ends) - 1):
                valid[column * count + line] = False
        ends[line + 1] = size


@compiled
def _take(  # noqa: PLR0911, PLR0912, PLR0915 - one pass over a line's bytes, from left to right
    text: Bytes,
    unescaped: Bytes,
    at: int,
    end: int,
    names: Bytes,
    name_ends: Positions,
    kinds: Positions,
    slots: Numbers,
    name: Bytes,
    seen: Words,
    prefixes: Words,
    views: Words,
    valid: Mask,
    found: Bytes,
    size: int,
    line: int,
    count: int,
) -> int:
    """Where the other fields of a line end in `found`; -1 if the line is left to others."""
    begin, others, depth, prefix, prefix_hash = size, 0, 0, 0, _BASIS
    at = skip(text, at, end)
    if at >= end or text[at] != OPEN:
        return _LEFT
    at = skip(text, at + 1, end)
    more = text[at] != CLOSE
    while at < end:
        if not more:
            at = skip(text, at, end)
            if at >= end:
                return _LEFT
            if text[at] == CLOSE:
                at += 1
                depth -= 1
                if depth < 0:
                    break
                prefix, prefix_hash = int(np.int64(prefixes[depth, 0])), prefixes[depth, 1]
                continue
            if text[at] != COMMA:
                return _LEFT
            at = skip(text, at + 1, end)
        if text[at] != QUOTE:
            return _LEFT
        key = at + 1
        at, escaped = json_text.string(text, key, end)
        if at < 0 or escaped or prefix + at - key >= len(name):
            return _LEFT
        hash = prefix_hash
        for step in range(at - key):
            name[prefix + step] = text[key + step]
            hash = (hash ^ np.uint64(text[key + step])) * _PRIME
        stop = prefix + at - key
        at = skip(text, at + 1, end)
        if at >= end or text[at] != COLON:
            return _LEFT
        at = skip(text, at + 1, end)
        if at >= end:
            return _LEFT
        byte, start = text[at], at
        column = _column(name, stop, hash, names, name_ends, slots)
        more = False
        if byte == _NULL:
            at = json_text.literal(text, at, end)
            if at < 0:
                return _LEFT
        elif column:
            row = (column - 1) * count + line
            if valid[row]:
                return _LEFT
            if byte == QUOTE:
                start += 1
                at, escaped = json_text.string(text, start, end)
                if at < 0:
                    return _LEFT
                after = json_text.unescape(unescaped, start, at) if escaped else at
                put_view(text, views, row, start, after - start)
                at += 1
            else:
                at, kind = _plain(text, at, end)
                if at < 0 or kind > kinds[column - 1]:
                    return _LEFT
                put_view(text, views, row, start, at - start)
            valid[row] = True
        elif byte == OPEN:
            at = skip(text, at + 1, end)
            if at < end and text[at] == CLOSE:
                at += 1
                continue
            if depth == len(prefixes):
                return _LEFT
            prefixes[depth, 0], prefixes[depth, 1] = np.uint64(prefix), prefix_hash
            depth += 1
            name[stop] = DOT
            prefix, prefix_hash, more = stop + 1, (hash ^ np.uint64(DOT)) * _PRIME, True
        else:
            at = json_text.value(text, at, end)
            if at < 0 or others == len(seen) or size + stop + at - start + 8 > len(found):
                return _LEFT
            for other in range(others):
                if seen[other] == hash:
                    return _LEFT
            seen[others] = hash
            others += 1
            size = _write(text, start, at, name, stop, found, size, size == begin)
    if skip(text, at, end) != end or depth >= 0:
        return _LEFT
    if others:
        found[size] = CLOSE
        size += 1
    return size


@inlined
def _column(name: Bytes, length: int, hash: Any, names: Bytes, ends: Positions, slots: Numbers) -> Any:
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
def _plain(text: Bytes, at: int, end: int) -> tuple[int, int]:
    """Behind a value that is no string, and the kind of number that it is, if it is one."""
    if text[at] >= _LETTERS:
        return json_text.value(text, at, end), INTEGER
    return json_text.number(text, at, end)


@inlined
def _write(text: Bytes, at: int, end: int, name: Bytes, length: int, found: Bytes, size: int, first: bool) -> int:
    """Behind a field, written as Python's json does but for what is within its value."""
    if first:
        found[size] = OPEN
        size += 1
    else:
        found[size], found[size + 1] = COMMA, SPACE
        size += 2
    found[size] = QUOTE
    size += 1
    for step in range(length):
        found[size + step] = name[step]
    size += length
    found[size], found[size + 1], found[size + 2] = QUOTE, COLON, SPACE
    size += 3
    for step in range(end - at):
        found[size + step] = text[at + step]
    return size + end - at
