"""A server that speaks MongoDB's protocol on this machine, for tests: SecantusDB, from PyPI."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from fabric_beam.errors import FabricBeamError, MissingExtraError
from fabric_beam.testing.servers.process import ServerProcess

#: Names another program with the same options: `secantusd-rs`, the same server written in Rust, is about as fast as
#: MongoDB's own (`cargo install secantus-mdb --version 0.5.3-beta.196`, which takes ten minutes).
PROGRAM = "FABRIC_BEAM_MONGODB"


class MongoServer(ServerProcess):
    """A replica set of one server.

    Args:
        port: to listen on; 0 is a free one.
        options: of its command line, besides those that place it and keep it small.
        durable: whether what it acknowledged outlives `kill`; it is slower then.

    Raises:
        FabricBeamError: on `start`, if it is not installed.

    Example:
        >>> with MongoServer() as mongodb:  # doctest: +SKIP
        ...     print(mongodb.address)
        127.0.0.1:40123

    Source: https://pypi.org/project/secantusdb/
    """

    name = "MongoDB"

    def __init__(self, port: int = 0, options: tuple[str, ...] = (), durable: bool = True) -> None:
        super().__init__(port)
        self._durable = durable
        self._options = options

    def command(self) -> list[str]:
        program = Path(os.environ.get(PROGRAM) or Path(sys.executable).with_name("secantusd-py"))
        if not program.exists():
            raise FabricBeamError(f"There is no {program}: pip install secantusdb==0.7.0b3, or set {PROGRAM}")
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--storage-path", str(self.folder / "data")]
        settings = ["--cache-size", "256M", "--log-level", "WARNING", *(["--sync-on-commit"] if self._durable else [])]
        return [str(program), *place, *settings, *self._options]

    def is_ready(self) -> bool:
        try:
            from pymongo import MongoClient
            from pymongo.errors import PyMongoError
        except ImportError as error:
            raise MissingExtraError("A MongoDB server for tests", "mongodb") from error
        if not super().is_ready():
            return False
        client: MongoClient[dict[str, object]] = MongoClient(
            f"mongodb://{self.address}", directConnection=True, serverSelectionTimeoutMS=1000
        )
        with contextlib.suppress(PyMongoError), client:
            return bool(client.admin.command("ping")["ok"])
        return False
