"""A Flink session cluster from the installed PyFlink: a JobManager and TaskManagers, each a process of its own.

python -m fabric_beam.testing.clusters.flink start|stop [--folder FOLDER] [--slots N] [--task_managers N]
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
import time
import urllib.request
from pathlib import Path
from typing import Any

from fabric_beam.errors import FabricBeamError
from fabric_beam.runners.java import find_java
from fabric_beam.testing.servers.process import free_ports

_FOLDER = Path("out") / "flink-cluster"
_READY_SECONDS = 60.0
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"


class FlinkCluster:
    """A session cluster on this machine, in a folder that holds its configuration, logs and process ids.

    Args:
        folder: made by `start`, removed by `stop`.
    """

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._folder = folder.absolute()
        self._state = self._folder / "cluster.json"

    @property
    def address(self) -> str:
        """host:port of its REST service: what `--flink_master` takes."""
        return f"127.0.0.1:{self._read()['port']}"

    @property
    def task_managers(self) -> list[int]:
        """The process ids of the TaskManagers that were started, the oldest first."""
        return [int(pid) for pid in self._read()["task_managers"]]

    def start(self, *, slots: int = 2, task_managers: int = 1) -> str:
        """Start the cluster and wait until all slots are there.

        Args:
            slots: of each TaskManager.
            task_managers: how many.

        Returns:
            Its address.

        Raises:
            FabricBeamError: it is running already, or does not become ready.
        """
        if self._state.exists():
            raise FabricBeamError(f"A Flink cluster was started in {self._folder} before. Stop it first.")
        rest, rpc, blob = free_ports(3)
        configuration = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.bind-host": "127.0.0.1",
            "jobmanager.rpc.port": rpc,
            "blob.server.port": blob,
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": rest,
            "rest.bind-port": rest,
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.numberOfTaskSlots": slots,
            "taskmanager.cpu.cores": slots,
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "64m",
            "taskmanager.memory.jvm-metaspace.size": "192m",
            "taskmanager.memory.jvm-overhead.min": "64m",
            "taskmanager.memory.jvm-overhead.max": "64m",
            "taskmanager.memory.task.heap.size": "256m",
            "taskmanager.memory.task.off-heap.size": "64m",
            "taskmanager.memory.managed.size": f"{128 * slots}m",
            "taskmanager.memory.network.min": "128m",
            "taskmanager.memory.network.max": "128m",
            "io.tmp.dirs": str(self._folder / "tmp"),
            # A TaskManager that was killed is missed within seconds.
            "heartbeat.interval": 1000,
            "heartbeat.timeout": 6000,
            "heartbeat.rpc-failure-threshold": 1,
        }
        for name in ("conf", "log", "tmp"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in configuration.items())
        (self._folder / "conf" / "config.yaml").write_text(text, encoding="utf-8")
        self._write({"port": rest, "slots": slots, "job_manager": 0, "task_managers": []})
        try:
            state = self._read()
            state["job_manager"] = self._spawn(_JOB_MANAGER, "jobmanager", "-Xmx384m")
            self._write(state)
            for _ in range(task_managers):
                self.add_task_manager()
            self.wait_for_slots(slots * task_managers)
        except BaseException:
            self._end_processes()
            self._state.unlink()
            raise
        return self.address

    def add_task_manager(self) -> int:
        """Start one more TaskManager; `wait_for_slots` says when it is there.

        Returns:
            Its process id.
        """
        state = self._read()
        name = f"taskmanager-{len(state['task_managers'])}"
        pid = self._spawn(_TASK_MANAGER, name, "-Xmx384m", "-XX:MaxDirectMemorySize=384m")
        state["task_managers"].append(pid)
        self._write(state)
        return pid

    def wait_for_slots(self, free: int) -> None:
        """Wait until so many slots are free.

        Raises:
            FabricBeamError: they are not within a minute.
        """
        until = time.monotonic() + _READY_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(OSError, ValueError):
                if int(self.get("overview")["slots-available"]) >= free:
                    return
            time.sleep(0.2)
        raise FabricBeamError(f"The Flink cluster in {self._folder} did not become ready. See its folder log/.")

    def get(self, path: str) -> Any:
        """What its REST service answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{self.address}/{path}", timeout=5) as response:
            return json.load(response)

    def running_jobs(self) -> list[str]:
        """The ids of jobs that have not ended."""
        ended = {"FINISHED", "CANCELED", "FAILED"}
        return [job["id"] for job in self.get("jobs")["jobs"] if job["status"] not in ended]

    def stop(self) -> None:
        """End all of its processes, and remove its folder; does nothing if there is none."""
        if self._state.exists():
            self._end_processes()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _end_processes(self) -> None:
        state = self._read()
        pids = [pid for pid in (state["job_manager"], *state["task_managers"]) if pid]
        for pid in pids:
            _end(pid, signal.SIGTERM)
        until = time.monotonic() + 10
        while any(map(_alive, pids)) and time.monotonic() < until:
            time.sleep(0.1)
        for pid in pids:
            _end(pid, signal.SIGKILL)

    def _spawn(self, entry_point: str, name: str, *options: str) -> int:
        import pyflink

        from fabric_beam.runners.flink.seams import java_options

        home = Path(pyflink.__file__).parent
        jars = [*(home / "lib").glob("*.jar"), *(home / "opt").glob("flink-python-*.jar")]
        log4j = self._folder / "conf" / "log4j.properties"
        log4j.write_text(_LOG4J, encoding="utf-8")
        command = [
            str(find_java("Flink")),
            *java_options().split(),
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            *options,
            f"-Dlog4j.configurationFile={log4j}",
            f"-Dlog.file={self._folder / 'log' / name}.log",
            "-cp",
            os.pathsep.join(map(str, jars)),
            entry_point,
            "--configDir",
            str(self._folder / "conf"),
        ]
        with (self._folder / "log" / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        return process.pid

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._state.read_text(encoding="utf-8"))
        return found

    def _write(self, state: dict[str, Any]) -> None:
        self._state.write_text(json.dumps(state), encoding="utf-8")


_LOG4J = """\
rootLogger.level = INFO
rootLogger.appenderRef.file.ref = File
appender.file.name = File
appender.file.type = FILE
appender.file.fileName = ${sys:log.file}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} - %m%n
"""


def _end(pid: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, how)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fabric_beam.testing.clusters.flink", description=__doc__)
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("--folder", type=Path, default=_FOLDER)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--task_managers", type=int, default=1)
    options = parser.parse_args()
    cluster = FlinkCluster(options.folder)
    try:
        if options.action == "start":
            print(cluster.start(slots=options.slots, task_managers=options.task_managers))
        else:
            cluster.stop()
    except FabricBeamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
