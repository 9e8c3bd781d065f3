"""What lookups answered, kept in the process for as long as it may be used."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import polars as pl
from apache_beam.metrics import Metrics

from fabric_beam.calls import Calls, Unavailable
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import FabricBeamError, InputError
from fabric_beam.kernel import MESSAGE, Split
from fabric_beam.lookups.key_table import Hashes, Numbers, gather, hashes, positions
from fabric_beam.lookups.lookup import Lookup
from fabric_beam.lookups.options import Cache
from fabric_beam.lookups.second_level import FAILURE, FOUND, STATUS, SharedAnswers, Times

#: Writes to the second level that may wait at a time.
_MOST_BEHIND = 100


class Answers(NamedTuple):
    """What is known of keys, in their order.

    Args:
        rows: the columns looked up; null where nothing was found.
        found: whether there is a row.
        failures: why it is not known whether there is one, or why it cannot be read; null where all is well.
    """

    rows: pl.DataFrame
    found: pl.Series
    failures: pl.Series


class LookupCache:
    """Looks up keys in a store, in bulk, and remembers the answers.

    For several threads: a lock is held while answers are looked for and put in, never while a store is asked.

    Args:
        lookup: the store.
        endpoint: its URL, for messages.
        keys: the key columns.
        columns: the columns to look up.
        options: how long what is remembered.
        second: the second level, if there is one.
        clock: gives the time in seconds.
    """

    def __init__(
        self,
        lookup: Lookup,
        endpoint: Endpoint,
        keys: pl.Schema,
        columns: pl.Schema,
        options: Cache,
        second: SharedAnswers | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lookup = lookup
        self._endpoint = endpoint
        self._columns = columns
        self._options = options
        self._second = second
        self._clock = clock
        timeout = options.timeout
        self._calls = Calls(lookup, timeout, timeout, trial_after=min(10, timeout))
        self._lock = threading.Lock()
        self._use = 0
        self._entries = _Entries.none(keys, pl.Schema({**columns, **STATUS}))
        self._refresher = _thread("lookup-refresh")
        self._writer = _thread("lookup-write")
        self._behind: list[Future[None]] = []
        self._hits, self._stale, self._misses = (
            Metrics.counter("fabric_beam.lookups", f"{name}:{endpoint.url}") for name in ("hits", "stale", "misses")
        )
        self._milliseconds = Metrics.distribution("fabric_beam.lookups", f"milliseconds:{endpoint.url}")

    def find(self, keys: pl.DataFrame) -> Answers:
        """Look up keys; those that are not remembered are asked for at once, each once.

        Args:
            keys: the key columns; the same key may stand there often, and nulls are never found.

        Raises:
            InputError: the store answers that it never will say.
        """
        now = self._clock()
        with self._lock:
            self._use += 1
            entries = self._entries
            at = positions(keys, entries.keys, entries.hashes)
            here = np.flatnonzero(at >= 0)
            here = here[now < entries.ends[at[here]]]
            used = at[here]
            entries.used[used] = self._use
            soon = np.unique(used[now >= entries.asks[used]])
            # One that could not be refreshed is tried again after as long as an attempt may have taken.
            entries.asks[soon] = now + self._options.timeout
        if soon.size:
            self._refresher.submit(self._refresh, entries.keys[soon])
        self._hits.inc(used.size)
        self._stale.inc(int((now >= entries.expires[used]).sum()))
        rows = gather(entries.rows, at)
        if used.size < keys.height:
            missing = np.ones(keys.height, bool)
            missing[here] = False
            rows = self._completed(rows, keys, missing)
        return Answers(rows.select(self._columns.names()), rows[FOUND].fill_null(False), rows[FAILURE])

    def close(self) -> None:
        """Write what is still to be written to the second level, and close the connections; both can go on after."""
        refresher, self._refresher = self._refresher, _thread("lookup-refresh")
        refresher.shutdown(cancel_futures=True)
        writer, self._writer = self._writer, _thread("lookup-write")
        writer.shutdown()
        self._calls.close()
        if self._second is not None:
            self._second.close()

    def _completed(
        self, rows: pl.DataFrame, keys: pl.DataFrame, missing: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ) -> pl.DataFrame:
        """The rows with those that are missing, from the second level or the store."""
        asked = keys.filter(missing)
        wanted = asked.drop_nulls().unique(maintain_order=True)
        self._misses.inc(asked.height)
        started = time.monotonic()
        answers = self._ask(wanted)
        if wanted.height:
            self._milliseconds.update(int((time.monotonic() - started) * 1000))
        numbers = hashes(answers.select(keys.columns))
        order = np.argsort(numbers)
        answers = answers[order]
        found = gather(answers.drop(keys.columns), positions(asked, answers.select(keys.columns), numbers[order]))
        order = np.argsort(np.concatenate([np.flatnonzero(~missing), np.flatnonzero(missing)]))
        return pl.concat([rows.filter(~missing), found])[order]

    def _ask(self, wanted: pl.DataFrame) -> pl.DataFrame:
        """An answer to each key: from the second level, then from the store, request by request."""
        parts = []
        if self._second is not None and wanted.height:
            shared, fetched = self._second.read(wanted)
            now = self._clock()
            good = now < fetched + self._lives(shared) + self._options.stale
            shared = shared.filter(good)
            self._put(shared, fetched[good])
            parts.append(shared)
            wanted = wanted.join(shared, on=wanted.columns, how="anti", maintain_order="left")
        parts += [self._request(part) for part in wanted.iter_slices(self._lookup.KEYS) if part.height]
        return pl.concat(parts) if parts else _answers(wanted, wanted.clear(), self._columns)

    def _request(self, keys: pl.DataFrame) -> pl.DataFrame:
        """An answer to each key from the store, remembered; or why there is none."""
        now = self._clock()
        try:
            result, _ = self._calls(self._lookup.get, keys, self._columns)
        except Unavailable as error:
            reason = self._endpoint.clean(f"{self._endpoint.url} did not answer: {error}")
            failure = None if self._options.unavailable == "miss" else reason
            return _answers(keys, keys.clear(), self._columns, failure)
        except FabricBeamError:
            raise
        except Exception as error:
            raise InputError(self._endpoint.clean(f"{self._endpoint.url}: {type(error).__name__}: {error}")) from error
        if isinstance(result, Split):
            named = self._endpoint.url + ": " + result.rejected[MESSAGE]
            result = Split(result.kept, result.rejected.with_columns(named.alias(MESSAGE)))
        answers = _answers(keys, result, self._columns)
        self._put(answers, np.full(answers.height, now))
        if self._second is not None:
            seconds = self._lives(answers) + self._options.stale
            if self._options.write == "through":
                self._second.write(answers, now, seconds)
            else:
                self._write_behind(self._second, answers, now, seconds)
        return answers

    def _put(self, answers: pl.DataFrame, fetched: Times) -> None:
        life = self._lives(answers)
        with self._lock:
            fresh = _Entries.of(answers, self._entries.keys.columns, fetched, life, self._options, self._use)
            self._entries = self._entries.merged(fresh, self._options.size)

    def _lives(self, answers: pl.DataFrame) -> Times:
        return np.where(answers[FOUND].to_numpy(), self._options.ttl, self._options.negative_ttl)

    def _refresh(self, keys: pl.DataFrame) -> None:
        try:
            for part in keys.iter_slices(self._lookup.KEYS):
                self._request(part)
        except FabricBeamError as error:
            # The next lookup that has to wait for an answer says it to the run.
            logging.getLogger(__name__).warning("%s", error)

    def _write_behind(self, second: SharedAnswers, answers: pl.DataFrame, fetched: float, seconds: Times) -> None:
        self._behind = [each for each in self._behind if not each.done()]
        if len(self._behind) >= _MOST_BEHIND:
            self._behind[0].result()
        self._behind.append(self._writer.submit(second.write, answers, fetched, seconds))


def _thread(name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=name)


def _answers(
    keys: pl.DataFrame, result: pl.DataFrame | Split, columns: pl.Schema, failure: str | None = None
) -> pl.DataFrame:
    """One row for each key from what a store returned for some of them."""
    found = result.kept if isinstance(result, Split) else result
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in columns.items() if name not in found.columns]
    found = found.with_columns(*missing, pl.lit(True).alias(FOUND), pl.lit(None, pl.String).alias(FAILURE))
    parts = [found.select(*keys.columns, *columns, *STATUS)]
    if isinstance(result, Split):
        nulls = [pl.lit(None, dtype).alias(name) for name, dtype in columns.items()]
        parts.append(
            result.rejected.select(*keys.columns, *nulls, pl.lit(False).alias(FOUND), pl.col(MESSAGE).alias(FAILURE))
        )
    known = pl.concat(parts).unique(keys.columns, keep="last")
    return keys.join(known, on=keys.columns, how="left", maintain_order="left").with_columns(
        pl.col(FOUND).fill_null(False), *([pl.lit(failure).alias(FAILURE)] if failure else [])
    )


class _Entries(NamedTuple):
    """What is remembered, in the order of the keys' hashes.

    Args:
        keys: different keys without nulls.
        rows: the answers.
        hashes: of the keys, all different.
        asks: when each is to be asked for again in the background.
        expires: when each is past its time to live.
        ends: when each may not be used any more.
        used: when each was last used, by the count of batches.
    """

    keys: pl.DataFrame
    rows: pl.DataFrame
    hashes: Hashes
    asks: Times
    expires: Times
    ends: Times
    used: Numbers

    @classmethod
    def none(cls, keys: pl.Schema, columns: pl.Schema) -> _Entries:
        rows, time = pl.DataFrame(schema=columns), np.zeros(0)
        return cls(pl.DataFrame(schema=keys), rows, np.zeros(0, np.uint64), time, time, time, np.zeros(0, np.int64))

    @classmethod
    def of(
        cls, answers: pl.DataFrame, keys: list[str], fetched: Times, life: Times, options: Cache, use: int
    ) -> _Entries:
        known, order = np.unique(hashes(answers.select(keys)), return_index=True)
        order = order[: options.size]
        fetched, life = fetched[order], life[order]
        expires = fetched + life
        return cls(
            answers.select(keys)[order],
            answers.drop(keys)[order],
            known[: options.size],
            expires - life * options.refresh_ahead,
            expires,
            expires + options.stale,
            np.full(len(order), use),
        )

    def merged(self, fresh: _Entries, size: int) -> _Entries:
        """With fresh ones instead of those that they replace, and of those least recently used."""
        at = np.searchsorted(self.hashes, fresh.hashes)
        inside = at < len(self.hashes)
        keep = np.ones(len(self.hashes), bool)
        keep[at[inside][self.hashes[at[inside]] == fresh.hashes[inside]]] = False
        kept = np.flatnonzero(keep)
        too_many = len(kept) + len(fresh.hashes) - size
        if too_many > 0:
            kept = np.delete(kept, np.argpartition(self.used[kept], too_many - 1)[:too_many])
        numbers = np.concatenate([kept, len(self.hashes) + np.arange(len(fresh.hashes))])
        # Two sorted runs: stable sorting merges them.
        numbers = numbers[np.argsort(np.concatenate([self.hashes[kept], fresh.hashes]), kind="stable")]
        keys, rows = (pl.concat(both)[numbers].rechunk() for both in zip(self[:2], fresh[:2], strict=True))
        return _Entries(keys, rows, *(np.concatenate(both)[numbers] for both in zip(self[2:], fresh[2:], strict=True)))
