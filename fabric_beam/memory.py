"""How the C library's allocator treats the buffers that batches are made of."""

from __future__ import annotations

import ctypes
from functools import cache

# Source: mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = 1 << 30


@cache
def keep_freed_buffers() -> None:
    """Keep freed memory for the next batch instead of giving it back to the system; does nothing without glibc.

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
