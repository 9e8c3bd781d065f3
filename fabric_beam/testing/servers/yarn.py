"""A YARN cluster on this machine, for tests; its jars come from Maven, once, but those that are in PySpark."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from fabric_beam.errors import MissingExtraError
from fabric_beam.runners.java import find_java
from fabric_beam.testing.servers.maven import LOG4J, jars
from fabric_beam.testing.servers.process import ServerProcess, free_ports

VERSION = "3.5.0"
_SMALL = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx384m"]
_FIFO = "org.apache.hadoop.yarn.server.resourcemanager.scheduler.fifo.FifoScheduler"


class YarnServer(ServerProcess):
    """A ResourceManager and a NodeManager in one process; containers have 3 GiB between them.

    Args:
        port: of the ResourceManager's REST interface; 0 is a free one.

    Raises:
        FabricBeamError: on `start`, if PySpark, Java or Maven is missing, or the jars cannot be had.

    Example:
        >>> with YarnServer() as yarn:  # doctest: +SKIP
        ...     print(yarn.configuration, yarn.running_applications())
        /tmp/fabric-beam-yarn-x1y2z3/conf []

    Source: https://hadoop.apache.org/docs/stable/hadoop-yarn/hadoop-yarn-common/yarn-default.xml
    """

    name = "YARN"
    ready_seconds = 120.0

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self._manager, self._scheduler, self._tracker, self._admin = free_ports(4)

    @property
    def configuration(self) -> Path:
        """The folder that `HADOOP_CONF_DIR` is to name."""
        return self.folder / "conf"

    @property
    def spark(self) -> dict[str, str]:
        """Settings of Spark for an application that is small and leaves nothing outside of `folder`."""
        return {
            # What is on this machine need not be sent to it.
            "spark.yarn.jars": f"local:{_pyspark()}/jars/*",
            "spark.yarn.stagingDir": (self.folder / "staging").as_uri(),
            "spark.yarn.am.memory": "512m",
            "spark.executor.memory": "512m",
            "spark.executor.cores": "1",
            "spark.executor.instances": "1",
        }

    def command(self) -> list[str]:
        log4j = self.folder / "log4j2.properties"
        log4j.write_text(LOG4J, encoding="utf-8")
        self.configuration.mkdir(exist_ok=True)
        _write(self.configuration / "core-site.xml", {"hadoop.tmp.dir": self.folder / "hadoop"})
        _write(self.configuration / "yarn-site.xml", self._settings())
        path = f"{self.configuration}:{jars(self.name, VERSION)}/*:{_pyspark()}/jars/*"
        java = [str(find_java(self.name)), *_SMALL, f"-Dlog4j2.configurationFile={log4j}", "-cp", path]
        return [*java, str(Path(__file__).with_name("Yarn.java"))]

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return bool(self._get("metrics")["clusterMetrics"]["activeNodes"])
        return False

    def running_applications(self) -> list[str]:
        """The ids of applications that have not ended."""
        found = (self._get("apps?states=NEW,NEW_SAVING,SUBMITTED,ACCEPTED,RUNNING")["apps"] or {}).get("app", [])
        return [str(application["id"]) for application in found]

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.address}/ws/v1/cluster/{path}", timeout=5) as answer:
            return json.load(answer)

    def _settings(self) -> dict[str, object]:
        manager, node = "yarn.resourcemanager", "yarn.nodemanager"
        return {
            f"{manager}.address": f"127.0.0.1:{self._manager}",
            f"{manager}.scheduler.address": f"127.0.0.1:{self._scheduler}",
            f"{manager}.resource-tracker.address": f"127.0.0.1:{self._tracker}",
            f"{manager}.admin.address": f"127.0.0.1:{self._admin}",
            f"{manager}.webapp.address": self.address,
            # The usual one wants its queues to be told.
            f"{manager}.scheduler.class": _FIFO,
            f"{node}.hostname": "127.0.0.1",
            f"{node}.address": "127.0.0.1:0",
            f"{node}.localizer.address": "127.0.0.1:0",
            f"{node}.webapp.address": "127.0.0.1:0",
            f"{node}.local-dirs": self.folder / "local",
            f"{node}.log-dirs": self.folder / "logs",
            f"{node}.resource.memory-mb": 3072,
            f"{node}.resource.cpu-vcores": 4,
            # Java and Python reserve many times the memory that they use.
            f"{node}.vmem-check-enabled": "false",
            # A disk of tests may be nearly full.
            f"{node}.disk-health-checker.enable": "false",
            f"{node}.disk-health-checker.max-disk-utilization-per-disk-percentage": 100,
            "yarn.scheduler.minimum-allocation-mb": 128,
        }


def _pyspark() -> Path:
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise MissingExtraError("YARN for tests", "spark")
    return Path(spec.origin).parent


def _write(file: Path, settings: dict[str, object]) -> None:
    properties = (f"<property><name>{name}</name><value>{escape(str(value))}</value></property>\n"
                  for name, value in settings.items())  # fmt: skip
    file.write_text(f"<configuration>\n{''.join(properties)}</configuration>\n", encoding="utf-8")
