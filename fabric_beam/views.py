"""Text columns that point into one buffer: how lines and fields are cut out of a file's block without copying it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]

#: A view of at most this many bytes holds its text itself (Arrow columnar format, variable-size binary view layout).
_INLINE = 12
#: For a text of 0 to 12 bytes: which bytes of each of the view's three words belong to it.
_MASKS = np.array(
    [[(1 << 8 * min(max(length - 4 * word, 0), 4)) - 1 for word in range(3)] for length in range(_INLINE + 1)],
    dtype=np.uint32,
)


def cut(buffer: pa.Buffer, starts: Positions, lengths: Positions, valid: npt.NDArray[np.bool_] | None = None) -> pl.Series:
    """Make a String column of pieces of a buffer, without copying them.

    Args:
        buffer: valid UTF-8; every piece must begin and end between characters.
        starts: each piece's first byte in the buffer.
        lengths: each piece's length in bytes.
        valid: false where the value is null; None if none is.

    Returns:
        One string per piece.

    Example:
        >>> cut(pa.py_buffer(b"GET /index"), np.array([0, 4]), np.array([3, 6])).to_list()
        ['GET', '/index']

    Source: https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout
    """
    rows = len(starts)
    views = np.empty((rows, 4), np.uint32)
    views[:, 0] = lengths
    short = lengths <= _INLINE
    if short.all():
        views[:, 1:] = _words(buffer, starts, 3) & _MASKS[lengths]
    else:
        views[:, 1] = _words(buffer, starts, 1)[:, 0]
        views[:, 2] = 0
        views[:, 3] = starts
        if short.any():
            at = np.flatnonzero(short)
            views[at, 1:] = _words(buffer, starts[at], 3) & _MASKS[lengths[at]]
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    series = pl.from_arrow(_view_array(rows, bitmap, pa.py_buffer(views), buffer))
    assert isinstance(series, pl.Series)
    return series


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


def _view_array(rows: int, bitmap: pa.Buffer | None, views: pa.Buffer, data: pa.Buffer) -> pa.Array:
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


def _words(buffer: pa.Buffer, starts: Positions, count: int) -> npt.NDArray[np.uint32]:
    """The little-endian 32-bit words at each start; bytes past the end of the buffer read as zero."""
    size = buffer.size
    words = np.empty((len(starts), count), np.uint32)
    if size < 4 * count:
        buffer, size = pa.py_buffer(bytes(buffer) + bytes(4 * count)), size + 4 * count
    inside = np.minimum(starts, size - 4 * count)
    for word in range(count):
        words[:, word] = unaligned(buffer, np.uint32, 4 * word)[inside]
    for row in np.flatnonzero(inside != starts):
        tail = bytes(buffer[int(starts[row]) :]).ljust(4 * count, b"\0")[: 4 * count]
        words[row] = np.frombuffer(tail, "<u4")
    return words


def unaligned(buffer: pa.Buffer, dtype: Any, shift: int = 0) -> npt.NDArray[Any]:
    """A buffer as the integers that begin at each of its bytes, `shift` bytes on."""
    itemsize = np.dtype(dtype).itemsize
    return np.ndarray((max(buffer.size - itemsize - shift + 1, 0),), dtype, buffer, shift, (1,))


def pieces(column: pl.Series) -> tuple[pa.Buffer, Positions, Positions]:
    """Where a String column's bytes lie: the inverse of `cut`.

    Args:
        column: strings without nulls.

    Returns:
        One buffer, and each string's start and length in it. Nothing is copied where the strings already lie in order
        in one buffer, as the lines of a file do.

    Example:
        >>> buffer, starts, lengths = pieces(pl.Series(["a line that is long enough", "b"]))
        >>> [bytes(buffer)[s : s + n] for s, n in zip(starts, lengths)]
        [b'a line that is long enough', b'b']
    """
    array = column.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    buffers = array.buffers()
    if len(buffers) == 3:
        views = np.frombuffer(buffers[1], np.uint32).reshape(-1, 4)[array.offset : array.offset + len(array)]
        if (views[:, 0] > _INLINE).all() and not views[:, 2].any():
            return buffers[2], views[:, 3].astype(np.int64), views[:, 0].astype(np.int64)
    flat = column.to_arrow(compat_level=pl.CompatLevel.oldest())
    offsets = np.frombuffer(flat.buffers()[1], np.int64)[flat.offset : flat.offset + len(flat) + 1]
    return flat.buffers()[2], offsets[:-1].copy(), np.diff(offsets)


def positions(data: Bytes, byte: int) -> Positions:
    """Where a byte occurs, in order.

    Looks at eight bytes at a time first: numpy's `flatnonzero` costs a nanosecond a byte, and most bytes are others.

    Example:
        >>> positions(np.frombuffer(b"a b c", np.uint8), ord(" ")).tolist()
        [1, 3]
    """
    whole = len(data) // 8 * 8
    hits = data[:whole] == byte
    words = np.flatnonzero(hits.view(np.uint64))
    inside = np.flatnonzero(hits.reshape(-1, 8)[words])
    found = (words[inside >> 3] << 3) + (inside & 7)
    tail = np.flatnonzero(data[whole:] == byte)
    return np.concatenate([found, tail + whole]) if len(tail) else found
