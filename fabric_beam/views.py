"""Text columns that point into one buffer: how lines and fields are cut out of a file's block without copying it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

#: A view of at most this many bytes holds its text itself.
_INLINE = 12
#: For 0 to 8 bytes: a word with all the bits of that many low bytes set.
LOW_BYTES: Words = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
_ONES, _HIGH_BITS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)


class Text:
    """A block of text, read eight bytes at a time at any place, and cut into columns without copying.

    Args:
        buffer: valid UTF-8; not copied if it is `padded`.

    Example:
        >>> text = Text(pa.py_buffer(b"GET /index"))
        >>> text.cut(np.array([0, 4]), np.array([3, 6])).to_list()
        ['GET', '/index']
        >>> text.positions(" ").tolist()
        [3]
    """

    def __init__(self, buffer: pa.Buffer) -> None:
        self._buffer = buffer
        if buffer.size >= 16 and not (buffer.size | buffer.address) & 7 and bytes(buffer[-16:]) == bytes(16):
            self._words = np.frombuffer(buffer, np.uint64)
        else:
            self._words = padded(buffer.size)
            self._words.view(np.uint8)[: buffer.size] = np.frombuffer(buffer, np.uint8)
        self.bytes = self._words.view(np.uint8)

    def load(self, at: Positions) -> Words:
        """The eight bytes at each place, the first in the lowest bits; zeros past the end."""
        index = at >> 3
        shift = ((at & 7) << 3).astype(np.uint64)
        high = self._words[index + 1]
        high <<= np.uint64(1)
        high <<= np.uint64(63) - shift
        low = self._words[index]
        low >>= shift
        low |= high
        return low  # type: ignore[no-any-return]

    def positions(self, character: str) -> Positions:
        """Where an ASCII character occurs, in order.

        Looks at whole words first: numpy's `flatnonzero` costs a nanosecond a byte, and most bytes are others.
        """
        hits = (self.bytes == ord(character)).view(np.uint64)
        words = np.flatnonzero(hits != 0)
        inside = np.flatnonzero(hits[words].view(np.bool_))
        found = words[inside >> 3]
        found <<= 3
        found += inside & 7
        return found  # type: ignore[no-any-return]

    def cut(self, starts: Positions, lengths: Positions, valid: Mask | None = None) -> pl.Series:
        """Make a String column of pieces of the text.

        Args:
            starts: each piece's first byte.
            lengths: each piece's length in bytes; pieces must begin and end between characters.
            valid: false where the value is null; None if none is.

        Returns:
            One string per piece.

        Source: https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout
        """
        views = np.empty((len(starts), 2), np.uint64)
        size = lengths.astype(np.uint64)
        head = self.load(starts)
        short = lengths <= _INLINE
        if short.any():
            at = slice(None) if short.all() else np.flatnonzero(short)
            head[at] &= LOW_BYTES[np.minimum(lengths[at], 8)]
        views[:, 0] = size | (head << np.uint64(32))
        views[:, 1] = starts.astype(np.uint64) << np.uint64(32)
        if short.any():
            tail = self.load(starts[at] + 8) & LOW_BYTES[np.maximum(lengths[at] - 8, 0)]
            views[at, 1] = (head[at] >> np.uint64(32)) | (tail << np.uint64(32))
        bitmap = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
        series = pl.from_arrow(_view_array(len(starts), bitmap, pa.py_buffer(views), self._buffer))
        assert isinstance(series, pl.Series)
        return series


def padded(size: int) -> Words:
    """Room for so many bytes of text, as words, and at least two words of zeros: every place can be read as a word."""
    words = np.empty(size // 8 + 3, np.uint64)
    words[size // 8 :] = 0
    return words


def pieces(column: pl.Series) -> tuple[Text, Positions, Positions]:
    """Where a String column's bytes lie: the inverse of `Text.cut`.

    Args:
        column: strings without nulls.

    Returns:
        The text, and each string's start and length in it. The strings are not copied into it where they already lie in
        one buffer, as the lines of a file's block do.

    Example:
        >>> text, starts, lengths = pieces(pl.Series(["a line that is long enough", "b"]))
        >>> [bytes(text.bytes[start : start + length]) for start, length in zip(starts, lengths)]
        [b'a line that is long enough', b'b']
    """
    array = column.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    buffers = array.buffers()
    if len(buffers) == 3:
        views = np.frombuffer(buffers[1], np.uint32).reshape(-1, 4)[array.offset : array.offset + len(array)]
        if (views[:, 0] > _INLINE).all() and not views[:, 2].any():
            return Text(buffers[2]), views[:, 3].astype(np.int64), views[:, 0].astype(np.int64)
    flat = column.to_arrow(compat_level=pl.CompatLevel.oldest())
    offsets = np.frombuffer(flat.buffers()[1], np.int64)[flat.offset : flat.offset + len(flat) + 1]
    return Text(flat.buffers()[2]), offsets[:-1].copy(), np.diff(offsets)


def first_byte(words: Words, character: str) -> Positions:
    """The place, 0 to 7, of the first byte of each word that is an ASCII character; 8 where none is.

    Source: Warren, Hacker's Delight, 2nd ed., section 6-1 (finding the first zero byte).

    Example:
        >>> first_byte(np.frombuffer(b"GET /abcno_space", np.uint64), " ").tolist()
        [3, 8]
    """
    differ = words ^ (_ONES * np.uint64(ord(character)))
    zero = (differ - _ONES) & ~differ & _HIGH_BITS
    return (np.bitwise_count((zero - np.uint64(1)) & ~zero) >> 3).astype(np.int64)


def are_digits(words: Words, mask: int = 2**64 - 1) -> Mask:
    """Whether the bytes under a mask (0xFF for each that counts) are all ASCII digits.

    Example:
        >>> are_digits(np.frombuffer(b"12345678", np.uint64)).tolist()
        [True]
    """
    places = np.uint64(mask)
    threes = (words & places & np.uint64(0xF0F0F0F0F0F0F0F0)) == (places & np.uint64(0x3030303030303030))
    nines = ((words & np.uint64(0x0F0F0F0F0F0F0F0F)) + np.uint64(0x0606060606060606)) & places
    return threes & ((nines & np.uint64(0x1010101010101010)) == 0)  # type: ignore[no-any-return]


def eight_digits(words: Words) -> Positions:
    """The numbers that words of eight ASCII digits spell.

    Example:
        >>> eight_digits(np.frombuffer(b"00001234", np.uint64)).tolist()
        [1234]
    """
    words = words & np.uint64(0x0F0F0F0F0F0F0F0F)
    words = (words * np.uint64(10) + (words >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    words = (words * np.uint64(100) + (words >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    return ((words * np.uint64(10000) + (words >> np.uint64(32))) & np.uint64(0xFFFFFFFF)).astype(np.int64)


class _ArrowArray(ctypes.Structure):
    """Source: https://arrow.apache.org/docs/format/CDataInterface.html#structure-definitions"""

    _fields_ = (
        ("length", ctypes.c_int64),
        ("null_count", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("buffers", ctypes.POINTER(ctypes.c_void_p)),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


def _view_array(rows: int, bitmap: pa.Buffer | None, views: pa.Buffer, data: pa.Buffer) -> Any:
    """A string_view array over buffers, which `pa.Array.from_buffers` does not make in pyarrow 16.

    An array of another type lends its ownership of the same buffers; only the description handed over is a view's.
    """
    owner = pa.Array.from_buffers(pa.large_binary(), 0, [bitmap, views, data])
    struct = _ArrowArray()
    owner._export_to_c(ctypes.addressof(struct))
    sizes = ctypes.c_int64(data.size)
    struct.length = rows
    struct.null_count = -1 if bitmap else 0
    struct.n_buffers = 4
    struct.buffers = (ctypes.c_void_p * 4)(
        bitmap.address if bitmap else None, views.address, data.address, ctypes.addressof(sizes)
    )
    return pa.Array._import_from_c(ctypes.addressof(struct), pa.string_view())
