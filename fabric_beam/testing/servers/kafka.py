"""A single-node Kafka on this machine, for tests; its jars come from Maven, once."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping

from fabric_beam.errors import FabricBeamError, MissingExtraError
from fabric_beam.runners.java import find_java
from fabric_beam.testing.servers.maven import LOG4J, jars
from fabric_beam.testing.servers.process import ServerProcess, free_port

VERSION = "4.1.2"
#: 22 characters that are 16 bytes in base64url: one cluster is like another.
_CLUSTER_ID = "ZmFicmljLWJlYW0ta2Fma2"
_SMALL = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


class KafkaServer(ServerProcess):
    """A broker that is its own controller (KRaft).

    Args:
        port: to listen on; 0 is a free one.
        properties: broker settings besides those that make it small.

    Raises:
        FabricBeamError: on `start`, if Java or Maven is missing, or the jars cannot be had.

    Example:
        >>> with KafkaServer() as kafka:  # doctest: +SKIP
        ...     print(kafka.address)
        127.0.0.1:40123

    Source: https://kafka.apache.org/documentation/#brokerconfigs
    """

    name = "Kafka"

    def __init__(self, port: int = 0, properties: Mapping[str, str] | None = None) -> None:
        super().__init__(port)
        self._controller = free_port()
        self._properties = dict(properties or {})

    def command(self) -> list[str]:
        settings = self.folder / "server.properties"
        log4j = self.folder / "log4j2.properties"
        settings.write_text("".join(f"{key}={value}\n" for key, value in self._settings().items()), encoding="utf-8")
        log4j.write_text(LOG4J, encoding="utf-8")
        java = [str(find_java("Kafka")), *_SMALL, "-cp", f"{jars(self.name, VERSION)}/*"]
        java.append(f"-Dlog4j2.configurationFile={log4j}")
        if not (self.folder / "data" / "meta.properties").exists():
            self._format([*java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(settings)])
        return [*java, "-Xms256m", "-Xmx256m", "-XX:+ExitOnOutOfMemoryError", "kafka.Kafka", str(settings)]

    def is_ready(self) -> bool:
        try:
            from confluent_kafka import KafkaException
            from confluent_kafka.admin import AdminClient
        except ImportError as error:
            raise MissingExtraError("A Kafka server for tests", "kafka") from error
        if not super().is_ready():
            return False
        with contextlib.suppress(KafkaException):
            return bool(AdminClient({"bootstrap.servers": self.address, "log_level": 0}).list_topics(timeout=1).brokers)
        return False

    def _settings(self) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{self._controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            # Messages are kept whatever time they bear.
            "log.retention.ms": "-1",
            # A broker that was killed may come back under its name once the old one is missed.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "400",
            # One node holds everything, and little of it.
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "log.cleaner.dedupe.buffer.size": "8388608",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "background.threads": "2",
            **self._properties,
        }

    def _format(self, command: list[str]) -> None:
        result = subprocess.run(command, capture_output=True, text=True, timeout=self.ready_seconds, check=False)
        if result.returncode:
            raise FabricBeamError(f"Kafka's storage could not be formatted: {result.stdout}{result.stderr}")
