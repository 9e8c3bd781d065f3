"""A Spark standalone cluster on this machine, from the installed pyspark: a master, and worker processes.

python -m fabric_beam.testing.clusters.spark start
python -m fabric_beam.testing.clusters.spark stop
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from fabric_beam.errors import FabricBeamError, MissingExtraError
from fabric_beam.runners.java import find_java
from fabric_beam.testing.servers.process import free_port

_STATE = Path(tempfile.gettempdir()) / f"fabric-beam-spark-cluster-{os.getuid()}.json"
_SECONDS = 60.0


class SparkCluster:
    """A standalone master and its workers, on the loopback interface; a context manager.

    Args:
        workers: how many worker processes.
        cores: of each.
        memory: of each, for executors, such as `2g`.
        port: of the master; 0 is a free one.

    Example:
        >>> with SparkCluster() as cluster:  # doctest: +SKIP
        ...     print(cluster.url)
        spark://127.0.0.1:40123
    """

    def __init__(self, workers: int = 1, cores: int = 2, memory: str = "2g", port: int = 0) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fabric-beam-spark-cluster-"))
        self.processes: list[subprocess.Popen[bytes]] = []
        self._cores, self._memory, self._workers = cores, memory, workers
        self._port, self._web = port or free_port(), free_port()
        self.url = f"spark://127.0.0.1:{self._port}"

    def start(self) -> Self:
        """Start the master and the workers, and wait until they know one another.

        Raises:
            FabricBeamError: they do not within a minute.
        """
        self._launch(
            "master", "Master", "--host", "127.0.0.1", "--port", str(self._port), "--webui-port", str(self._web)
        )
        self._await(lambda: self._state() is not None, "master")
        for _ in range(self._workers):
            self.add_worker()
        self.wait_for_workers(self._workers)
        return self

    def wait_for_workers(self, count: int) -> None:
        """Wait until the master knows so many.

        Raises:
            FabricBeamError: it does not within a minute.
        """
        self._await(lambda: self._alive() >= count, "worker")

    def add_worker(self, host: str = "127.0.0.1") -> subprocess.Popen[bytes]:
        """Start one more worker, without waiting for it.

        Args:
            host: its name of this machine: Spark makes no speculative attempt on a host that has the first one.
        """
        name = f"worker-{len(self.processes)}"
        options = ["--host", host, "--webui-port", str(free_port()), "--cores", str(self._cores)]
        return self._launch(
            name, "worker.Worker", *options, "--memory", self._memory, "--work-dir", str(self.folder / name), self.url
        )

    def kill_worker(self, worker: subprocess.Popen[bytes]) -> None:
        """End a worker and its executors at once (SIGKILL), as when its machine is lost; does nothing to a dead one."""
        if worker in self.processes:
            self.processes.remove(worker)
            end(worker.pid, signal.SIGKILL)
            worker.wait(10)

    def running_applications(self) -> list[str]:
        """The ids of applications that have not ended.

        Raises:
            FabricBeamError: the master does not say.
        """
        state: Any = self._state()
        if state is None:
            raise FabricBeamError(f"Spark's master does not answer at port {self._web}.")
        return [str(application["id"]) for application in state["activeapps"]]

    def stop(self) -> None:
        """End all processes, the executors with them, and remove their folders."""
        for process in reversed(self.processes):
            end(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        self.processes = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self, name: str, what: str, *options: str) -> subprocess.Popen[bytes]:
        spec = find_spec("pyspark")
        if spec is None or spec.origin is None:
            raise MissingExtraError("A Spark cluster", "spark")
        home = Path(spec.origin).parent
        java = str(find_java("A Spark cluster"))
        scala = ".".join(next(home.glob("jars/scala-library-*.jar")).stem.split("-")[-1].split(".")[:2])
        what = what if "." in what else f"{what.lower()}.{what}"
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [java, "-Xmx512m", "-cp", f"{home}/jars/*", f"org.apache.spark.deploy.{what}", *options],
                # What Spark's own scripts set: a worker starts executors by them.
                env={
                    **os.environ,
                    "SPARK_HOME": str(home),
                    "SPARK_SCALA_VERSION": scala,
                    "SPARK_LOCAL_IP": "127.0.0.1",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A process group of its own, so that executors can be ended with their worker.
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def _state(self) -> dict[str, object] | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._web}/json/", timeout=2) as answer:
                return dict(json.load(answer))
        except (OSError, ValueError):
            return None

    def _alive(self) -> int:
        state = self._state()
        return int(str(state["aliveworkers"])) if state else 0

    def _await(self, ready: object, what: str) -> None:
        until = time.monotonic() + _SECONDS
        assert callable(ready)
        while not ready():
            dead = [process for process in self.processes if process.poll() is not None]
            if dead or time.monotonic() > until:
                log = sorted(self.folder.glob("*.log"))[-1].read_text(errors="replace")[-2000:]
                self.stop()
                raise FabricBeamError(f"Spark's {what} did not start within {_SECONDS:.0f} s. Its log ends: {log}")
            time.sleep(0.1)


def end(pid: int, how: signal.Signals = signal.SIGTERM) -> None:
    """End a process of a cluster and all of its children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, how)


def main(argv: Sequence[str] | None = None) -> int:
    """Start a cluster that stays, or stop it."""
    parser = argparse.ArgumentParser(prog="python -m fabric_beam.testing.clusters.spark", description=__doc__)
    parser.add_argument("command", choices=("start", "stop"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2, help="of each worker")
    parser.add_argument("--memory", default="2g", help="of each worker")
    parser.add_argument("--port", type=int, default=0, help="of the master (a free one)")
    options = parser.parse_args(argv)
    if _STATE.exists():
        state = json.loads(_STATE.read_text(encoding="utf-8"))
        for pid in state["pids"]:
            end(pid)
        shutil.rmtree(state["folder"], ignore_errors=True)
        _STATE.unlink()
    elif options.command == "stop":
        print("There is no cluster to stop.", file=sys.stderr)
    if options.command == "start":
        cluster = SparkCluster(options.workers, options.cores, options.memory, options.port)
        try:
            cluster.start()
        except FabricBeamError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        pids = [process.pid for process in reversed(cluster.processes)]
        _STATE.write_text(json.dumps({"pids": pids, "folder": str(cluster.folder)}), encoding="utf-8")
        print(cluster.url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
