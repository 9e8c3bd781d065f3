"""The command line on a real Spark cluster, and what it says when there is none."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from polars.testing import assert_frame_equal

from fabric_beam.testing.clusters.spark import SparkCluster, free_port
from tests.integration.logs_command import DATASETS, generate, run, running, start, tables

pytestmark = pytest.mark.timeout(1200)
OUT = ["--input", "access", "--report", "none"]
SECONDS = 500.0


def _run(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    return run("out", *OUT, *arguments, folder=folder, **environment)


def _mine(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated logs in `access`, and DirectRunner's output of them in `expected`."""
    folder = tmp_path_factory.mktemp("fleet")
    generate(folder, 200_000, 5)
    code, output = _run(folder)
    assert code == 0, output
    (folder / "out").rename(folder / "expected")
    return folder


@pytest.fixture
def two_workers(spark_cluster: SparkCluster) -> Iterator[SparkCluster]:
    """The cluster with a second worker."""
    worker = spark_cluster.add_worker("localhost")
    spark_cluster.wait_for_workers(2)
    yield spark_cluster
    spark_cluster.kill_worker(worker)


def _on_two(cluster: SparkCluster) -> list[str]:
    """Options that take a core of each of two workers."""
    options = ["--runner=SparkRunner", f"--spark_master={cluster.url}", "--spark_executor_timeout=120"]
    return [*options, "--spark_conf=spark.executor.cores=1", "--spark_conf=spark.cores.max=2"]


def test_the_logs_pipeline_runs_on_a_cluster(fleet: Path, two_workers: SparkCluster) -> None:
    """Relative paths, the project not installed there, two workers: the rows of DirectRunner."""
    code, output = _run(fleet, *_on_two(two_workers))
    assert code == 0, output
    found, expected = tables(fleet / "out"), tables(fleet / "expected")
    for name in DATASETS:
        assert_frame_equal(found[name], expected[name])
    applications = [list(folder.glob("app-*")) for folder in two_workers.folder.glob("worker-*") if folder.is_dir()]
    assert all(applications), "a worker had no executor"


def test_a_lost_machine_costs_no_row(fleet: Path, two_workers: SparkCluster) -> None:
    """One worker and its executor are killed while both compute: every row once, and the ledger balances."""
    lost = two_workers.processes[-1]
    with running("lost", *OUT, *_on_two(two_workers), folder=fleet) as process:
        until = time.monotonic() + SECONDS
        while len([one for one in _executors(two_workers) if _python_workers(one)]) < 2:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until, "not both workers have something to do"
            time.sleep(0.05)
        two_workers.kill_worker(lost)
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    found, expected = tables(fleet / "lost"), tables(fleet / "expected")
    for name in DATASETS:
        assert_frame_equal(found[name], expected[name])
    assert not two_workers.running_applications()


def test_a_slow_attempt_is_overtaken_by_a_speculative_one(
    fleet: Path, two_workers: SparkCluster, tmp_path: Path
) -> None:
    """A Python worker is frozen with a file open: every row once, the file whole, and the ledger balances."""
    conf = {
        "speculation": "true",
        "speculation.quantile": "0.5",
        "speculation.task.duration.threshold": "5s",
        "eventLog.enabled": "true",
        "eventLog.dir": tmp_path.as_uri(),
        "eventLog.compress": "false",
        "eventLog.rolling.enabled": "false",
    }
    settings = [f"--spark_conf=spark.{key}={value}" for key, value in conf.items()]
    with running("speculative", *OUT, *_on_two(two_workers), *settings, folder=fleet) as process:
        until = time.monotonic() + SECONDS
        while (frozen := _frozen(two_workers)) is None:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until, "no worker had a file open"
        try:
            output, _ = process.communicate(timeout=SECONDS)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                frozen.resume()
    assert process.returncode == 0, output
    found, expected = tables(fleet / "speculative"), tables(fleet / "expected")
    for name in DATASETS:
        assert_frame_equal(found[name], expected[name])
    events = [json.loads(line) for log in tmp_path.iterdir() for line in log.read_text().splitlines()]
    ended = [event for event in events if event["Event"] == "SparkListenerTaskEnd"]
    assert any(e["Task Info"]["Speculative"] and e["Task End Reason"]["Reason"] == "Success" for e in ended)


def test_executors_that_are_always_killed_are_told_in_a_sentence(fleet: Path, spark_cluster: SparkCluster) -> None:
    """By signal 9, as the system does for want of memory: what died, how, what to do; and no process is left."""
    options = [f"--spark_master={spark_cluster.url}", "--spark_executor_timeout=120", "--spark_conf=spark.cores.max=1"]
    with running("killed", *OUT, "--runner=SparkRunner", *options, folder=fleet) as process:
        while process.poll() is None:
            for executor in _executors(spark_cluster):
                # One that has no Python worker yet has no task that its death could count for.
                if _python_workers(executor):
                    executor.kill()
            time.sleep(0.1)
        output = process.communicate()[0]
    assert process.returncode == 1, output
    assert re.search(r"error: An executor died 4 times while running .*137.*want of memory", output), output
    assert "Traceback" not in output
    until = time.monotonic() + 60
    while _executors(spark_cluster) or spark_cluster.running_applications():
        assert time.monotonic() < until
        time.sleep(0.1)
    assert [path for path in fleet.glob("killed/**/*") if path.is_file()] == []


def _executors(cluster: SparkCluster) -> list[psutil.Process]:
    workers = [process.pid for process in cluster.processes[1:]]
    return [one for pid in workers for one in _children(pid) if "CoarseGrainedExecutorBackend" in _command(one)]


def _python_workers(executor: psutil.Process) -> list[psutil.Process]:
    """They are children of a daemon."""
    daemons = [child for child in _children(executor.pid) if "spark.daemon" in _command(child)]
    return [worker for daemon in daemons for worker in _children(daemon.pid)]


def _frozen(cluster: SparkCluster) -> psutil.Process | None:
    """A Python worker that was stopped in the middle of a file, if one could be caught there."""
    for worker in (worker for executor in _executors(cluster) for worker in _python_workers(executor)):
        with contextlib.suppress(psutil.Error):
            if any(".tmp-" in file.path for file in worker.open_files()):
                worker.suspend()
                if any(".tmp-" in file.path for file in worker.open_files()):
                    return worker
                worker.resume()
    return None


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children()
    return []


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def test_no_executor_is_said_within_seconds(fleet: Path, spark_cluster: SparkCluster) -> None:
    """A cluster without room does not let the command hang."""
    options = ["--spark_conf", "spark.executor.memory=64g", "--spark_executor_timeout=3"]
    code, output = _run(fleet, "--runner=SparkRunner", f"--spark_master={spark_cluster.url}", *options)
    assert code == 1
    assert f"error: {spark_cluster.url} gave no executor within 3 s" in output
    assert "Traceback" not in output


def test_no_master_is_said_within_seconds(fleet: Path) -> None:
    """Nobody listens at the address."""
    url = f"spark://127.0.0.1:{free_port()}"
    code, output = _run(fleet, "--runner=SparkRunner", f"--spark_master={url}")
    assert code == 1
    assert output.startswith(f"error: There is no Spark master at {url}")


def test_a_missing_java_is_said_within_seconds(fleet: Path, tmp_path: Path) -> None:
    """With what to install."""
    code, output = _run(fleet, "--runner=SparkRunner", PATH=str(tmp_path), JAVA_HOME=str(tmp_path))
    assert code == 1
    assert output.startswith(f"error: SparkRunner: Java 17 or newer is needed, and JAVA_HOME is {tmp_path}, and has no")


def test_an_old_java_is_said_within_seconds(fleet: Path, tmp_path: Path) -> None:
    """With its version."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    code, output = _run(fleet, "--runner=SparkRunner", JAVA_HOME=str(tmp_path))
    assert code == 1
    assert output.startswith(f"error: SparkRunner: Java 17 or newer is needed, and {java} is Java 11.")


def test_a_wrong_master_is_a_usage_error(fleet: Path) -> None:
    """With what is expected."""
    code, output = _run(fleet, "--runner=SparkRunner", "--spark_master=locl[2]")
    assert code == 2
    assert output.startswith("error: --spark_master 'locl[2]': local[*], local[4], spark://host:7077")


def test_ctrl_c_leaves_no_process_and_no_file(fleet: Path) -> None:
    """In the middle of a run on this machine."""
    for old in (fleet / "interrupted").glob("**/*"):
        assert not old
    process = start("interrupted", *OUT, "--runner=SparkRunner", "--spark_master=local[2]", folder=fleet)
    until = time.monotonic() + 100
    while time.monotonic() < until and not list(fleet.glob("interrupted/*/.tmp-*")):
        time.sleep(0.1)
    time.sleep(1)
    children = _mine(process)
    assert len(children) > 1
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted: the output is not complete" in output
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []
    assert [path for path in fleet.glob("interrupted/**/*") if path.is_file()] == []
