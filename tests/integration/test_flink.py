"""Pipelines on Flink's mini-cluster."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import apache_beam as beam
import psutil
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import userstate
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from fabric_beam.errors import FabricBeamError, UsageError
from fabric_beam.runners.direct import DirectRunner
from fabric_beam.runners.flink import FlinkRunner
from tests.integration import logs_command

pytestmark = [
    pytest.mark.skipif(find_spec("pyflink") is None, reason="PyFlink is not installed"),
    pytest.mark.timeout(300),
]
_ROOT = Path(__file__).parents[2]


def _pipeline(runner: Any = None, *arguments: str) -> beam.Pipeline:
    return beam.Pipeline(
        runner or FlinkRunner(), options=PipelineOptions(list(arguments), pickle_library="cloudpickle")
    )


def test_windows_and_groups_are_those_of_beam() -> None:
    """Values of a key are grouped within their event-time windows."""
    with _pipeline() as p:
        grouped = (
            p
            | beam.Create([("a", 1), ("a", 2), ("b", 3), ("a", 70)])
            | beam.Map(lambda pair: TimestampedValue(pair, pair[1]))
            | beam.WindowInto(FixedWindows(60))
            | beam.GroupByKey()
            | beam.MapTuple(lambda key, values: (key, sorted(values)))
        )
        assert_that(grouped, equal_to([("a", [1, 2]), ("b", [3]), ("a", [70])]))


def test_assertions_do_not_pass_vacuously() -> None:
    """What a pipeline asserts is run: a wrong expectation fails it."""
    with pytest.raises(Exception, match="Failed assert"), _pipeline() as p:
        assert_that(p | beam.Create([1]), equal_to([2]))


_COUNT = userstate.CombiningValueStateSpec("count", sum)
_END = userstate.TimerSpec("end", userstate.TimeDomain.WATERMARK)
_COUNT_PARAM, _END_PARAM = beam.DoFn.StateParam(_COUNT), beam.DoFn.TimerParam(_END)


class _Index(beam.DoFn):
    """Numbers the values of a key, and tells how many there were when its timer fires."""

    def process(self, pair: Any, count: Any = _COUNT_PARAM, end: Any = _END_PARAM) -> Any:
        count.add(1)
        end.set(100)
        yield pair[0], count.read()

    @userstate.on_timer(_END)
    def tell(self, key: Any = beam.DoFn.KeyParam, count: Any = _COUNT_PARAM) -> Any:
        yield f"{key} in all", count.read()


def test_state_and_timers_belong_to_their_key() -> None:
    """A stateful DoFn sees all values of a key in one place, and its timers fire after them."""
    pairs = [(key, n) for key in "abcde" for n in range(3)]
    with _pipeline() as p:
        found = p | beam.Create(pairs) | beam.ParDo(_Index())
        expected = [(key, n) for key in "abcde" for n in (1, 2, 3)] + [(f"{key} in all", 3) for key in "abcde"]
        assert_that(found, equal_to(expected))


def test_counters_and_side_inputs_of_a_diamond() -> None:
    """A PCollection that is both the main and a side input is whole for each, and counted once."""
    p = _pipeline()
    numbers = p | beam.Create(range(10)) | "Count" >> beam.ParDo(_Counted())
    total = numbers | beam.CombineGlobally(sum)
    assert_that(numbers | beam.Map(lambda n, s: s - n, beam.pvalue.AsSingleton(total)), equal_to(range(36, 46)))
    result = p.run()
    [counter] = [c for c in result.metrics().query()["counters"] if c.key.metric.name == "seen"]
    assert counter.result == 10


class _Counted(beam.DoFn):
    SEEN = beam.metrics.Metrics.counter("test", "seen")

    def process(self, element: Any) -> Any:
        self.SEEN.inc()
        yield element


def _value(n: int) -> bytes:
    return random.Random(n).randbytes(20 << 20 if n == 0 else 1 << 20)


def test_large_values_cross_the_shuffle_whole() -> None:
    """A few keys with values of a megabyte, and one of many, arrive as they were sent."""
    with _pipeline() as p:
        digests = (
            p
            | beam.Create(range(8))
            | beam.Map(lambda n: (n % 2, _value(n)))
            | beam.GroupByKey()
            | beam.MapTuple(lambda key, values: (key, sorted(hashlib.sha256(value).digest() for value in values)))
        )
        expected = [(key, sorted(hashlib.sha256(_value(n)).digest() for n in range(key, 8, 2))) for key in (0, 1)]
        assert_that(digests, equal_to(expected))


class _Ours(FabricBeamError):
    """An error that knows more than its message."""


def _fail(n: int) -> int:
    raise _Ours(f"cannot read {n}")


def test_an_error_keeps_its_type_and_names_its_transform() -> None:
    """What a DoFn raises reaches the caller, with the transform's name and without Java's traceback."""
    with pytest.raises(Exception, match="while running 'Breaks'") as caught, _pipeline() as p:
        _ = p | beam.Create([7]) | "Breaks" >> beam.Map(_fail)
    seen: BaseException | None = caught.value
    while seen is not None and type(seen).__name__ != "_Ours":
        seen = seen.__cause__
    assert seen is not None
    assert "cannot read 7" in str(seen)
    assert "java" not in str(caught.value)


def test_nothing_that_reads_a_failed_stage_runs(tmp_path: Path) -> None:
    """When a stage fails, no stage after it has had an effect."""
    mark = tmp_path / "mark"
    with pytest.raises(Exception, match="cannot read"), _pipeline() as p:
        _ = (
            p
            | beam.Create([1])
            | beam.Map(_fail)
            | beam.Reshuffle()
            | beam.combiners.Count.Globally()
            | beam.Map(lambda n: mark.write_text(str(n)))
        )
    assert not mark.exists()


def test_an_unbounded_source_is_refused() -> None:
    """An unbounded pipeline is refused before anything starts, by the transform's name."""
    from apache_beam.transforms.periodicsequence import PeriodicImpulse

    p = _pipeline()
    _ = p | "Forever" >> PeriodicImpulse(fire_interval=1)
    with pytest.raises(UsageError, match=r"Forever.*FlinkRunner"):
        p.run()


@pytest.mark.parametrize(
    ("master", "message"),
    [("localhost", "expected host:port"), ("127.0.0.1:1", "Cannot reach Flink at 127.0.0.1:1")],
)
def test_a_wrong_master_is_told_at_once(master: str, message: str) -> None:
    """An address that is none, or where nothing listens, is one clear error within seconds."""
    p = _pipeline(None, f"--flink_master={master}")
    _ = p | beam.Create([1])
    started = time.monotonic()
    with pytest.raises(FabricBeamError, match=message):
        p.run()
    assert time.monotonic() - started < 10


def test_a_setting_without_a_value_is_told() -> None:
    """--flink_config takes KEY=VALUE."""
    p = _pipeline(None, "--flink_config=parallelism.default")
    _ = p | beam.Create([1])
    with pytest.raises(UsageError, match="KEY=VALUE"):
        p.run()


def _command(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "pipelines.logs", "--runner=FlinkRunner", *arguments],
        cwd=_ROOT,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def _demo(folder: Path, lines: int) -> Path:
    command = [sys.executable, "-m", "fabric_beam.demo", "--lines", str(lines), "--seed", "3", "--out", str(folder)]
    subprocess.run(command, cwd=_ROOT, check=True, capture_output=True)
    return folder / "access"


def _rows(folder: Path) -> Any:
    import polars as pl

    table = pl.read_parquet(folder / "**" / "*.parquet", hive_partitioning=False)
    return table.sort(table.columns).drop("observed_timestamp", strict=False)


def test_the_logs_pipeline_gives_the_rows_that_directrunner_gives(tmp_path: Path) -> None:
    """The main job has the same rows and a balanced ledger on Flink and on DirectRunner."""
    source = _demo(tmp_path / "demo", 20_000)
    for name in ("FlinkRunner", "DirectRunner"):
        process = _command(
            f"--runner={name}",
            f"--input={source}",
            "--format=combined",
            f"--sink=*=parquet:{tmp_path / name}",
            f"--ledger={tmp_path / name}.json",
        )
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        assert json.loads((tmp_path / f"{name}.json").read_text())["balanced"]
    for dataset in ("events", "metrics"):
        found, expected = (_rows(tmp_path / name / dataset) for name in ("FlinkRunner", "DirectRunner"))
        assert found.height > 0
        assert found.equals(expected)


@pytest.mark.parametrize("begun", ["tmp/fabric-beam-*", "out/events/.tmp-*/*"], ids=["build", "run"])
def test_ctrl_c_ends_everything(tmp_path: Path, begun: str) -> None:
    """An interrupt, while the pipeline is built or when it runs, leaves no process and no temporary files."""
    (tmp_path / "tmp").mkdir()
    source = _demo(tmp_path / "demo", 300_000)
    # The same lines again and again, so that there is still work to do when it is seen that it has begun.
    for path in list(source.iterdir()):
        for n in range(19):
            (source / f"{n}-{path.name}").hardlink_to(path)
    arguments = [f"--input={source}", "--format=combined", f"--sink=*=parquet:{tmp_path / 'out'}"]
    process = _command(*arguments, TMPDIR=str(tmp_path / "tmp"))
    until = time.monotonic() + 100
    while time.monotonic() < until and process.poll() is None:
        children = psutil.Process(process.pid).children()
        if children and any(tmp_path.glob(begun)):
            break
        time.sleep(0.05)
    assert children, "the JVM is a child of the driver"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert not list((tmp_path / "out").rglob("*.parquet"))
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("version", "message"),
    [(None, "has no bin/java"), ("echo 'openjdk version \"11.0.2\"' >&2", "is Java 11")],
)
def test_java_that_is_missing_or_too_old_is_told(tmp_path: Path, version: str | None, message: str) -> None:
    """Without a Java that Flink can use, one line says so, and how to get one."""
    home = tmp_path / "java"
    (home / "bin").mkdir(parents=True)
    if version:
        (home / "bin" / "java").write_text(f"#!/bin/sh\n{version}\n")
        (home / "bin" / "java").chmod(0o755)
    log = tmp_path / "a.log"
    log.write_text("x\n")
    process = _command(f"--input={log}", "--format=lines", "--sink=*=stdout:", JAVA_HOME=str(home))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert message in errors
    assert "Java 17 or newer" in errors
    assert "Traceback" not in errors
    shutil.rmtree(home)


@pytest.mark.parametrize("runner", ["FlinkRunner", "SparkRunner"])
def test_a_dry_run_shows_schemas_and_stages_and_starts_no_engine(tmp_path: Path, runner: str) -> None:
    """The Java that is there is not run."""
    home, log = tmp_path / "java", tmp_path / "a.log"
    (home / "bin").mkdir(parents=True)
    (home / "release").write_text('JAVA_VERSION="17.0.1"\n')
    (home / "bin" / "java").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (home / "bin" / "java").chmod(0o755)
    log.write_text("x\n")
    options = [f"--runner={runner}", f"--input={log}", "--format=lines", "--dry_run"]
    code, printed = logs_command.run(tmp_path / "out", *options, JAVA_HOME=str(home))
    assert code == 0, printed
    assert "    body: string_view" in printed
    assert f"The stages of {runner}:\nstage 1\n    impulse <- impulse" in printed
    assert not (tmp_path / "started").exists()
    assert not (tmp_path / "out").exists()


def test_flink_agrees_with_directrunner_on_many_keys() -> None:
    """Sums of a thousand keys are the same on both."""
    expected = {n: sum(range(n, 20_000, 1000)) for n in range(1000)}
    for runner in (FlinkRunner(), DirectRunner()):
        with _pipeline(runner) as p:
            sums = (
                p
                | beam.Create(range(4))
                | beam.FlatMap(lambda part: ((n % 1000, n) for n in range(part, 20_000, 4)))
                | beam.CombinePerKey(sum)
            )
            assert_that(sums, equal_to(expected.items()))
