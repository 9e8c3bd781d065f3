"""Spark's processes on the client's machine: the JVM, and the nursery of its Python workers."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fabric_beam.errors import FabricBeamError, MissingExtraError, UsageError
from fabric_beam.runners.java import find_java
from fabric_beam.runners.spark.daemon import NURSERY

_CONNECT_SECONDS = 5.0
_LAUNCH_SECONDS = 60.0
_END_SECONDS = 30.0
_CLUSTER_END_SECONDS = 2.0
#: Modules of the JDK that Spark reaches into (org.apache.spark.launcher.JavaModuleOptions).
_OPENS = (
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
)
#: Failures come to the client as exceptions; Spark's own log repeats them with pages of Java.
_LOGGING = "rootLogger.level = {level}\nrootLogger.appenderRef.out.ref = out\nappender.out.type = Console\n"
_LOGGING += "appender.out.name = out\nappender.out.target = SYSTEM_ERR\nappender.out.layout.type = PatternLayout\n"
# Spark takes the class that starts it for an interpreter, whose level it would put in place of the root's.
_LOGGING += "logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer\nlogger.gateway.level = {level}\n"
_LOGGING += "appender.out.layout.pattern = %d{{HH:mm:ss}} %p %c{{1}}: %m%n\n"

_gateway: Any = None


@dataclass
class _Processes:
    """Spark's JVM and the nursery of its Python workers, started and perhaps not ready yet."""

    jvm: subprocess.Popen[bytes]
    nursery: subprocess.Popen[bytes] | None
    answer: Path
    memory: str
    started: float
    folder: Path
    archive: Path


_processes: _Processes | None = None


def start(master: str, memory: str = "1g", log_level: str = "OFF") -> None:
    """Start Spark's processes without waiting for them: they take the time that the client needs for its own imports.

    Args:
        master: as for `context`.
        memory: of the JVM's heap.
        log_level: of Spark's log on standard error.

    Raises:
        MissingExtraError, UsageError, FabricBeamError: as `context`.
    """
    global _processes  # noqa: PLW0603
    require()
    if _processes is not None and _processes.jvm.poll() is None:
        return
    check_master(master)
    java = find_java("SparkRunner")
    folder = Path(tempfile.mkdtemp(prefix="fabric-beam-spark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "log4j2.properties").write_text(_LOGGING.format(level=log_level), encoding="utf-8")
    answer = folder / "gateway"
    spec = find_spec("pyspark")
    assert spec is not None and spec.origin is not None
    home = os.environ.get("SPARK_HOME") or str(Path(spec.origin).parent)
    environment = {
        **os.environ,
        "SPARK_HOME": home,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),  # noqa: PTH100
        "_PYSPARK_DRIVER_CONN_INFO_PATH": str(answer),
        "SPARK_CONNECT_MODE": "0",
    }
    nursery = None
    if is_local(master):
        environment[NURSERY] = str(folder / "nursery")
        nursery = subprocess.Popen(
            [sys.executable, "-m", "fabric_beam.runners.spark.daemon", "nursery", environment[NURSERY]],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            process_group=0,
        )
    archive = _archive(java, home)
    if archive.exists():
        sharing = f"-XX:SharedArchiveFile={archive}"
    else:
        # What is kept with folders on the class path is of no use without them.
        sharing = "-Xshare:auto" if hadoop_settings() else f"-XX:ArchiveClassesAtExit={folder / archive.name}"
    # The class path that Spark's own scripts make.
    settings = os.environ.get("SPARK_CONF_DIR", f"{home}/conf")
    classes = os.pathsep.join([settings, f"{home}/jars/*", *hadoop_settings()])
    jvm = subprocess.Popen(
        [
            str(java),
            f"-Xmx{memory}",
            # The work is done in Python: the second compiler would take more time than it saves.
            "-XX:TieredStopAtLevel=1",
            sharing,
            "-Xlog:disable",
            "-XX:+UseSerialGC" if (os.cpu_count() or 1) <= 2 else "-XX:+UseParallelGC",
            "-Djdk.reflect.useDirectMethodHandle=false",
            "-Dio.netty.tryReflectionSetAccessible=true",
            f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
            *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENS),
            "-cp",
            classes,
            "org.apache.spark.api.python.PythonGatewayServer",
        ],
        env=environment,
        stdin=subprocess.PIPE,
        # A process group of its own: Ctrl-C is for Python, which cancels first.
        process_group=0,
    )
    _processes = _Processes(jvm, nursery, answer, memory, time.monotonic(), folder, archive)
    atexit.register(_end, _processes)


def _archive(java: Path, home: str) -> Path:
    """Where the JVM's classes are kept as it has them in memory: with them it starts in half of the time.

    The first run writes it, which takes that one some seconds more as it ends. Source: JEP 350.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fabric-beam"
    what = f"{java.resolve()} {java.resolve().stat().st_mtime} {home} {Path(home, 'jars').stat().st_mtime}"
    return cache / f"spark-{hashlib.sha256(what.encode()).hexdigest()[:16]}.jsa"


def _keep(made: Path, archive: Path) -> None:
    """Put a new archive of classes in its place, whole or not at all."""
    with contextlib.suppress(OSError):
        archive.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, archive.with_suffix(f".{os.getpid()}"))
        archive.with_suffix(f".{os.getpid()}").replace(archive)


def end_workers() -> None:
    """End the Python workers of this machine at once, whatever they are doing; those of a cluster, soon."""
    nursery = _processes.nursery if _processes is not None else None
    if nursery is None or nursery.stdin is None:
        time.sleep(_CLUSTER_END_SECONDS)
        return
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        nursery.stdin.close()
        nursery.wait(_END_SECONDS)


def connect() -> Any:
    """Wait for Spark's JVM and connect to it, once a process: without the shell scripts that PySpark goes through."""
    global _gateway  # noqa: PLW0603
    assert _processes is not None
    if _gateway is not None and _gateway.proc is _processes.jvm:
        return _gateway
    from pyspark import java_gateway
    from pyspark.serializers import UTF8Deserializer, read_int

    jvm, answer = _processes.jvm, _processes.answer
    while not answer.exists():
        if jvm.poll() is not None or time.monotonic() - _processes.started > _LAUNCH_SECONDS:
            jvm.kill()
            raise FabricBeamError(
                f"Spark's Java process ended before it was ready (exit code {jvm.poll()}). Is there memory for its "
                f"heap of {_processes.memory}? --spark_conf spark.driver.memory=512m asks for less."
            )
        time.sleep(0.02)
    with answer.open("rb") as file:
        port, secret = read_int(file), UTF8Deserializer().loads(file)
    # PySpark connects to a gateway that is there by these; children must not.
    os.environ |= {"PYSPARK_GATEWAY_PORT": str(port), "PYSPARK_GATEWAY_SECRET": secret}
    try:
        _gateway = java_gateway.launch_gateway()
    finally:
        del os.environ["PYSPARK_GATEWAY_PORT"], os.environ["PYSPARK_GATEWAY_SECRET"]
    _gateway.proc = jvm
    return _gateway


def _end(processes: _Processes) -> None:
    """End the JVM and the nursery: they end when their standard input does, and Python's workers with them."""
    interrupted = False
    with contextlib.suppress(Exception):
        from pyspark import SparkContext

        interrupted = SparkContext._active_spark_context is not None
        # Else objects that are collected later would be reported to a JVM that is no longer there.
        _gateway.shutdown()
    for process in (processes.jvm, processes.nursery):
        if process is None:
            continue
        with contextlib.suppress(OSError):
            if process.stdin:
                process.stdin.close()
        if interrupted:
            # In the middle of a job Spark takes its time, for which nobody waits.
            continue
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        if process is processes.jvm and (made := processes.folder / processes.archive.name).exists():
            _keep(made, processes.archive)


def require() -> None:
    """Say what to install if PySpark is not there.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec("pyspark") is None:
        raise MissingExtraError("SparkRunner", "spark")


def is_local(master: str) -> bool:
    """Whether tasks run on this machine, in Spark's one process."""
    return master == "local" or master.startswith("local[")


def check_master(master: str) -> None:
    if is_local(master):
        if not re.fullmatch(r"local(\[(\d+|\*)\s*(,\s*\d+)?\])?", master):
            raise UsageError(f"--spark_master {master!r}: local[*], local[4] or spark://host:7077 expected.")
        return
    if master.startswith("spark://"):
        addresses = master.removeprefix("spark://").split(",")
        problems = [problem for address in addresses if (problem := unreachable(address))]
        if len(problems) == len(addresses):
            raise FabricBeamError(
                f"There is no Spark master at {master}: {'; '.join(problems)}. Check the address, that the master "
                "runs, and that no firewall is between."
            )
    elif master == "yarn":
        if not hadoop_settings():
            raise UsageError(
                "--spark_master yarn: HADOOP_CONF_DIR or YARN_CONF_DIR has to name the folder of the cluster's "
                "core-site.xml and yarn-site.xml, and neither is set."
            )
    elif not master.startswith("k8s://"):
        raise UsageError(f"--spark_master {master!r}: local[*], local[4], spark://host:7077, yarn or k8s://… expected.")


def hadoop_settings() -> list[str]:
    """The folders of Hadoop's settings that the environment names."""
    return [os.environ[name] for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR") if os.environ.get(name)]


def unreachable(address: str) -> str:
    """Why there is no connection to host:port; nothing if there is one."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"The address {address!r} of the cluster: host:port expected.")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}"
    return ""
