"""How far a run is: counts that sources and transforms of this process keep for the progress bar."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Rows and bytes so far in this process; safe to add to from any thread.

    Attributes:
        total: bytes that the sources will read in all, 0 if not known.
        bytes: bytes read from storage, before decompression.
        rows: rows read.
        dead_letters: rows rejected.
    """

    total: int = 0
    bytes: int = 0
    rows: int = 0
    dead_letters: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, rows: int = 0, bytes: int = 0, dead_letters: int = 0, total: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            self.rows += rows
            self.bytes += bytes
            self.dead_letters += dead_letters
            self.total += total


#: The counts of this process.
PROGRESS = Progress()
