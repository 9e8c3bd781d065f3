"""Pipelines on Prism."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import apache_beam as beam
import psutil
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from fabric_beam.runners.prism import PrismRunner, binary_path, stop_finished

pytestmark = [
    pytest.mark.skipif(not binary_path().exists(), reason="Prism is not built: that takes Go"),
    pytest.mark.timeout(300),
]


class _SlowToTell(Exception):
    """An error whose message takes so long that Prism asks meanwhile how far the bundle is."""

    def __str__(self) -> str:
        time.sleep(1)
        return "cannot read"


def _fail(_: int) -> None:
    raise _SlowToTell


def test_a_failed_pipeline_is_never_a_success() -> None:
    """An error of a DoFn fails the run, also if Prism asks after the bundle before it is told of it."""
    with pytest.raises(RuntimeError, match="cannot read"), beam.Pipeline(PrismRunner()) as p:
        _ = p | beam.Create([1]) | beam.Map(_fail)


def test_a_run_may_take_longer_than_an_answer() -> None:
    """Beam's limit for what Prism answers is none for the run."""
    with beam.Pipeline(PrismRunner(), options=PipelineOptions(["--job_server_timeout=2"])) as p:
        _ = p | beam.Create([5]) | beam.Map(time.sleep)


def test_the_next_run_ends_the_prism_of_the_last() -> None:
    """A process that runs one pipeline after the other has not a Prism for each."""
    stop_finished()
    before = psutil.Process().children()
    for _ in range(3):
        with beam.Pipeline(PrismRunner()) as p:
            _ = p | beam.Create([1])
    assert len(psutil.Process().children()) <= len(before) + 1
    stop_finished()
    assert len(psutil.Process().children()) <= len(before)


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    """An interrupt leaves no process, and no files among the output."""
    log = tmp_path / "access.log"
    log.write_text('192.0.2.1 - - [01/Mar/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "-"\n' * 3_000_000)
    command = [sys.executable, "-m", "pipelines.logs", "--runner=PrismRunner", f"--input={log}", "--format=combined"]
    process = subprocess.Popen(
        [*command, f"--sink=*=parquet:{tmp_path / 'out'}"],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 100
    while time.monotonic() < until and process.poll() is None and not list(tmp_path.glob("out/events/.tmp-*/*")):
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children, "Prism is a child of the driver"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert not list((tmp_path / "out").rglob("*.parquet"))
