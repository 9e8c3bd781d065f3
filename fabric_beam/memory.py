"""The memory that batches are made of: kept for the next batch instead of given back to the system."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# Source: mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = 1 << 30


@cache
def keep_freed_buffers() -> None:
    """Have the C library's allocator keep what is freed; does nothing without glibc.

    Batch after batch needs buffers of the same few megabytes. Returned to the system and asked for again, every page of
    them is cleared anew, which took a third of the CPU time of parsing. The peak is the same; it is given back when the
    process ends.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_TRIM_THRESHOLD, _KEEP)
    mallopt(_M_MMAP_THRESHOLD, _KEEP)


def empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array for as many values, whatever they are: `numpy.empty` in Arrow's memory.

    For what is a block's size: the C library's arenas of threads give back pieces of 64 MiB as soon as they are free.

    Example:
        >>> empty((2, 3), np.int32).shape
        (2, 3)
    """
    buffer = pa.allocate_buffer(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(buffer, dtype).reshape(shape)
