"""What the options of URLs are: functions for `Endpoint.option`, named as the value that they expect.

Each takes the option's text, returns its value, and raises ValueError if it is not of the kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

#: The most seconds that stores take as a time to live: 20 years, Cassandra's limit.
_LONGEST_TTL = 630_720_000


def boolean(text: str) -> bool:
    """`true` or `false`."""
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def whole(text: str) -> int:
    """A whole number above zero."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(text)
    return int(text)


def seconds_to_live(text: str) -> int:
    """Whole seconds, at most 20 years."""
    if not 0 < int(text) <= _LONGEST_TTL:
        raise ValueError(text)
    return int(text)


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A finite number of a kind, int or float, above zero."""

    def positive(text: str) -> Any:
        value = kind(text)
        if not 0 < value < math.inf:
            raise ValueError(text)
        return value

    positive.__name__ = f"a positive {kind.__name__}"
    return positive


def one_of(*words: str) -> Callable[[str], str]:
    """One of some words."""

    def one_of(word: str) -> str:
        if word not in words:
            raise ValueError(word)
        return word

    one_of.__name__ = f"one of {', '.join(words)}"
    return one_of


boolean.__name__ = "true or false"
whole.__name__ = "a whole number above zero"
seconds_to_live.__name__ = f"a number of seconds from 1 to {_LONGEST_TTL}"
