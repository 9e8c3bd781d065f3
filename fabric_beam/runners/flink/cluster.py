"""The Flink that a run talks to: a JVM beside this process, and a mini-cluster in it or a session cluster elsewhere."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fabric_beam.errors import FabricBeamError, MissingExtraError, UsageError
from fabric_beam.runners.java import find_java

_SECONDS, _CANCEL_SECONDS = 5.0, 20.0
#: A driver's JVM lives for minutes and moves bytes: the best compiler and collector cost it more than they give.
_JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
#: The addresses that stand for the mini-cluster.
LOCAL = ("[auto]", "[local]", "local", "auto", "")

_lock = threading.RLock()
_mini_clusters: dict[int, tuple[Any, str]] = {}


class FlinkError(FabricBeamError):
    """Flink or its cluster cannot run the job (exit code 1)."""


def check() -> None:
    """See that PyFlink and a Java that it can use are there.

    Raises:
        MissingExtraError: PyFlink is not installed.
        FabricBeamError: Java is missing or too old.
    """
    if find_spec("pyflink") is None:
        raise MissingExtraError("FlinkRunner", "flink")
    find_java("FlinkRunner")


def warm_up(master: str = "", slots: int = 0) -> None:
    """Start in the background what takes seconds: the JVM, and the mini-cluster in it if that is what will be used.

    Args:
        master: `--flink_master`.
        slots: of the mini-cluster; 0 is one a core.
    """

    def start() -> None:
        # Who needs it asks again, and gets the error; who stops it waits for both.
        with contextlib.suppress(Exception), _lock:
            gateway()
            if master in LOCAL:
                mini_cluster(slots or cores())

    threading.Thread(target=start, daemon=True).start()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def gateway() -> Any:
    """PyFlink's gateway to its JVM.

    Raises:
        FlinkError: the JVM did not start.
    """
    with _lock:
        from fabric_beam.runners.flink import seams

        environment = {
            "LOG4J_PROPERTIES": str(_quiet_log4j()),
            "FLINK_ENV_JAVA_OPTS": f"{seams.java_options()} {_JAVA_OPTIONS}",
        }
        try:
            return seams.gateway(environment)
        except Exception as error:
            raise FlinkError(f"Flink's JVM did not start: {_last_line(str(error))}") from error


def stop_java() -> None:
    """End the JVM, and the mini-cluster with it, and remove what it has put on disk; the next run starts another."""
    from fabric_beam.runners.flink import seams

    with _lock:
        seams.halt_java()
        _mini_clusters.clear()
        shutil.rmtree(_folder(), ignore_errors=True)
        _folder.cache_clear()
        worker_script.cache_clear()


@cache
def _folder() -> Path:
    atexit.register(stop_java)
    return Path(tempfile.mkdtemp(prefix="fabric-beam-"))


def new_folder() -> Path:
    """An empty folder that is removed when this process ends."""
    return Path(tempfile.mkdtemp(dir=_folder()))


def _quiet_log4j() -> Path:
    path = _folder() / "log4j.properties"
    path.write_text("rootLogger.level = OFF\n", encoding="utf-8")
    return path


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def configuration(values: dict[str, str]) -> Any:
    """Java's Configuration."""
    made = gateway().jvm.org.apache.flink.configuration.Configuration()
    for key, value in values.items():
        made.setString(key, value)
    return made


def mini_cluster(slots: int) -> str:
    """The address of a mini-cluster in the JVM, started when it is first asked for; its Python worker is this process.

    Args:
        slots: how many subtasks of a stage run side by side.

    Returns:
        host:port of its REST service, on the loopback interface.
    """
    from fabric_beam.runners.flink import seams

    with _lock:
        if slots in _mini_clusters:
            return _mini_clusters[slots][1]
        for other, _ in _mini_clusters.values():
            other.closeAsync().get()
        _mini_clusters.clear()
        gateway()
        values = {
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.bind-port": "0",
            "taskmanager.numberOfTaskSlots": str(slots),
            "taskmanager.memory.managed.size": f"{128 * slots}m",
            "taskmanager.memory.network.min": "128m",
            "taskmanager.memory.network.max": "128m",
            "io.tmp.dirs": str(_folder()),
        }
        builder = seams.java(seams.MINI_CLUSTER_CONFIGURATION).Builder()
        builder = builder.setConfiguration(configuration(values)).setNumTaskManagers(1).setNumSlotsPerTaskManager(slots)
        cluster = seams.java(seams.MINI_CLUSTER)(builder.setCommonBindAddress("127.0.0.1").build())
        cluster.start()
        _mini_clusters[slots] = (cluster, f"127.0.0.1:{cluster.getRestAddress().get().getPort()}")
        return _mini_clusters[slots][1]


@cache
def worker_script() -> Path:
    """What is Python to the mini-cluster: a script that makes this process the worker."""
    from fabric_beam.runners.flink import boot, seams

    seams.quiet()
    return boot.serve(_folder(), seams.run_worker)


def check_session(address: str, slots: int) -> None:
    """See that a session cluster can take a job now.

    Args:
        address: host:port of its REST service.
        slots: how many free slots the job needs.

    Raises:
        UsageError: the address is not one, or the cluster's Flink is of another version than PyFlink.
        FlinkError: it cannot be reached, or has too few free slots.
    """
    from pyflink.version import __version__ as version

    if not re.fullmatch(r"[^:/]+:\d+", address):
        raise UsageError(f"--flink_master={address}: expected host:port of a Flink REST service, or [local].")
    overview = _get(address, "overview")
    cluster = str(overview.get("flink-version", "unknown"))
    if cluster.split(".")[:2] != version.split(".")[:2]:
        raise UsageError(
            f"The cluster at {address} runs Flink {cluster}, and PyFlink here is {version}. "
            f"Install apache-flink=={cluster}, or use a cluster of Flink {version}."
        )
    free, total = int(overview["slots-available"]), int(overview["slots-total"])
    if free < slots:
        raise FlinkError(
            f"The cluster at {address} has {free} free of {total} task slots, and the job needs {slots}. "
            f"Wait for other jobs, add TaskManagers, or lower --parallelism."
        )


def cancel(address: str, job: str, *, submitted: bool) -> None:
    """Stop a job, and wait until Flink has done so.

    Args:
        address: host:port of the REST service.
        job: its id.
        submitted: whether Flink has it; else it may be on its way, and is waited for.
    """
    until = time.monotonic() + _CANCEL_SECONDS
    while time.monotonic() < until:
        try:
            state = _request(address, f"jobs/{job}")["state"]
            if state in ("CANCELED", "FAILED", "FINISHED"):
                return
            if state != "CANCELLING":
                _request(address, f"jobs/{job}?mode=cancel", "PATCH")
        except urllib.error.HTTPError:
            if submitted:
                return
        except OSError:
            return
        time.sleep(0.1)


def failures(address: str, job: str) -> list[str]:
    """The names of the tasks in which a job failed, one for each time, the latest first; empty if that is not known.

    Args:
        address: host:port of the REST service.
        job: its id.
    """
    try:
        found = _request(address, f"jobs/{job}/exceptions?maxExceptions=100")["exceptionHistory"]["entries"]
    except (OSError, ValueError, KeyError):
        return []
    each = [
        next((one["taskName"] for one in (entry, *entry["concurrentExceptions"]) if one.get("taskName")), "")
        for entry in found
    ]
    return [re.sub(r"( -> Sink: .*)? \(\d+/\d+\) - execution #\d+$", "", name) for name in each]


def _get(address: str, path: str) -> dict[str, Any]:
    try:
        found = _request(address, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise FlinkError(
            f"Cannot reach Flink at {address}: {reason}. Check --flink_master, and that its JobManager runs."
        ) from error
    if not isinstance(found, dict) or "slots-total" not in found:
        raise FlinkError(f"What answers at {address} is not Flink's REST service. Check --flink_master.")
    return found


def _request(address: str, path: str, method: str = "GET") -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(f"http://{address}/{path}", method=method), timeout=_SECONDS) as response:
        return json.load(response)
