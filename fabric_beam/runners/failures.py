"""Errors on their way from a worker to the client: their types, messages and causes, and where they were raised."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import re
import traceback
from typing import Any

import cloudpickle

from fabric_beam.errors import FabricBeamError, UsageError


class WorkerError(Exception):
    """Stands for an error that cannot be sent as it is; its message begins with the name of the error's class."""


def pack(error: BaseException) -> bytes:
    """Pack an error with its causes.

    Args:
        error: what was raised.

    Returns:
        Bytes for `unpack`.
    """
    chain: list[bytes] = []
    seen: BaseException | None = error
    while seen is not None and len(chain) < 20:
        chain.append(_pickled(seen))
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return pickle.dumps((chain, "".join(traceback.format_exception(error))))


def unpack(packed: bytes) -> BaseException:
    """Make the error again that `pack` took, with its causes, and a note of where it was raised.

    Args:
        packed: what `pack` returned.

    Example:
        >>> unpack(pack(ValueError("no")))
        ValueError('no')
    """
    chain, where = pickle.loads(packed)
    errors = [_unpickled(one) for one in chain]
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause
    errors[0].add_note(f"Raised in a worker:\n{where.rstrip()}")
    return errors[0]


def ours(error: BaseException) -> FabricBeamError | None:
    """The error of ours among an error and its causes, or one that says what a known one of others means."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, FabricBeamError):
            return seen
        # Beam makes another error of one without a message.
        if isinstance(seen, MemoryError) or str(seen).startswith("MemoryError"):
            running = re.search(r"while running '[^']+'", str(error))
            return FabricBeamError(
                f"A worker had no memory left{f' {running[0]}' if running else ''}. Fewer workers at a time "
                "(--parallelism on Flink, --spark_master local[1] or spark.executor.cores on Spark) or smaller batches "
                "take less; where workers have a limit (spark.executor.pyspark.memory), a higher one gives them more."
            )
        if (function := _not_pickled(seen)) is not None:
            name = re.sub(r" at 0x\w+", "", repr(function))[:200]
            return UsageError(
                f"{name} cannot be sent to workers: {seen}. What it cannot take along, such as locks, open files and "
                "connections, has to be made in its setup()."
            )
        seen = seen.__cause__ or seen.__context__
    return None


def _not_pickled(error: BaseException) -> Any:
    """What Beam was about to pickle when an error was raised: Beam does not name it."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "dumps" and frame.f_globals["__name__"].startswith("apache_beam.internal"):
            pickled = frame.f_locals["o"]
            # A transform is pickled as its function and the arguments of that.
            return pickled[0] if isinstance(pickled, tuple) else pickled
    return None


def _pickled(error: BaseException) -> bytes:
    for candidate in (error, WorkerError(f"{type(error).__name__}: {error}")):
        with contextlib.suppress(Exception):
            pickled = cloudpickle.dumps(candidate)
            # Some errors can be pickled but not made again.
            pickle.loads(pickled)
            return bytes(pickled)
    return bytes(cloudpickle.dumps(WorkerError(type(error).__name__)))


def _unpickled(pickled: bytes) -> BaseException:
    try:
        error = pickle.loads(pickled)
    except Exception as problem:
        return WorkerError(f"an error of the worker that cannot be read here: {problem}")
    return error if isinstance(error, BaseException) else WorkerError(str(error))
