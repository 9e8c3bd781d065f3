"""Lookups as a kernel uses them: made while the pipeline is built, one cache a worker process."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from fabric_beam.endpoints import Endpoint, load, masked
from fabric_beam.errors import FabricBeamError, InputError, SchemaError, UsageError, nearest
from fabric_beam.lookups.cache import Answers, LookupCache
from fabric_beam.lookups.lookup import Lookup, column_types
from fabric_beam.lookups.options import PREFIX, Cache
from fabric_beam.lookups.second_level import SecondLevel, SharedAnswers
from fabric_beam.schemes import LOOKUPS, SECOND_LEVELS

_MISS = f"{PREFIX}miss"
#: The caches of this process and how many users each has, by what names the lookup.
_CACHES: dict[str, tuple[LookupCache, int]] = {}
_LOCK = threading.Lock()


def names_store(table: object) -> bool:
    """Whether a table's name is the URL of a store.

    Example:
        >>> names_store("redis://host/0"), names_store("hosts.csv")
        (True, False)
    """
    return isinstance(table, str) and table.partition(":")[0] in LOOKUPS


def miss_of(table: object, otherwise: str) -> tuple[Any, str]:
    """What a table's name says of keys that it lacks, `fabric.miss`; it stays in a store's URL alone.

    Example:
        >>> miss_of("redis://host/0?key=user:{id}&fabric.miss=drop", "null")[1]
        'drop'
        >>> miss_of("hosts.csv?fabric.miss=drop", "null"), miss_of("hosts.csv", "null")
        (('hosts.csv', 'drop'), ('hosts.csv', 'null'))
    """
    if names_store(table):
        return table, Endpoint.parse(str(table), LOOKUPS).options.get(_MISS, otherwise)
    if isinstance(table, str):
        path, said, policy = table.partition(f"?{_MISS}=")
        return path, policy if said else otherwise
    return table, otherwise


class SharedLookup:
    """Looks up keys in a store; all copies of it in a process, and their threads, share one cache.

    Args:
        url: the store's; besides the store's own options it takes `fabric.columns`, `fabric.miss` and those of `Cache`.
        keys: the key columns, by the names they have in the store.
        columns: names to look up, or names and types; None for what the URL says, or all that the store has.
        options: how long what is remembered, where the URL does not say it.

    Attributes:
        name: the URL without secrets and options.
        columns: the columns that are looked up.

    Raises:
        UsageError: the URL, a key or a column is wrong.
        InputError: types are not given, and the store does not tell them.
    """

    def __init__(
        self,
        url: str,
        keys: pl.Schema,
        columns: Sequence[str] | Mapping[str, Any] | None = None,
        options: Cache | None = None,
    ) -> None:
        endpoint = Endpoint.parse(url, LOOKUPS)
        # `Enrich` has seen it.
        endpoint.options.pop(_MISS, None)
        asked = endpoint.option(f"{PREFIX}columns", column_types, None)
        self._options = (options or Cache()).with_options(endpoint)
        asking = "&".join(f"{name}={value}" for name, value in endpoint.options.items())
        self._source = masked(f"{endpoint.scheme}:{endpoint.path}?{asking}")
        self._keys = keys
        self._endpoint = endpoint
        self._lookup: Lookup = _made(load(LOOKUPS, endpoint.scheme), endpoint)
        self.name = endpoint.url
        self._lookup.check(keys)
        self.columns = self._schema(columns if columns is not None else asked)
        self._second: tuple[SecondLevel, Endpoint] | None = None
        if self._options.second:
            second = Endpoint.parse(self._options.second, SECOND_LEVELS)
            self._second = _made(load(SECOND_LEVELS, second.scheme), second), second
        #: A run starts with nothing remembered.
        self._token = uuid.uuid4().hex
        self._cache: LookupCache | None = None

    def find(self, keys: pl.DataFrame) -> Answers:
        """Look up keys: see `LookupCache.find`."""
        if self._cache is None:
            self._cache = _acquire(self._token, self._make)
        return self._cache.find(keys)

    def close(self) -> None:
        """Leave the cache; the last one to do so closes its connections."""
        if self._cache is not None:
            self._cache = None
            _release(self._token)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}

    def _make(self) -> LookupCache:
        shared = None
        if self._second is not None:
            store, endpoint = self._second
            shared = SharedAnswers(store, endpoint, self._source, self._keys, self.columns, self._options.timeout)
        return LookupCache(self._lookup, self._endpoint, self._keys, self.columns, self._options, shared)

    def _schema(self, columns: Sequence[str] | Mapping[str, Any] | None) -> pl.Schema:
        if isinstance(columns, Mapping):
            return pl.Schema(columns)
        if columns is not None and not columns:
            return pl.Schema()
        known = self._told()
        for name in columns or ():
            if name not in known:
                raise SchemaError(f"{self.name}: no column {name!r}. {nearest(name, known)}")
        return pl.Schema({name: known[name] for name in (columns if columns is not None else known)})

    def _told(self) -> pl.Schema:
        """The columns that the store tells."""
        try:
            self._lookup.connect(self._options.timeout)
            try:
                return self._lookup.schema(self._keys)
            finally:
                self._lookup.close()
        except UsageError as error:
            raise UsageError(f"{self.name}: {error}") from error
        except FabricBeamError:
            raise
        except Exception as error:
            raise InputError(
                self._endpoint.clean(
                    f"{self.name}: cannot be asked for its columns: {type(error).__name__}: {error}. Or declare them: "
                    f"columns={{'tier': pl.String}} in Python, {PREFIX}columns=tier:string in the URL."
                )
            ) from error


def _made(kind: Any, endpoint: Endpoint) -> Any:
    made = kind(endpoint)
    endpoint.no_more_options(*kind.OPTIONS, *(PREFIX + name for name in Cache.__dataclass_fields__), _MISS)
    # A variable that is not set is known here, not in a worker.
    _ = endpoint.target
    return made


def _acquire(token: str, make: Callable[[], LookupCache]) -> LookupCache:
    with _LOCK:
        cache, users = _CACHES.get(token) or (make(), 0)
        for other in [other for other, (_, count) in _CACHES.items() if not count]:
            # Those of runs that are over; one in use comes back within its run, as tasks of one stage follow another.
            if other != token:
                del _CACHES[other]
        _CACHES[token] = cache, users + 1
        return cache


def _release(token: str) -> None:
    with _LOCK:
        cache, users = _CACHES[token]
        _CACHES[token] = cache, users - 1
        if users == 1:
            cache.close()
