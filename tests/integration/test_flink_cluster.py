"""Pipelines on a Flink session cluster of processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
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
from fabric_beam.progress import PROGRESS
from fabric_beam.runners.failures import ours
from fabric_beam.runners.flink import FlinkRunner
from fabric_beam.testing.clusters.flink import FlinkCluster
from tests.integration.logs_command import generate, start

pytestmark = [
    pytest.mark.skipif(find_spec("pyflink") is None, reason="PyFlink is not installed"),
    pytest.mark.timeout(400),
]


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


def _count(n: int) -> int:
    PROGRESS.add(rows=n)
    return n


def test_what_workers_count_is_told_while_the_job_runs(flink_cluster: FlinkCluster) -> None:
    """The client's progress has the rows of all workers, each once."""
    before = PROGRESS.rows
    with _pipeline(flink_cluster.address) as p:
        _ = p | beam.Create([20, 30]) | beam.Map(_count)
    assert PROGRESS.rows - before == 50


def test_an_error_ends_the_job_at_once(flink_cluster: FlinkCluster) -> None:
    """An error of a DoFn comes back with its type and its transform; Flink does not try again."""
    with (
        pytest.raises(FabricBeamError, match=r"cannot read 1.*while running 'Breaks'"),
        _pipeline(flink_cluster.address) as p,
    ):
        _ = p | beam.Create([1]) | "Breaks" >> beam.Map(_fail)
    assert flink_cluster.running_jobs() == []


def _more_than_there_is(_: int) -> int:
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), used + (64 << 20)))
    return len(bytearray(1 << 30))


def test_a_worker_without_memory_is_told(flink_cluster: FlinkCluster) -> None:
    """What cannot be allocated is one clear error, with the transform, and is not tried again."""
    with pytest.raises(Exception, match="MemoryError") as caught, _pipeline(flink_cluster.address) as p:
        _ = p | beam.Create([1]) | "Large" >> beam.Map(_more_than_there_is)
    assert str(ours(caught.value)).startswith("A worker had no memory left while running 'Large'.")
    assert flink_cluster.running_jobs() == []


def _kill_this_worker(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_each_time_is_told(flink_cluster: FlinkCluster) -> None:
    """When Flink has restarted the job as often as it may, one clear error says what died, where, and what to do."""
    restarts = "--flink_config=restart-strategy.exponential-delay.attempts-before-reset-backoff=1"
    with (
        pytest.raises(
            FabricBeamError, match=r"lost its Python worker while running 'Large', 2 times.*dmesg.*take less"
        ),
        _pipeline(flink_cluster.address, restarts) as p,
    ):
        _ = p | beam.Create([1]) | "Large" >> beam.Map(_kill_this_worker)
    assert flink_cluster.running_jobs() == []
    until = time.monotonic() + 60
    while _workers(flink_cluster) and time.monotonic() < until:
        time.sleep(0.2)
    assert _workers(flink_cluster) == []


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


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Access logs to read."""
    return generate(tmp_path_factory.mktemp("demo"), 400_000, 3)


def _workers(cluster: FlinkCluster) -> list[psutil.Process]:
    found = []
    for pid in cluster.task_managers:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(pid).children(recursive=True):
                # Each may end while it is looked at.
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "beam_boot" in " ".join(child.cmdline()) and child.name().startswith("python"):
                        found.append(child)
    return found


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
    arguments = ["--runner=FlinkRunner", f"--flink_master={flink_cluster.address}", f"--input={source}"]
    process = start(tmp_path / "out", *arguments)
    until = time.monotonic() + 100
    while not when(flink_cluster) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert flink_cluster.running_jobs() == []
    until = time.monotonic() + 20
    while _workers(flink_cluster) and time.monotonic() < until:
        time.sleep(0.2)
    assert _workers(flink_cluster) == []
    assert not list((tmp_path / "out").rglob("*.parquet"))
