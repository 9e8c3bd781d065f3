"""How `Enrich` remembers what it looked up in a store."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import UsageError, nearest

#: Before the names of options in a URL that are not the store's.
PREFIX = "fabric."
_WORDS = {"write": ("through", "behind"), "unavailable": ("reject", "miss")}


@dataclass(frozen=True)
class Cache:
    """How `Enrich` remembers what it looked up in a store, and what it does when the store is away.

    Each is also an option of the store's URL, such as `fabric.ttl=60`.

    Args:
        size: keys that one process remembers, at most; those least recently used are forgotten.
        ttl: seconds that a row is used for.
        negative_ttl: seconds for which a key that the store lacks is taken to be lacking.
        stale: seconds beyond these for which an answer is still used, while it is asked for again in the background; so
            long can the store be away unnoticed.
        refresh_ahead: the part of its time to live, from 0 to 1, in whose end a key that is used is asked for again in
            the background, so that nobody waits when it expires.
        timeout: seconds after which a request for keys is given up; a last attempt may take as long again.
        unavailable: what becomes of rows whose key could not be looked up: `reject` sends them to the dead letters by
            the rule `lookup`, `miss` treats them as if the store lacked the key.
        second: URL of a second level that processes and runs share, such as `redis://host/1`: it is read before the
            store, and filled with the store's answers.
        write: `through` fills the second level before the batch goes on, `behind` in the background.

    Raises:
        UsageError: a value is out of its range.

    Source: https://www.rfc-editor.org/rfc/rfc5861 (stale-while-revalidate), https://www.rfc-editor.org/rfc/rfc2308
    (negative caching)
    """

    size: int = 100_000
    ttl: float = 300.0
    negative_ttl: float = 30.0
    stale: float = 0.0
    refresh_ahead: float = 0.0
    timeout: float = 5.0
    unavailable: Literal["reject", "miss"] = "reject"
    second: str = ""
    write: Literal["through", "behind"] = "through"

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise UsageError(
                    f"Cache: {name}={getattr(self, name)!r} is unknown. {nearest(getattr(self, name), words)}"
                )
        for name, least, most in (
            ("size", 1, math.inf),
            ("ttl", 0, math.inf),
            ("negative_ttl", 0, math.inf),
            ("stale", 0, math.inf),
            ("refresh_ahead", 0, 1),
            ("timeout", 0.001, 86_400),
        ):
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"Cache: {name}={getattr(self, name)} is not from {least} to {most}.")

    def with_options(self, endpoint: Endpoint) -> Cache:
        """The same with what the URL says of it, taken out of its options."""
        given: dict[str, Any] = {}
        for field in fields(self):
            default = getattr(self, field.name)
            kind: Callable[[str], Any] = type(default)
            given[field.name] = endpoint.option(f"{PREFIX}{field.name}", kind, default)
        return replace(self, **given)
