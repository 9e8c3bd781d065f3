"""Calls to a store that is sometimes away: connected when needed, tried again, and spared while it is down."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import tenacity
from circuitbreaker import CircuitBreaker

from fabric_beam.errors import FabricBeamError

T = TypeVar("T")


class Connectable(Protocol):
    """What a store has for `Calls`."""

    def connect(self, timeout: float) -> None: ...

    def transient(self, error: Exception) -> bool: ...

    def close(self) -> None: ...


class Unavailable(Exception):
    """A store did not answer.

    Attributes:
        attempts: how many times it was asked; 0 while it is spared.
    """

    def __init__(self, error: object, attempts: int) -> None:
        super().__init__(str(error))
        self.attempts = attempts


class Calls:
    """Calls a store, over one connection that is opened when it is needed.

    A call that fails for a reason that may pass is made again after random, growing pauses, for so many seconds.
    Afterwards the store is spared: it gets one trial at intervals, until that succeeds. For several threads.

    Args:
        store: what is called.
        timeout: seconds after which a call is given up.
        call_timeout: seconds that a single attempt may take.
        trial_after: seconds after which a store that did not answer is tried again.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    def __init__(self, store: Connectable, timeout: float, call_timeout: float, trial_after: float = 10) -> None:
        self._store = store
        self._timeout = timeout
        self._call_timeout = call_timeout
        self._connected = False
        self._lock = threading.Lock()
        self._breaker = CircuitBreaker(
            failure_threshold=1,
            recovery_timeout=trial_after,
            expected_exception=lambda _, error: self._may_pass(error),
        )

    def __call__(self, function: Callable[..., T], *arguments: Any) -> tuple[T, int]:
        """Call a method of the store.

        Returns:
            What it returned, and how many attempts that took.

        Raises:
            Unavailable: the store did not answer.
            Exception: whatever the store raised, if that will not pass.
        """
        state = self._breaker.state
        if state == "open":
            raise Unavailable(self._breaker.last_failure, 0)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._may_pass),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            stop=tenacity.stop_after_attempt(1) if state == "half_open" else tenacity.stop_after_delay(self._timeout),
            reraise=True,
        )
        try:
            with self._breaker:
                result = retrying(self._attempt, function, *arguments)
        except Exception as error:
            if self._may_pass(error):
                raise Unavailable(error, self._attempts(retrying)) from error
            raise
        return result, self._attempts(retrying)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            if self._connected:
                self._connected = False
                self._store.close()

    def _attempt(self, function: Callable[..., T], *arguments: Any) -> T:
        with self._lock:
            if not self._connected:
                self._store.connect(self._call_timeout)
                self._connected = True
        return function(*arguments)

    def _may_pass(self, error: BaseException) -> bool:
        return isinstance(error, Exception) and not isinstance(error, FabricBeamError) and self._store.transient(error)

    @staticmethod
    def _attempts(retrying: tenacity.Retrying) -> int:
        return int(retrying.statistics["attempt_number"])
