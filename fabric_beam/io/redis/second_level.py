"""Redis as the second level of a lookup's cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from fabric_beam.endpoints import Endpoint
from fabric_beam.io.redis.server import TLS, Server, transient
from fabric_beam.lookups.second_level import SecondLevel

if TYPE_CHECKING:
    import redis


class RedisSecondLevel(SecondLevel):
    """A database of Redis or Valkey: `redis://[user:password@]host[:port][/db]`, `rediss://` with TLS as for writing.

    What is kept there expires by itself. Keys begin with `fabric-beam:`, so that others may live beside them.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = TLS

    def __init__(self, endpoint: Endpoint) -> None:
        self._server = Server(endpoint)
        self._client: redis.Redis | None = None

    def connect(self, timeout: float) -> None:
        self._client = self._server.client(timeout)
        self._client.ping()

    def get(self, names: Sequence[str]) -> list[str | None]:
        assert self._client is not None
        found: Any = self._client.mget(names)
        return list(found)

    def put(self, names: Sequence[str], texts: Sequence[str], milliseconds: Sequence[int]) -> None:
        assert self._client is not None
        with self._client.pipeline(transaction=False) as pipeline:
            for name, text, life in zip(names, texts, milliseconds, strict=True):
                pipeline.execute_command("SET", name, text, "PX", life)
            pipeline.execute()

    def transient(self, error: Exception) -> bool:
        return transient(error)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None
