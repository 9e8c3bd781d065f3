"""kill -9 of what does the work, at a random moment: the rows of a run in peace, none twice, and the ledger balances.

`make soak` does each ten times and makes the account a page (`soak`).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal

from fabric_beam.testing.clusters.flink import FlinkCluster
from fabric_beam.testing.clusters.spark import SparkCluster
from tests.integration.logs_command import DATASETS, generate, run, start, tables
from tests.integration.soak import record

pytestmark = pytest.mark.timeout(1800)
_TRIES = 3
_SECONDS = 400.0
_LEFT_SECONDS = 40.0


class Engine(Protocol):
    """A cluster as these tests see it."""

    name: str
    host: str

    def arguments(self, folder: Path) -> list[str]:
        """What the command needs to run there; what it logs goes to a folder."""

    def processes(self) -> dict[str, list[psutil.Process]]:
        """What is alive and could be killed, by what it is."""

    def replace(self, what: str) -> None:
        """Start anew what the engine does not."""

    def again(self, folder: Path) -> dict[str, int]:
        """What the engine did again in the last run, and how often; empty if it saw no fault."""

    def jobs(self) -> list[str]:
        """What still runs there."""


def _children(pid: int, named: str, *, recursive: bool = False) -> list[psutil.Process]:
    """A process's children that are alive and have a name in their command; each may end while it is looked at."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=recursive):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE and named in " ".join(child.cmdline()):
                    found.append(child)
    return found


class OnSpark:
    """A standalone cluster with one worker, which starts an executor anew by itself."""

    name = "Spark"
    host = "executor"

    def __init__(self, cluster: SparkCluster) -> None:
        self._cluster = cluster

    def arguments(self, folder: Path) -> list[str]:
        conf = {
            "eventLog.enabled": "true",
            "eventLog.dir": folder.as_uri(),
            "eventLog.compress": "false",
            "eventLog.rolling.enabled": "false",
        }
        settings = [f"--spark_conf=spark.{key}={value}" for key, value in conf.items()]
        options = [f"--spark_master={self._cluster.url}", f"--spark_executor_timeout={_SECONDS}"]
        return ["--runner=SparkRunner", *options, *settings]

    def processes(self) -> dict[str, list[psutil.Process]]:
        executors = _children(self._cluster.processes[-1].pid, "CoarseGrainedExecutorBackend")
        daemons = [daemon for one in executors for daemon in _children(one.pid, "spark.daemon")]
        workers = [worker for daemon in daemons for worker in _children(daemon.pid, "spark.daemon")]
        return {"executor": executors, "Python worker": workers}

    def replace(self, what: str) -> None:
        pass

    def again(self, folder: Path) -> dict[str, int]:
        lines = [line for log in folder.iterdir() for line in log.read_text().splitlines()]
        counts: Counter[str] = Counter()
        executors = 0
        for event in map(json.loads, lines):
            executors += event["Event"] == "SparkListenerExecutorAdded"
            if event["Event"] == "SparkListenerTaskEnd" and event["Task End Reason"]["Reason"] != "Success":
                counts["tasks"] += 1
            if event["Event"] == "SparkListenerStageSubmitted" and event["Stage Info"]["Stage Attempt ID"]:
                counts["stages"] += 1
        if executors > 1:
            counts["executors"] = executors - 1
        return dict(counts)

    def jobs(self) -> list[str]:
        return self._cluster.running_applications()


class OnFlink:
    """A session cluster of two TaskManagers at a time, one slot each."""

    name = "Flink"
    host = "TaskManager"

    def __init__(self, cluster: FlinkCluster) -> None:
        self._cluster = cluster

    def arguments(self, folder: Path) -> list[str]:
        self._cluster.wait_for_slots(2)
        return ["--runner=FlinkRunner", f"--flink_master={self._cluster.address}", "--parallelism=2"]

    def processes(self) -> dict[str, list[psutil.Process]]:
        managers = _children(os.getpid(), "TaskManagerRunner")
        managers = [manager for manager in managers if manager.pid in self._cluster.task_managers]
        workers = [worker for one in managers for worker in _children(one.pid, "python -m pyflink", recursive=True)]
        return {"TaskManager": managers, "Python worker": workers}

    def replace(self, what: str) -> None:
        if what == "TaskManager":
            self._cluster.add_task_manager()

    def again(self, folder: Path) -> dict[str, int]:
        last = max((self._cluster.get(f"jobs/{job['id']}") for job in self._cluster.get("jobs")["jobs"]), key=_started)
        faults = self._cluster.get(f"jobs/{last['jid']}/exceptions?maxExceptions=20")["exceptionHistory"]["entries"]
        return {"job restarts": len(faults)} if faults else {}

    def jobs(self) -> list[str]:
        return self._cluster.running_jobs()


def _started(job: dict[str, Any]) -> int:
    return int(job["start-time"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Access logs to read."""
    return generate(tmp_path_factory.mktemp("demo"), 400_000, 3)


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """What DirectRunner makes of them."""
    out = tmp_path_factory.mktemp("direct")
    code, printed = run(out, f"--input={source}")
    assert code == 0, printed
    return tables(out)


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> Engine:
    """A cluster, by the name of its engine."""
    cluster = request.getfixturevalue(f"{request.param}_cluster")
    return OnSpark(cluster) if request.param == "spark" else OnFlink(cluster)


def _kill(engine: Engine, what: str, dice: random.Random) -> bool:
    """Kill one of them, one that computes if there is one within a second; False if none is there any more."""
    until = time.monotonic() + 1
    while (there := engine.processes()[what]) and engine.jobs():
        busy = [process for process in there if _computes(process)]
        if busy or time.monotonic() > until:
            try:
                dice.choice(busy or there).kill()
            except psutil.NoSuchProcess:
                continue
            engine.replace(what)
            return True
    return False


def _computes(process: psutil.Process) -> bool:
    # The threads of a Java process take turns.
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_RUNNING or process.name() == "java"
    return False


def _difference(out: Path, expected: dict[str, pl.DataFrame]) -> str:
    """What is other than expected, in a few lines; empty if nothing is."""
    try:
        found = tables(out)
        for name in DATASETS:
            assert_frame_equal(found[name], expected[name])
        assert not found["events"].select("source", "offset").is_duplicated().any(), "rows are there twice"
    except (AssertionError, OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


@contextlib.contextmanager
def _running(engine: Engine, source: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    (folder / "log").mkdir(parents=True)
    process = start(folder / "out", f"--input={source}", *engine.arguments(folder / "log"))
    try:
        yield process
    finally:
        process.kill()


def _first_sign(engine: Engine, process: subprocess.Popen[str]) -> float:
    """When the first Python worker is there, and stays: what they are forked from forks other things, too."""
    until = time.monotonic() + _SECONDS
    before: set[psutil.Process] = set()
    while not before & (now := set(engine.processes()["Python worker"])):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, "no Python worker came"
        before = now
        time.sleep(0.05)
    return time.monotonic()


@pytest.fixture(scope="module")
def in_peace(
    engine: Engine, source: Path, expected: dict[str, pl.DataFrame], tmp_path_factory: pytest.TempPathFactory
) -> float:
    """Seconds from the first sign of work to the last, in a run that nothing befalls, of the rows of DirectRunner."""
    folder = tmp_path_factory.mktemp("peace")
    with _running(engine, source, folder) as process:
        first = last = _first_sign(engine, process)
        while process.poll() is None:
            if engine.processes()["Python worker"]:
                last = time.monotonic()
            time.sleep(0.1)
        assert process.returncode == 0, process.communicate()[0]
    assert not (wrong := _difference(folder / "out", expected)), wrong
    return last - first


@pytest.mark.parametrize("what", ["host", "worker"])
@pytest.mark.parametrize("engine", ["spark", "flink"], indirect=True, scope="module")
def test_a_killed_process_costs_no_row(
    engine: Engine,
    what: str,
    source: Path,
    expected: dict[str, pl.DataFrame],
    in_peace: float,
    tmp_path: Path,
) -> None:
    """The rows of DirectRunner, none twice, the ledger balanced, and nothing left: no file, no process, no job."""
    what = engine.host if what == "host" else "Python worker"
    seed = time.time_ns()
    dice = random.Random(seed)
    for attempt in range(_TRIES):
        folder = tmp_path / str(attempt)
        moment = dice.random() * in_peace
        about = f"{what} killed {moment:.2f} s after the first sign of work, of about {in_peace:.2f} s (seed {seed})"
        print(about)
        with _running(engine, source, folder) as process:
            first = _first_sign(engine, process)
            time.sleep(moment)
            workers = engine.processes()["Python worker"]
            killed = _kill(engine, what, dice)
            seconds = time.monotonic() - first
            printed, _ = process.communicate(timeout=_SECONDS)
        again = engine.again(folder / "log")
        wrong = _difference(folder / "out", expected) if process.returncode == 0 else f"it failed: {printed}"
        if killed:
            ledger = folder / "out" / "ledger.json"
            account = json.loads(ledger.read_text()) if ledger.exists() else {"read": 0, "balanced": False}
            record(
                engine=engine.name,
                killed=what,
                seconds=round(seconds, 2),
                again=again,
                rows=account["read"],
                same=not wrong,
                balanced=account["balanced"],
            )
        assert not wrong, f"{about}; done again: {again}; {wrong}"
        assert psutil.wait_procs(workers, timeout=_LEFT_SECONDS)[1] == [], f"workers are left: {about}"
        assert engine.jobs() == [], about
        if again:
            return
    pytest.fail(f"{_TRIES} times the run was over, or what was killed was idle: the last was {about}")
