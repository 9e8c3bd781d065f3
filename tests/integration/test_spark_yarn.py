"""The command line on YARN, by Spark's own means, and what it says when there is none."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from polars.testing import assert_frame_equal

from fabric_beam.testing.servers.process import free_port
from fabric_beam.testing.servers.yarn import YarnServer
from tests.integration.logs_command import DATASETS, generate, run, running, tables

pytest.importorskip("pyspark")
pytestmark = pytest.mark.timeout(1800)
SECONDS = 900.0
COMMAND = ["--input=access", "--report=none", "--runner=SparkRunner", "--spark_master=yarn"]
COMMAND += [f"--spark_executor_timeout={SECONDS}"]


@pytest.fixture(scope="module")
def yarn() -> Iterator[YarnServer]:
    """A ResourceManager and a NodeManager."""
    with YarnServer() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated logs in `access`."""
    made = tmp_path_factory.mktemp("fleet")
    generate(made, 5_000, 5)
    return made


def _settings(yarn: YarnServer) -> list[str]:
    return [f"--spark_conf={name}={value}" for name, value in yarn.spark.items()]


def _processes(*folders: Path) -> list[psutil.Process]:
    """What works in a folder: containers, and what they have started, do in YARN's, Python workers in the client's."""
    there = tuple(map(str, folders))
    return [process for process in psutil.process_iter(["cwd"]) if (process.info["cwd"] or "").startswith(there)]


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def _nothing_is_left(yarn: YarnServer, folder: Path) -> None:
    until = time.monotonic() + SECONDS
    while left := [*yarn.running_applications(), *_processes(yarn.folder, folder)]:
        assert time.monotonic() < until, left
        time.sleep(0.2)
    assert not list((yarn.folder / "staging").rglob("application_*"))


def test_the_logs_pipeline_runs_on_yarn(folder: Path, yarn: YarnServer) -> None:
    """Relative paths, the project not installed in the containers: the rows of DirectRunner, and nothing is left."""
    code, output = run("expected", *COMMAND[:2], folder=folder)
    assert code == 0, output
    with running("out", *COMMAND, *_settings(yarn), folder=folder, HADOOP_CONF_DIR=str(yarn.configuration)) as process:
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    found, expected = tables(folder / "out"), tables(folder / "expected")
    for name in DATASETS:
        assert_frame_equal(found[name], expected[name])
    _nothing_is_left(yarn, folder)


def test_ctrl_c_ends_the_application(folder: Path, yarn: YarnServer) -> None:
    """Once its workers are there: no container, no process and no file is left."""
    with running(
        "interrupted", *COMMAND, *_settings(yarn), folder=folder, HADOOP_CONF_DIR=str(yarn.configuration)
    ) as process:
        until = time.monotonic() + SECONDS
        while not any("spark.daemon" in _command(one) for one in _processes(yarn.folder)):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, output
    _nothing_is_left(yarn, folder)
    assert [path for path in folder.glob("interrupted/**/*") if path.is_file()] == []


def test_settings_that_are_not_there_are_said(folder: Path) -> None:
    """With the names of the variables."""
    code, output = run("out", *COMMAND, folder=folder, HADOOP_CONF_DIR="", YARN_CONF_DIR="")
    assert code == 2
    assert output.startswith("error: --spark_master yarn: HADOOP_CONF_DIR or YARN_CONF_DIR has to name the folder")


def test_no_resource_manager_is_said_within_seconds(folder: Path, tmp_path: Path) -> None:
    """Nobody listens at the address."""
    address = f"127.0.0.1:{free_port()}"
    setting = f"<property><name>yarn.resourcemanager.address</name><value>{address}</value></property>"
    (tmp_path / "yarn-site.xml").write_text(f"<configuration>{setting}</configuration>")
    code, output = run("out", *COMMAND, folder=folder, HADOOP_CONF_DIR=str(tmp_path))
    assert code == 1
    assert output.startswith(f"error: There is no YARN ResourceManager: {address}: Connection refused.")
