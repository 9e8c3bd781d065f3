"""Ctrl-C that comes through, and never within an import."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

_SECONDS = 0.1


class Interrupts:
    """Within its block an interrupt (SIGINT) is raised as KeyboardInterrupt, again and again until it leaves the block.

    Python raises it wherever it happens to be, once. In a callback, a library's C code may lose it. Within an import it
    may be taken for a missing module, or leave the lock of all imports held, for which other threads then wait for
    ever (seen with Python 3.11): there it waits until the import is over.

    While one is on its way, repeats leave alone what cleans up; who presses again interrupts that, too. Where
    interrupts are ignored or handled by somebody else, they still are.

    Example:
        >>> try:
        ...     with Interrupts():
        ...         signal.raise_signal(signal.SIGINT)
        ... except KeyboardInterrupt:
        ...     print("interrupted")
        interrupted
    """

    def __enter__(self) -> None:
        """Begin, in the main thread."""
        self._caller = sys._getframe(1)
        self._lock = threading.Lock()
        self._over = self._repeated = False
        self._handles = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._handles:
            signal.signal(signal.SIGINT, self._interrupt)

    def __exit__(self, *exception: object) -> None:
        """From now on an interrupt is raised once, as Python does."""
        with self._lock:
            self._over = True
        if self._handles:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        repeated, self._repeated = self._repeated, False
        again = threading.Timer(_SECONDS, self._repeat)
        again.daemon = True
        again.start()
        if not self._importing(frame) and not (repeated and _on_its_way()):
            raise KeyboardInterrupt

    def _importing(self, frame: FrameType | None) -> bool:
        while frame is not None and frame is not self._caller:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                return True
            frame = frame.f_back
        return False

    def _repeat(self) -> None:
        with self._lock:
            if not self._over:
                self._repeated = True
                main = threading.main_thread().ident
                assert main is not None
                signal.pthread_kill(main, signal.SIGINT)


def _on_its_way() -> bool:
    """Whether the main thread is in an `except` or `finally` of an interrupt."""
    handled = sys.exc_info()[1]
    while handled is not None and not isinstance(handled, KeyboardInterrupt):
        handled = handled.__context__
    return handled is not None
