"""A single-node Cassandra on this machine, for tests; its jars come from Maven, once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from fabric_beam.errors import FabricBeamError, MissingExtraError
from fabric_beam.runners.java import find_java
from fabric_beam.testing.servers.maven import jars
from fabric_beam.testing.servers.process import ServerProcess, free_port

VERSION = "4.1.10"
#: Packages of the JDK that Cassandra 4.1 reaches into, which Java 17 does not let it by itself.
# fmt: off
_OPENED = {
    "java.base": (
        "java.io", "java.lang", "java.lang.module", "java.lang.ref", "java.lang.reflect", "java.math", "java.net",
        "java.nio", "java.util", "java.util.concurrent", "java.util.concurrent.atomic", "jdk.internal.loader",
        "jdk.internal.math", "jdk.internal.misc", "jdk.internal.module", "jdk.internal.ref", "jdk.internal.reflect",
        "jdk.internal.util.jar", "jdk.internal.vm", "sun.nio.ch", "sun.nio.fs", "sun.reflect",
    ),
    "java.management": ("com.sun.jmx.remote.security", "sun.management"),
    "java.management.rmi": ("com.sun.jmx.remote.internal.rmi",),
    "java.rmi": ("sun.rmi.registry", "sun.rmi.server", "sun.rmi.transport", "sun.rmi.transport.tcp"),
    "java.sql": ("java.sql",),
    "jdk.management": ("com.sun.management.internal",),
}
# fmt: on
_SMALL = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms512m", "-Xmx512m", "-Xss512k"]
_PROPERTIES = {
    "cassandra-foreground": "yes",
    # There are no others to wait for.
    "cassandra.ring_delay_ms": "100",
    "cassandra.skip_wait_for_gossip_to_settle": "0",
    "cassandra.superuser_setup_delay_ms": "0",
    # A password is checked at every connection: 2^4 rounds instead of 2^10.
    "cassandra.auth_bcrypt_gensalt_log2_rounds": "4",
    "io.netty.tryReflectionSetAccessible": "true",
    "java.awt.headless": "true",
    "java.net.preferIPv4Stack": "true",
    "jdk.attach.allowAttachSelf": "true",
}
_LOGBACK = """\
<configuration>
  <appender name="console" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %-5level %logger{20} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="console"/></root>
</configuration>
"""


class CassandraServer(ServerProcess):
    """A cluster of one node, with passwords.

    Args:
        port: to listen on; 0 is a free one.
        settings: of `cassandra.yaml`, besides those that make it small.
        durable: whether what it acknowledged outlives `kill`; it is slower then.

    Attributes:
        user: its superuser; the password is the same.

    Raises:
        FabricBeamError: on `start`, if Java or Maven is missing, or the jars cannot be had.

    Example:
        >>> with CassandraServer() as cassandra:  # doctest: +SKIP
        ...     print(cassandra.address)
        127.0.0.1:40123

    Source: https://cassandra.apache.org/doc/4.1/cassandra/configuration/cass_yaml_file.html
    """

    name = "Cassandra"
    ready_seconds = 120.0
    user = "cassandra"

    def __init__(self, port: int = 0, settings: Mapping[str, Any] | None = None, durable: bool = True) -> None:
        super().__init__(port)
        self._storage_port = free_port()
        self._durable = durable
        self._more = dict(settings or {})

    def url(self, place: str) -> str:
        """The URL of a keyspace and table, such as `logs/events?ttl=60`, with the user in it."""
        return f"cassandra://{self.user}:{self.user}@{self.address}/{place}"

    def command(self) -> list[str]:
        found = jars(self.name, VERSION)
        settings, logback = self.folder / "cassandra.yaml", self.folder / "logback.xml"
        # JSON is YAML.
        settings.write_text(json.dumps(self._settings(), indent=2), encoding="utf-8")
        logback.write_text(_LOGBACK, encoding="utf-8")
        properties = _PROPERTIES | {
            "cassandra.config": settings.as_uri(),
            "cassandra.logdir": str(self.folder),
            "cassandra.storagedir": str(self.folder),
            "logback.configurationFile": str(logback),
        }
        agent = next(iter(found.glob("jamm-*.jar")), None)
        if agent is None:
            raise FabricBeamError(f"There is no jamm-*.jar in {found}: remove that folder, and it is fetched again.")
        packages = [f"{module}/{package}=ALL-UNNAMED" for module, names in _OPENED.items() for package in names]
        return [
            *(str(find_java("Cassandra")), *_SMALL, "-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData"),
            *(f"-D{name}={value}" for name, value in properties.items()),
            *(f"--{access}={package}" for package in packages for access in ("add-opens", "add-exports")),
            *(f"-javaagent:{agent}", "-cp", f"{found}/*", "org.apache.cassandra.service.CassandraDaemon"),
        ]

    def is_ready(self) -> bool:
        try:
            from cassandra import DriverException
            from cassandra.auth import PlainTextAuthProvider
            from cassandra.cluster import Cluster, NoHostAvailable
        except ImportError as error:
            raise MissingExtraError("A Cassandra server for tests", "cassandra") from error
        if not super().is_ready():
            return False
        # The superuser is made after the port is open.
        account = PlainTextAuthProvider(self.user, self.user)
        with (
            contextlib.suppress(NoHostAvailable, DriverException),
            Cluster(["127.0.0.1"], port=self.port, auth_provider=account, protocol_version=4) as cluster,
        ):
            return bool(cluster.connect())
        return False

    def stop(self) -> None:
        # In order it would write out what is removed next.
        self.kill()
        super().stop()

    def _settings(self) -> dict[str, Any]:
        seeds = {"seeds": f"127.0.0.1:{self._storage_port}"}
        return {
            "cluster_name": "fabric-beam",
            # As many ranges of tokens as a node has by default.
            "num_tokens": 16,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "endpoint_snitch": "SimpleSnitch",
            "seed_provider": [{"class_name": "org.apache.cassandra.locator.SimpleSeedProvider", "parameters": [seeds]}],
            "listen_address": "127.0.0.1",
            "rpc_address": "127.0.0.1",
            "native_transport_port": self.port,
            "storage_port": self._storage_port,
            "authenticator": "PasswordAuthenticator",
            "authorizer": "CassandraAuthorizer",
            "data_file_directories": [str(self.folder / "data")],
            "commitlog_directory": str(self.folder / "commitlog"),
            "hints_directory": str(self.folder / "hints"),
            "saved_caches_directory": str(self.folder / "saved_caches"),
            "cdc_raw_directory": str(self.folder / "cdc"),
            # Acknowledged when it is on disk; else what was written in the last moment would be gone.
            **(
                {"commitlog_sync": "batch"}
                if self._durable
                else {"commitlog_sync": "periodic", "commitlog_sync_period": "10000ms"}
            ),
            "commitlog_segment_size": "8MiB",
            "commitlog_total_space": "128MiB",
            "memtable_allocation_type": "heap_buffers",
            "memtable_heap_space": "128MiB",
            "memtable_offheap_space": "32MiB",
            "file_cache_size": "32MiB",
            "networking_cache_size": "16MiB",
            "key_cache_size": "8MiB",
            "counter_cache_size": "4MiB",
            "concurrent_reads": 8,
            "concurrent_writes": 32,
            "concurrent_compactors": 1,
            "auto_snapshot": False,
            # The machine may have other work.
            "write_request_timeout": "10000ms",
            "read_request_timeout": "10000ms",
            "range_request_timeout": "20000ms",
            **self._more,
        }
