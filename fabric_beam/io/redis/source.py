"""`redis:` read: the rows that hashes, strings of JSON, or the entries of a stream are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import InputError
from fabric_beam.io.records.columns import OTHERS, Columns, Record
from fabric_beam.io.records.values import unchanged
from fabric_beam.io.redis.replies import ask
from fabric_beam.io.redis.server import TLS, Server, transient
from fabric_beam.io.redis.stored import OPTIONS, Row, stored
from fabric_beam.io.store_reader import Page, StoreReader
from fabric_beam.io.store_source import ReadStore
from fabric_beam.option_kinds import whole

if TYPE_CHECKING:
    import redis


_PAGE = 16_384


class RedisReader(StoreReader):
    """The rows of one database of a Redis server."""

    OPTIONS: ClassVar[tuple[str, ...]] = (*OPTIONS, "sample", "ranges", "rows", *TLS)

    def __init__(self, endpoint: Endpoint) -> None:
        self._server = Server(endpoint)
        self._endpoint = endpoint
        self._sample = endpoint.option("sample", whole, 1000)
        self._ranges = endpoint.option("ranges", whole, 0)
        self._layout = stored(endpoint, endpoint.option("rows", whole, _PAGE))
        self._connection: redis.Connection | None = None
        self._columns: Columns | None = None

    def connect(self, timeout: float) -> None:
        if self._connection is None:
            connection = self._server.open(timeout)
            try:
                connection.send_command("ECHO", "?")
                connection.read_response()
            except BaseException:
                connection.disconnect()
                raise
            self._connection = connection

    def schema(self, declared: pl.Schema) -> pl.Schema:
        found: list[Record] = []
        for split in self._layout.splits(self._ask, self._ranges)[:1]:
            for rows, _ in self._layout.read(split, self._ask):
                found += [row.fields for row in rows if row.fields][: self._sample - len(found)]
                if len(found) == self._sample:
                    break
        if not found and not declared:
            raise InputError(f"{self._endpoint.url}: {self._layout.nothing(self._ask)}.")
        schema = pl.Schema({**self._layout.infer(found), **declared, OTHERS: pl.String()})
        self._columns = Columns({name: (name,) for name in schema}, schema, self._layout.convert, unchanged)
        return schema

    def splits(self) -> list[str]:
        return self._layout.splits(self._ask, self._ranges)

    def read(self, split: str) -> Iterator[Page]:
        for rows, rest in self._layout.read(split, self._ask):
            yield self._page(rows, rest)

    def transient(self, error: Exception) -> bool:
        return transient(error)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
        self._connection = None

    def _ask(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        assert self._connection is not None
        return ask(self._connection, commands)

    def _page(self, rows: list[Row], rest: str) -> Page:
        assert self._columns is not None
        keys = pl.Series([row.key for row in rows], dtype=pl.String)
        table, wrong = self._columns([row.fields or {} for row in rows])
        wrong |= {number: "not a JSON object" for number, row in enumerate(rows) if row.fields is None}
        if not wrong:
            return Page(table, keys, rest)
        numbers = sorted(wrong)
        rejected = pl.DataFrame(
            {
                "key": keys.gather(numbers),
                "payload": [
                    row.payload or json.dumps(row.fields, ensure_ascii=False) for row in (rows[n] for n in numbers)
                ],
                "message": [wrong[number] for number in numbers],
            }
        )
        fits = ~pl.int_range(table.height, eager=True).is_in(numbers)
        return Page(table.filter(fits), keys.filter(fits), rest, rejected)


class ReadRedis(ReadStore):
    """Read rows from Redis, Valkey, or another server that speaks their protocol.

    Columns and types are those of a sample, and of the contract in `schema`: texts that are all numbers, booleans,
    times or JSON are read as such. Other fields are in `attributes`, as JSON; a row with a value of another type than
    its column becomes a dead letter.

    Args:
        endpoints: `redis://[user:password@]host[:port][/db]`, `rediss://` with TLS. `as` is the layout: `hash` (a
            row each), `json` (a string a row), or `stream`. Hashes and strings are those whose key is like `match`
            (`*` and `?` stand for others), or begins with `prefix` and a colon, or fits the template `key`, as it is
            given to the sink; without these, `prefix` is `row`, as it is there. The stream is `key`. `sample` (rows
            that the columns are found by, 1000), `ranges` (how many parts are read side by side: one for 250,000 rows
            unless it is given; each looks at all keys), `rows` (read at once, 16384).
        limit: read at most this many rows.

    Output: the columns, `attributes`, `source`, `offset`.

    Source: https://valkey.io/commands/
    """

    reader = RedisReader
