"""`redis:` written: Redis, Valkey, and what speaks their protocol."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import MissingExtraError, UsageError
from fabric_beam.io.redis.layouts import OPTIONS, layout
from fabric_beam.io.store import Store
from fabric_beam.io.store_sink import StoreSink
from fabric_beam.kernel import reject

if TYPE_CHECKING:
    import redis

#: Options of the client for TLS, with its names for them.
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: Errors of a server that is busy, starting, full, or changing its role: they pass.
_PASSING = {
    *("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "NOSCRIPT", "OOM", "READONLY"),
    "TRYAGAIN",
}
#: Errors that every row would get.
_FOR_ALL = ("NOAUTH", "NOPERM", "WRONGPASS", "MOVED", "ASK", "CROSSSLOT", "ERR unknown command")
_READ_BYTES = 1 << 16


class RedisStore(Store):
    """A Redis server, over as many connections as there are writes at a time."""

    OPTIONS: ClassVar[tuple[str, ...]] = (*OPTIONS, *_TLS)
    ROWS: ClassVar[int] = 10_000

    def __init__(self, endpoint: Endpoint) -> None:
        try:
            import redis  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("redis:", "redis") from error
        self._layout = layout(endpoint)
        self._tls = {name: path for name in _TLS if (path := endpoint.option(name, str, ""))}
        self._endpoint = endpoint
        self._timeout = 0.0
        self._idle: list[redis.Connection] = []
        _check(endpoint)
        if self._tls and endpoint.scheme != "rediss":
            raise UsageError(
                f"{endpoint.url}: {next(iter(self._tls))} is for TLS, with which the URL begins rediss://."
            )

    def connect(self, timeout: float) -> None:
        self._timeout = timeout
        with self._connection() as connection:
            connection.send_command("PING")
            connection.read_response()

    def ensure(self, schema: pl.Schema) -> None:
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
        import redis

        if isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError):
            return False
        if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
            return "CERTIFICATE_VERIFY_FAILED" not in str(error)
        return isinstance(error, redis.ResponseError) and str(error).split(" ")[0] in _PASSING

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
        import redis
        from redis.backoff import NoBackoff
        from redis.connection import parse_url
        from redis.retry import Retry

        arguments = dict(parse_url(self._endpoint.target))
        kind = arguments.pop("connection_class", redis.Connection)
        if kind is not redis.Connection:
            # Older clients do not check this unless they are told to.
            arguments |= {"ssl_check_hostname": True, **self._tls}
        connection: redis.Connection = kind(
            **arguments,
            # The protocol whose every answer here is one line.
            protocol=2,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
        )
        connection.connect()
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
        if line[1:].startswith(_FOR_ALL) or line[1:].split(" ")[0] in _PASSING:
            raise redis.ResponseError(line[1:])
    return lines


def _check(endpoint: Endpoint) -> None:
    parts = urlsplit(endpoint.target)
    with contextlib.suppress(ValueError):
        if parts.hostname and parts.port != 0 and re.fullmatch(r"/?\d*", parts.path):
            return
    raise UsageError(
        f"{endpoint.url} is not redis://host:port/database, where the database is a number "
        "(redis://localhost:6379/0?prefix=events)."
    )
