"""A store in memory, to look up in, and one for a second level."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.lookups.cache import LookupCache
from fabric_beam.lookups.lookup import Lookup
from fabric_beam.lookups.options import Cache
from fabric_beam.lookups.second_level import SecondLevel, SharedAnswers
from fabric_beam.schemes import LOOKUPS

KEYS = pl.Schema({"host": pl.String(), "port": pl.Int64()})
COLUMNS = pl.Schema({"value": pl.Int64()})


def endpoint() -> Endpoint:
    return Endpoint.parse("redis://ann:hunter2@memory/0", LOOKUPS)


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class MemoryLookup(Lookup):
    """A dict from keys to values that notes what it is asked, and fails when it is told to."""

    KEYS = 1_000

    def __init__(self, rows: dict[Any, int] | None = None) -> None:
        self.rows = dict(rows or {})
        self.asked: list[list[Any]] = []
        self.error: Exception | None = None
        self.connections = 0
        self.open = False
        self.gate = threading.Event()
        self.gate.set()

    def connect(self, timeout: float) -> None:
        self.connections += 1
        self.open = True

    def schema(self, keys: pl.Schema) -> pl.Schema:
        return COLUMNS

    def get(self, keys: pl.DataFrame, columns: pl.Schema) -> pl.DataFrame:
        assert self.open
        self.gate.wait()
        asked = keys.rows()
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        found = [(*key, self.rows[key]) for key in asked if key in self.rows]
        return pl.DataFrame(found, schema={**keys.schema, **COLUMNS}, orient="row").select(*keys.columns, *columns)

    def transient(self, error: Exception) -> bool:
        return isinstance(error, ConnectionError)

    def close(self) -> None:
        self.open = False


class MemoryLevel(SecondLevel):
    """A dict of texts, which fails when it is told to."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.lives: dict[str, int] = {}
        self.error: Exception | None = None

    def connect(self, timeout: float) -> None:
        if self.error is not None:
            raise self.error

    def get(self, names: Sequence[str]) -> list[str | None]:
        if self.error is not None:
            raise self.error
        return [self.texts.get(name) for name in names]

    def put(self, names: Sequence[str], texts: Sequence[str], milliseconds: Sequence[int]) -> None:
        if self.error is not None:
            raise self.error
        self.texts |= dict(zip(names, texts, strict=True))
        self.lives |= dict(zip(names, milliseconds, strict=True))

    def transient(self, error: Exception) -> bool:
        return isinstance(error, ConnectionError)


def keys(*rows: tuple[str | None, int | None]) -> pl.DataFrame:
    """Keys as a batch has them."""
    return pl.DataFrame(rows, schema=KEYS, orient="row")


def cache(lookup: Lookup, clock: Clock, level: MemoryLevel | None = None, **options: Any) -> LookupCache:
    """A cache over a store in memory."""
    shared = None if level is None else SharedAnswers(level, endpoint(), "memory", KEYS, COLUMNS, 1.0)
    return LookupCache(lookup, endpoint(), KEYS, COLUMNS, Cache(**options), shared, clock)


def values(found: Any) -> list[int | None]:
    """The values of answers."""
    return list(found.rows["value"])
