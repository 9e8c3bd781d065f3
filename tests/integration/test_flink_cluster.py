"""Pipelines on a Flink session cluster of processes of its own, some of which are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import apache_beam as beam
import psutil
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from fabric_beam.errors import FabricBeamError, UsageError
from fabric_beam.runners.flink import FlinkRunner
from fabric_beam.testing.clusters.flink import FlinkCluster

pytestmark = [
    pytest.mark.skipif(find_spec("pyflink") is None, reason="PyFlink is not installed"),
    pytest.mark.timeout(400),
]
_ROOT = Path(__file__).parents[2]


def _pipeline(address: str, *arguments: str) -> beam.Pipeline:
    options = PipelineOptions([f"--flink_master={address}", *arguments], pickle_library="cloudpickle")
    return beam.Pipeline(FlinkRunner(), options=options)


def _add(key: str, n: int, t: int = 0) -> tuple[str, int]:
    print(key, file=sys.stderr, flush=True)
    return key, n + t


def _fail(n: int) -> int:
    raise FabricBeamError(f"cannot read {n}")


def test_a_session_cluster_runs_pipelines(flink_cluster: FlinkCluster) -> None:
    """Groups, side inputs and functions of this module work in workers that Flink starts."""
    with _pipeline(flink_cluster.address) as p:
        total = p | "Total" >> beam.Create([10])
        sums = p | beam.Create([("a", 1), ("b", 2), ("a", 3)]) | beam.CombinePerKey(sum)
        added = sums | beam.MapTuple(_add, t=beam.pvalue.AsSingleton(total))
        assert_that(added, equal_to([("a", 14), ("b", 12)]))


def test_an_error_ends_the_job_at_once(flink_cluster: FlinkCluster) -> None:
    """An error of a DoFn comes back with its type and its transform; Flink does not try again."""
    with (
        pytest.raises(FabricBeamError, match=r"cannot read 1.*while running 'Breaks'"),
        _pipeline(flink_cluster.address) as p,
    ):
        _ = p | beam.Create([1]) | "Breaks" >> beam.Map(_fail)
    assert flink_cluster.running_jobs() == []


def test_too_few_slots_are_told_at_once(flink_cluster: FlinkCluster) -> None:
    """A job that needs more slots than are free is refused within seconds."""
    p = _pipeline(flink_cluster.address, "--parallelism=5")
    _ = p | beam.Create([1])
    started = time.monotonic()
    with pytest.raises(FabricBeamError, match="2 free of 2 task slots, and the job needs 5"):
        p.run()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"flink-version": "1.20.1", "slots-total": 1, "slots-available": 1}, "runs Flink 1.20.1, and PyFlink here is"),
        ({"hello": "world"}, "is not Flink's REST service"),
    ],
)
def test_what_is_not_the_same_flink_is_refused(answer: dict[str, Any], message: str) -> None:
    """A cluster of another version, or a server that is no Flink, is told before a job is sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    p = _pipeline(f"127.0.0.1:{server.server_port}")
    _ = p | beam.Create([1])
    with pytest.raises((FabricBeamError, UsageError), match=message):
        p.run()
    server.shutdown()


def _logs(cluster: FlinkCluster, source: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-m", "pipelines.logs", "--runner=FlinkRunner"]
    command += [f"--flink_master={cluster.address}", f"--input={source}", "--format=combined"]
    command += [f"--sink=*=parquet:{out}", f"--ledger={out}.json"]
    return subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Access logs to read."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "fabric_beam.demo", "--lines", "400000", "--seed", "3", "--out", str(folder)]
    subprocess.run(command, cwd=_ROOT, check=True, capture_output=True)
    return folder / "access"


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The events that DirectRunner makes of them."""
    out = tmp_path_factory.mktemp("direct")
    command = [sys.executable, "-W", "ignore", "-m", "pipelines.logs", f"--input={source}", "--format=combined"]
    subprocess.run([*command, f"--sink=*=parquet:{out}"], cwd=_ROOT, check=True, capture_output=True)
    return _rows(out / "events")


def _rows(folder: Path) -> Any:
    import polars as pl

    table = pl.read_parquet(folder / "**" / "*.parquet", hive_partitioning=False)
    return table.sort("source", "offset").drop("observed_timestamp", strict=False)


def _workers(cluster: FlinkCluster) -> list[psutil.Process]:
    return [
        child
        for pid in cluster.task_managers
        if psutil.pid_exists(pid)
        for child in psutil.Process(pid).children(recursive=True)
        if "beam_boot" in " ".join(child.cmdline()) and child.name().startswith("python")
    ]


def _kill_task_manager(cluster: FlinkCluster) -> None:
    os.killpg(cluster.task_managers[-1], signal.SIGKILL)
    cluster.add_task_manager()


def _kill_worker(cluster: FlinkCluster) -> None:
    random.choice(_workers(cluster)).kill()


def _restarted(cluster: FlinkCluster) -> bool:
    """Whether Flink restarted the last job."""
    jobs = [cluster.get(f"jobs/{job['id']}") for job in cluster.get("jobs")["jobs"]]
    last = max(jobs, key=lambda job: int(job["start-time"]))
    return int(last["timestamps"]["RESTARTING"]) > 0


@pytest.mark.parametrize("kill", [_kill_worker, _kill_task_manager])
def test_a_killed_process_costs_no_row(
    kill: Callable[[FlinkCluster], None], flink_cluster: FlinkCluster, source: Path, expected: Any, tmp_path: Path
) -> None:
    """After kill -9 in mid-run the rows are those of a run in peace, none twice, and the ledger balances."""
    flink_cluster.wait_for_slots(2)
    out = tmp_path / "out"
    process = _logs(flink_cluster, source, out)
    until = time.monotonic() + 100
    while not any(out.glob("events/.tmp-*/*")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "it ended before anything could be killed"
    kill(flink_cluster)
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    assert json.loads(Path(f"{out}.json").read_text())["balanced"]
    assert _rows(out / "events").equals(expected)
    assert _restarted(flink_cluster)
    assert flink_cluster.running_jobs() == []


def _worker_runs(cluster: FlinkCluster) -> bool:
    return bool(_workers(cluster))


def _job_is_known(cluster: FlinkCluster) -> bool:
    return bool(cluster.running_jobs())


@pytest.mark.parametrize("when", [_job_is_known, _worker_runs])
def test_ctrl_c_cancels_the_job(
    when: Callable[[FlinkCluster], bool], flink_cluster: FlinkCluster, source: Path, tmp_path: Path
) -> None:
    """An interrupt, early or late, leaves no job on the cluster, no worker, and no output."""
    flink_cluster.wait_for_slots(2)
    process = _logs(flink_cluster, source, tmp_path / "out")
    until = time.monotonic() + 100
    while not when(flink_cluster) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert flink_cluster.running_jobs() == []
    until = time.monotonic() + 20
    while _workers(flink_cluster) and time.monotonic() < until:
        time.sleep(0.2)
    assert _workers(flink_cluster) == []
    assert not list((tmp_path / "out").rglob("*.parquet"))
