"""A Pinot cluster on this machine, for tests; its jars come from Maven, once."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from pathlib import Path

import requests

from fabric_beam.runners.java import find_java
from fabric_beam.testing.servers.maven import LOG4J, jars
from fabric_beam.testing.servers.process import ServerProcess, free_ports

VERSION = "0.11.0"
_SMALL = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms256m", "-Xmx768m", "-XX:MaxDirectMemorySize=512m"]
#: Packages of Java that its memory-mapped buffers reach into.
_OPENED = ("java.lang", "java.nio", "java.util", "jdk.internal.misc", "jdk.internal.ref", "sun.nio.ch")
#: Parts of the server that ask the controller for something.
_ASKING = ("segment.fetcher", "segment.uploader", "instance")


class PinotServer(ServerProcess):
    """ZooKeeper, a controller, a broker and a server of Pinot in one process, which keep what they hold over `kill`.

    Args:
        port: of the controller; 0 is a free one.
        password: of the user `admin`, whom the controller then asks for; without one it takes everybody.
        settings: of any of the parts, besides or instead of those set here.

    Attributes:
        broker: the port of the broker, which answers queries of everybody.

    Raises:
        FabricBeamError: on `start`, if Java or Maven is missing, or the jars cannot be had.

    Example:
        >>> with PinotServer() as pinot:  # doctest: +SKIP
        ...     print(pinot.address, pinot.broker)
        127.0.0.1:40123 40124

    Source: https://docs.pinot.apache.org/configuration-reference
    """

    name = "Pinot"
    ready_seconds = 120.0

    def __init__(self, port: int = 0, password: str = "", settings: Mapping[str, str] | None = None) -> None:
        super().__init__(port)
        self.broker, self._zookeeper, self._server, self._admin = free_ports(4)
        self._password = password
        self._settings = dict(settings or {})

    def command(self) -> list[str]:
        log4j = self.folder / "log4j2.properties"
        log4j.write_text(LOG4J, encoding="utf-8")
        (self.folder / "temporary").mkdir(exist_ok=True)
        for role, settings in self._roles().items():
            text = "".join(f"{key}={value}\n" for key, value in settings.items())
            (self.folder / f"{role}.properties").write_text(text, encoding="utf-8")
        opened = [f"--add-{what}=java.base/{name}=ALL-UNNAMED" for name in _OPENED for what in ("opens", "exports")]
        java = [str(find_java("Pinot")), *_SMALL, *opened, "-XX:+ExitOnOutOfMemoryError"]
        java += [f"-Dlog4j2.configurationFile={log4j}", f"-Djava.io.tmpdir={self.folder / 'temporary'}"]
        java += ["-cp", f"{jars(self.name, VERSION)}/*", str(Path(__file__).with_name("Pinot.java"))]
        return [*java, str(self.folder), str(self._zookeeper)]

    def is_ready(self) -> bool:
        if not super().is_ready():
            return False
        with contextlib.suppress(requests.RequestException):
            # What is on the broker's and the server's own ports answers when they have joined the cluster.
            urls = [f"http://127.0.0.1:{port}/health" for port in (self.port, self.broker, self._admin)]
            return all(requests.get(url, timeout=1).status_code == 200 for url in urls)
        return False

    def _roles(self) -> dict[str, dict[str, str]]:
        def http(prefix: str, port: int) -> dict[str, str]:
            protocol = f"{prefix}.access.protocols"
            return {protocol: "http", f"{protocol}.http.host": "127.0.0.1", f"{protocol}.http.port": str(port)}

        token = ""
        if self._password:
            token = f"Basic {base64.b64encode(f'admin:{self._password}'.encode()).decode()}"
        zookeeper, cluster = f"127.0.0.1:{self._zookeeper}", "fabric-beam"
        every = {"pinot.zk.server": zookeeper, "pinot.cluster.name": cluster, **self._settings}
        return {
            "CONTROLLER": {
                "controller.host": "127.0.0.1",
                "controller.port": str(self.port),
                "controller.zk.str": zookeeper,
                "controller.helix.cluster.name": cluster,
                "controller.data.dir": str(self.folder / "controller"),
                "controller.local.temp.dir": str(self.folder / "temporary" / "controller"),
                **http("controller", self.port),
                **self._access(),
                **({"pinot.controller.segment.fetcher.auth.token": token} if token else {}),
                **every,
            },
            "BROKER": {
                "pinot.broker.hostname": "127.0.0.1",
                "pinot.broker.client.queryPort": str(self.broker),
                **http("pinot.broker.client", self.broker),
                **every,
            },
            "SERVER": {
                "pinot.server.netty.host": "127.0.0.1",
                "pinot.server.netty.port": str(self._server),
                "pinot.server.grpc.enable": "false",
                # The form of results that has nulls.
                "pinot.server.instance.currentDataTableVersion": "4",
                "pinot.server.instance.dataDir": str(self.folder / "server"),
                "pinot.server.instance.segmentTarDir": str(self.folder / "server-archives"),
                **http("pinot.server.adminapi", self._admin),
                **({f"pinot.server.{part}.auth.token": token for part in _ASKING} if token else {}),
                **every,
            },
        }

    def _access(self) -> dict[str, str]:
        if not self._password:
            return {}
        access = "controller.admin.access.control"
        return {
            f"{access}.factory.class": "org.apache.pinot.controller.api.access.BasicAuthAccessControlFactory",
            f"{access}.principals": "admin",
            f"{access}.principals.admin.password": self._password,
        }
