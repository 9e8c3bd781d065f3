"""Errors on their way from a worker to the client: their types, messages and causes, and where they were raised."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import traceback

import cloudpickle

from fabric_beam.errors import FabricBeamError


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
    """The error of ours among an error and its causes, if there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, FabricBeamError):
            return seen
        seen = seen.__cause__ or seen.__context__
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
