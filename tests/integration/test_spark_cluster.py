"""The command line on a real Spark cluster, and what it says when there is none."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from polars.testing import assert_frame_equal

from fabric_beam.testing.clusters.spark import SparkCluster, free_port
from tests.integration.logs_command import DATASETS, generate, run, start, tables

pytestmark = pytest.mark.timeout(600)
OUT = ["--input", "access", "--report", "none"]


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


def test_the_logs_pipeline_runs_on_a_cluster(fleet: Path, spark_cluster: SparkCluster) -> None:
    """Relative paths, the project not installed there: the rows of DirectRunner."""
    options = [f"--spark_master={spark_cluster.url}", "--spark_executor_timeout=120"]
    code, output = _run(fleet, "--runner=SparkRunner", *options)
    assert code == 0, output
    found, expected = tables(fleet / "out"), tables(fleet / "expected")
    for name in DATASETS:
        assert_frame_equal(found[name], expected[name])


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
