"""Text columns that point into one buffer: how lines and fields are cut out of a file's block without copying it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fabric_beam.memory import empty
from fabric_beam.simd import WIDTH

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
F = TypeVar("F", bound=Callable[..., Any])

#: A view of at most this many bytes holds its text itself.
INLINE = 12
_LOW = np.uint64(0xFFFFFFFF)
#: For each size, what of the first sixteen bytes a view holds; of a longer text the first four.
_KEPT = np.array([[(1 << 8 * min(n, 8)) - 1, (1 << 8 * max(n - 8, 0)) - 1] for n in range(INLINE + 2)], np.uint64)


def compiled(function: F) -> F:
    """Compile a loop over numpy arrays to machine code that runs without Python's lock.

    The code is kept beside the source (or in the user's cache folder) for later processes. Indexes are not checked:
    they must be right. The loop can make no arrays, only fill those that it is given: who holds an array is not counted
    in it, which numba would do anew for each inlined call, under a lock, at a quarter of the cost of cutting a line.
    """
    return _compile(function)


def inlined(function: F) -> F:
    """Compile a small function into the loops that call it: a call would cost as much as its work."""
    return _compile(function, forceinline=True)


def _compile(function: F, *, forceinline: bool = False) -> F:
    compile = partial(numba.njit, nogil=True, error_model="numpy", forceinline=forceinline, _nrt=False)
    try:
        return cast(F, compile(cache=True)(function))
    except RuntimeError:
        # There is nowhere to keep the code, as in a container without a home that may only be read.
        return cast(F, compile()(function))


class Text:
    """A block of text, read eight or 64 bytes at a time at any place, and cut into columns without copying.

    Args:
        buffer: valid UTF-8; not copied if it is `padded`.

    Attributes:
        bytes: the text, with 64 bytes of zeros or more behind it.

    Example:
        >>> text = Text(pa.py_buffer(b"GET /index"))
        >>> text.cut(np.array([0, 4]), np.array([3, 6])).to_list()
        ['GET', '/index']
    """

    def __init__(self, buffer: pa.Buffer) -> None:
        self._buffer = buffer
        if not (buffer.size | buffer.address) & 7 and bytes(buffer[-WIDTH:]) == bytes(WIDTH):
            self.bytes = np.frombuffer(buffer, np.uint8)
        else:
            self.bytes = padded(buffer.size).view(np.uint8)
            self.bytes[: buffer.size] = np.frombuffer(buffer, np.uint8)

    def cut(self, starts: Positions, lengths: Positions) -> pl.Series:
        """Make a String column of pieces of the text.

        Args:
            starts: each piece's first byte.
            lengths: each piece's length in bytes; pieces must begin and end between characters.

        Returns:
            One string per piece.
        """
        views = empty((len(starts), 2), np.uint64)
        _put_views(self.bytes, views, starts, lengths)
        return self.column(views)

    def column(self, views: Words, valid: Mask | None = None) -> pl.Series:
        """Make a String column of views.

        Args:
            views: two words for each value, as `put_view` makes them of this text.
            valid: false where the value is null; None if none is.

        Returns:
            One string per view.

        Source: https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout
        """
        if valid is not None and not valid.any():
            return pl.Series([None], dtype=pl.String).new_from_index(0, len(views))
        return _series(_view_array(len(views), _bitmap(valid), pa.py_buffer(views), self._buffer))


@inlined
def load(text: Bytes, at: Any) -> Any:
    """The eight bytes of a text from one place on, as a word with the first in the lowest bits.

    Indexes that have no sign are not counted from the end, so this becomes one instruction.
    """
    first = np.uint64(at)
    return (
        np.uint64(text[first])
        | np.uint64(text[first + np.uint64(1)]) << np.uint64(8)
        | np.uint64(text[first + np.uint64(2)]) << np.uint64(16)
        | np.uint64(text[first + np.uint64(3)]) << np.uint64(24)
        | np.uint64(text[first + np.uint64(4)]) << np.uint64(32)
        | np.uint64(text[first + np.uint64(5)]) << np.uint64(40)
        | np.uint64(text[first + np.uint64(6)]) << np.uint64(48)
        | np.uint64(text[first + np.uint64(7)]) << np.uint64(56)
    )


@inlined
def put_view(text: Bytes, views: Words, row: int, at: int, size: int) -> None:
    """Write the view of the `size` bytes from `at` on into a row of views."""
    # What varies from row to row is looked up, or both ways are worked out: a jump would be guessed wrong too often.
    known = min(size, INLINE + 1)
    head, tail = load(text, at) & _KEPT[known, 0], load(text, at + 8) & _KEPT[known, 1]
    inline, place = tail << np.uint64(32) | head >> np.uint64(32), np.uint64(at) << np.uint64(32)
    views[row, 0] = np.uint64(size) | head << np.uint64(32)
    views[row, 1] = inline if size <= INLINE else place


@compiled
def _put_views(text: Bytes, views: Words, starts: Positions, lengths: Positions) -> None:
    for row in range(len(starts)):
        put_view(text, views, row, starts[row], lengths[row])


def numbers(type: pa.DataType, values: npt.NDArray[Any], valid: Mask | None = None) -> pl.Series:
    """See an array of numbers as a column, without copying.

    Args:
        type: the column's Arrow type, as wide as the numbers.
        values: one after the other in memory; not to be changed any more.
        valid: false where the value is null; None if none is.

    Returns:
        One value per number.

    Example:
        >>> numbers(pa.int64(), np.array([1, 2]), np.array([True, False])).to_list()
        [1, None]
    """
    return _series(pa.Array.from_buffers(type, len(values), [_bitmap(valid), pa.py_buffer(values)]))


def _bitmap(valid: Mask | None) -> pa.Buffer | None:
    return None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _series(array: pa.Array) -> pl.Series:
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    return series


def padded(size: int) -> Words:
    """Room for so many bytes of text, as words, and at least 64 bytes of zeros: every place can be read from."""
    words = empty(size // 8 + 1 + WIDTH // 8, np.uint64)
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
        views = np.frombuffer(buffers[1], np.uint64).reshape(-1, 2)[array.offset : array.offset + len(array)]
        starts, lengths = (np.empty(len(array), np.int64) for _ in range(2))
        if _places(views, starts, lengths):
            return Text(buffers[2]), starts, lengths
    flat = column.to_arrow(compat_level=pl.CompatLevel.oldest())
    offsets = np.frombuffer(flat.buffers()[1], np.int64)[flat.offset : flat.offset + len(flat) + 1]
    return Text(flat.buffers()[2]), offsets[:-1].copy(), np.diff(offsets)


@compiled
def _places(views: Words, starts: Positions, lengths: Positions) -> bool:
    """Read where each view's text lies in the one buffer; false if one of them holds its text itself."""
    for row in range(len(views)):
        lengths[row] = np.int64(views[row, 0] & _LOW)
        starts[row] = np.int64(views[row, 1] >> np.uint64(32))
        if lengths[row] <= INLINE:
            return False
    return True


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
