"""The command line on a real Spark cluster, and what it says when there is none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from fabric_beam.demo.__main__ import main as demo
from fabric_beam.testing.clusters.spark import SparkCluster, free_port

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]


def _command(folder: Path, *arguments: str) -> list[str]:
    options = ["--input", "access", "--report", "none", "--ledger", "ledger.json", "--sink", "*=parquet:out"]
    return [sys.executable, "-W", "ignore", "-m", "pipelines.logs", *options, *arguments]


def _start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        _command(folder, *arguments),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    process = _start(folder, *arguments, **environment)
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


def _rows(folder: Path) -> pl.DataFrame:
    table = pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in sorted(folder.glob("**/*.parquet"))])
    return table.sort(table.columns)


def _mine(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated logs in `access`, and DirectRunner's output of them in `expected`."""
    folder = tmp_path_factory.mktemp("fleet")
    assert demo(["--lines", "200000", "--seed", "5", "--out", str(folder)]) == 0
    code, output = _run(folder)
    assert code == 0, output
    (folder / "out").rename(folder / "expected")
    return folder


def _check(folder: Path) -> None:
    for dataset in ("events", "metrics", "alerts"):
        assert _rows(folder / "out" / dataset).equals(_rows(folder / "expected" / dataset))
    ledger: dict[str, Any] = json.loads((folder / "ledger.json").read_text())
    assert ledger["balanced"]
    assert not list((folder / "out").glob("*/.tmp-*"))


def test_the_logs_pipeline_runs_on_a_cluster(fleet: Path, spark_cluster: SparkCluster) -> None:
    """Relative paths, the project not installed there: the rows of DirectRunner."""
    code, output = _run(fleet, "--runner=SparkRunner", f"--spark_master={spark_cluster.url}")
    assert code == 0, output
    _check(fleet)


def test_a_killed_executor_changes_nothing(fleet: Path, spark_cluster: SparkCluster) -> None:
    """kill -9 in the middle of the run: the same rows, none twice, and the ledger balances."""
    process = _start(fleet, "--runner=SparkRunner", f"--spark_master={spark_cluster.url}")
    worker = psutil.Process(spark_cluster.processes[-1].pid)
    until = time.monotonic() + 100
    killed = False
    while not killed and time.monotonic() < until and process.poll() is None:
        for executor in worker.children():
            # It has begun its work when its Python workers have.
            if any("daemon" in " ".join(child.cmdline()) for child in executor.children()):
                time.sleep(5)
                executor.kill()
                killed = True
        time.sleep(0.1)
    output, _ = process.communicate(timeout=200)
    assert killed
    assert process.returncode == 0, output
    _check(fleet)


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
    process = _start(fleet, "--runner=SparkRunner", "--spark_master=local[2]", "--sink", "*=parquet:interrupted")
    until = time.monotonic() + 100
    while time.monotonic() < until and not list(fleet.glob("interrupted/*/.tmp-*")):
        time.sleep(0.1)
    time.sleep(1)
    children = _mine(process)
    assert len(children) > 1
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted: nothing was put in place." in output
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []
    assert [path for path in fleet.glob("interrupted/**/*") if path.is_file()] == []
