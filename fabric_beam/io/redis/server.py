"""A Redis server as its URL names it, and what its errors mean."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    import redis

#: Options of the client for TLS, with its names for them.
TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: Errors of a server that is busy, starting, full, or changing its role: they pass.
PASSING = {
    *("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "NOSCRIPT", "OOM", "READONLY"),
    "TRYAGAIN",
}


class Server:
    """A server and a database of it.

    Args:
        endpoint: the URL; the options for TLS are taken out of it.

    Raises:
        UsageError: the URL names none; or, once it is asked, a node of a cluster.
        MissingExtraError: the client is not installed.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        try:
            import redis  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("redis:", "redis") from error
        self.endpoint = endpoint
        self._tls = {name: path for name in TLS if (path := endpoint.option(name, str, ""))}
        parts = urlsplit(endpoint.target)
        there = False
        with contextlib.suppress(ValueError):
            there = bool(parts.hostname) and parts.port != 0 and bool(re.fullmatch(r"/?\d*", parts.path))
        if not there:
            raise UsageError(
                f"{endpoint.url} is not redis://host:port/database, where the database is a number "
                "(redis://localhost:6379/0?prefix=events)."
            )
        if self._tls and endpoint.scheme != "rediss":
            raise UsageError(
                f"{endpoint.url}: {next(iter(self._tls))} is for TLS, with which the URL begins rediss://."
            )

    def open(self, timeout: float) -> redis.Connection:
        """A connection, whose every call may take so many seconds."""
        import redis

        arguments = self._arguments(timeout)
        kind = arguments.pop("connection_class", redis.Connection)
        # The protocol whose every answer is one line, where it is short.
        connection: redis.Connection = kind(**arguments, protocol=2)
        connection.connect()
        self._refuse_cluster(connection)
        return connection

    def client(self, timeout: float) -> redis.Redis:
        """A client whose every call may take so many seconds."""
        import redis

        self.open(timeout).disconnect()
        return redis.Redis.from_pool(redis.ConnectionPool(**self._arguments(timeout), decode_responses=True))

    def _refuse_cluster(self, connection: redis.Connection) -> None:
        """Say before the first row what most rows would be answered."""
        import redis

        connection.send_command("INFO", "cluster")
        try:
            said = connection.read_response()
        except redis.ResponseError:
            # A user who may not ask, or a server that has no such section.
            return
        except BaseException:
            connection.disconnect()
            raise
        if b"cluster_enabled:1" in said:
            connection.disconnect()
            raise UsageError(
                f"{self.endpoint.url} is a node of a Redis Cluster, which has some of the keys and sends its clients "
                "elsewhere for the others: that is not supported. Name a server that has all keys, or a proxy before "
                "the cluster that hides its nodes."
            )

    def _arguments(self, timeout: float) -> dict[str, Any]:
        import redis
        from redis.backoff import NoBackoff
        from redis.connection import parse_url
        from redis.retry import Retry

        arguments = dict(parse_url(self.endpoint.target))
        if arguments.get("connection_class", redis.Connection) is not redis.Connection:
            # Older clients do not check this unless they are told to.
            arguments |= {"ssl_check_hostname": True, **self._tls}
        return {
            **arguments,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "socket_keepalive": True,
            "retry": Retry(NoBackoff(), 0),
        }


def transient(error: Exception) -> bool:
    """Whether a client's error may pass: the server is down, slow, busy, full or changing its role."""
    import redis

    if isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError):
        return False
    if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return isinstance(error, redis.ResponseError) and str(error).split(" ")[0] in PASSING
