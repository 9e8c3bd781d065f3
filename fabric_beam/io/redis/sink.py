"""`redis:` written: Redis, Valkey, and what speaks their protocol."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.io.redis.layouts import OPTIONS, layout
from fabric_beam.io.redis.server import PASSING, TLS, Server, transient
from fabric_beam.io.store import Store
from fabric_beam.io.store_sink import StoreSink
from fabric_beam.kernel import reject

if TYPE_CHECKING:
    import redis

#: Errors that every row would get.
_FOR_ALL = ("NOAUTH", "NOPERM", "WRONGPASS", "MOVED", "ASK", "CROSSSLOT", "ERR unknown command")
_READ_BYTES = 1 << 16


class RedisStore(Store):
    """A Redis server, over as many connections as there are writes at a time."""

    OPTIONS: ClassVar[tuple[str, ...]] = (*OPTIONS, *TLS)
    ROWS: ClassVar[int] = 10_000

    def __init__(self, endpoint: Endpoint) -> None:
        self._server = Server(endpoint)
        self._layout = layout(endpoint)
        self._timeout = 0.0
        self._idle: list[redis.Connection] = []

    def connect(self, timeout: float) -> None:
        self._timeout = timeout
        with self._connection() as connection:
            connection.send_command("PING")
            connection.read_response()

    def check(self, schema: pl.Schema) -> None:
        self._layout.check(schema)

    def write(self, table: pl.DataFrame) -> pl.DataFrame | None:
        refused = []
        for name in self._layout.needed(table.schema):
            if table[name].null_count():
                refused.append(reject(table.filter(pl.col(name).is_null()), "null", f"{name} is null"))
                table = table.filter(pl.col(name).is_not_null())
        if table.height:
            with self._connection() as connection:
                errors = self._layout.write(table, lambda commands, replies: _exchange(connection, commands, replies))
            if errors:
                rows = table[sorted(errors)]
                reasons = pl.Series([errors[n] for n in sorted(errors)], dtype=pl.String)
                refused.append(reject(rows, "refused", pl.lit(self._layout.keys(rows) + ": " + reasons)))
        return pl.concat(refused) if refused else None

    def transient(self, error: Exception) -> bool:
        return transient(error)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().disconnect()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[redis.Connection]:
        """A connection that nobody else uses; after an error it and those that wait are given up."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        try:
            yield connection
        except BaseException:
            connection.disconnect()
            self.close()
            raise
        self._idle.append(connection)

    def _open(self) -> redis.Connection:
        connection = self._server.open(self._timeout)
        if self._layout.SCRIPT:
            connection.send_command("SCRIPT", "LOAD", self._layout.SCRIPT)
            connection.read_response()
        return connection


class WriteRedis(StoreSink):
    """Write batches to Redis, Valkey, or another server that speaks their protocol.

    Args:
        endpoint: `redis://[user:password@]host[:port][/db]`, `rediss://` with TLS (`ssl_ca_certs`, `ssl_certfile`,
            `ssl_keyfile`: paths). `as` is the layout: `hash` (a hash a row), `json` (a string a row), `stream`,
            `counter` (the last value of a column), `top` (a sorted set), `publish`. `key` is a template, such as
            `{service.name}:{offset}`; without it, hashes and strings are keyed by `prefix` (`row`) and the row's
            identity. `ttl` is in seconds. And what every store's URL takes: see `StoreSink`.
        job: not used.

    Rows with a null in a column that the key names become dead letters, like those that the server refuses. Writing a
    row again changes nothing, but a stream remembers its entries for `seen` seconds (3600) only, and what is published
    again is heard again.

    Source: https://valkey.io/commands/
    """

    store = RedisStore


def _exchange(connection: redis.Connection, commands: pl.Series, replies: int) -> pl.Series:
    """Send a text of commands for each row; returns the lines that answer them, so many for each row.

    The client's own packing of commands and reading of answers take five times as long as all else together.

    Raises:
        redis.ResponseError: an answer is an error that is not of its row alone.
    """
    import redis

    text = commands.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()[2]
    connection.send_packed_command([memoryview(text)[: int(commands.str.len_bytes().sum())]])
    sock: Any = connection._sock
    parts, left = [], commands.len() * replies
    while left > 0:
        part = sock.recv(_READ_BYTES)
        if not part:
            raise redis.ConnectionError("The server closed the connection.")
        parts.append(part)
        left -= part.count(b"\n")
    lines = pl.Series(b"".join(parts).decode(errors="replace").split("\r\n")[:-1], dtype=pl.String)
    for line in lines.filter(lines.str.starts_with("-")):
        if line[1:].startswith(_FOR_ALL) or line[1:].split(" ")[0] in PASSING:
            raise redis.ResponseError(line[1:])
    return lines
