"""What Fabric Beam raises: each error says what was wrong, where, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FabricBeamError(Exception):
    """Base of every error that is meant for the person running a pipeline; shown without a traceback."""


class UsageError(FabricBeamError):
    """An option, URL, expression, contract or column was given wrongly: the run never starts (exit code 2)."""


class SchemaError(UsageError):
    """A transform does not fit the columns that reach it."""


class InputError(FabricBeamError):
    """An input cannot be read: missing, unreadable, truncated or not what it is said to be (exit code 1)."""


class OutputError(FabricBeamError):
    """An output cannot be written (exit code 1)."""


class RejectedRowsError(FabricBeamError):
    """A transform rejected rows and was given no error handler to send them to (exit code 1)."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f'{feature} needs an extra that is not installed: pip install "fabric-beam[{extra}]"')


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Say what is known and which of it is most like a wrong name.

    Args:
        wrong: the name that was given.
        known: the names that exist.

    Returns:
        A sentence to put at the end of an error message.

    Example:
        >>> nearest("sevrity_text", ["body", "severity_text"])
        "Did you mean 'severity_text'? Known: body, severity_text."
    """
    names = sorted(known)
    listed = f"Known: {', '.join(names)}." if names else "There are none."
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(wrong.lower(), lower, n=1, cutoff=0.5)
    return f"Did you mean {lower[close[0]]!r}? {listed}" if close else listed
