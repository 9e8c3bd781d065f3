"""SparkRunner on this machine: what Beam promises, under failing workers too."""

# ruff: noqa: B008 (Beam takes its parameters from defaults.)

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
import psutil
import pyarrow as pa
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.runners.runner import PipelineState
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from fabric_beam.batches import BatchOf, to_batch
from fabric_beam.demo.__main__ import main as demo
from fabric_beam.errors import FabricBeamError, InputError
from fabric_beam.run import DONE, main
from fabric_beam.runners.spark import SparkRunner
from pipelines.logs import build
from pipelines.parts.options import parse_logs

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.timeout(300)]


def _counters(result: Any, name: str) -> list[int]:
    return [counter.committed for counter in result.metrics().query(MetricsFilter().with_name(name))["counters"]]


def _rows(folder: Path) -> pl.DataFrame:
    table = pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in sorted(folder.glob("**/*.parquet"))])
    return table.sort(table.columns)


def test_the_logs_pipeline_gives_the_rows_of_directrunner(tmp_path: Path) -> None:
    """The same events, metrics and alerts, row for row, and a ledger that balances."""
    assert demo(["--lines", "60000", "--seed", "3", "--out", str(tmp_path / "demo")]) == 0
    for runner in ("DirectRunner", "SparkRunner"):
        arguments = ["--input", str(tmp_path / "demo" / "access"), "--runner", runner, "--sink"]
        sink = f"*=parquet:{tmp_path / runner}"
        ledger = ["--ledger", str(tmp_path / f"{runner}.json"), "--report", "none"]
        assert main(parse_logs, build, [*arguments, sink, *ledger]) == DONE
    for dataset in ("events", "metrics", "alerts"):
        expected = _rows(tmp_path / "DirectRunner" / dataset)
        assert _rows(tmp_path / "SparkRunner" / dataset).equals(expected)
        assert expected.height


class _Dies(beam.DoFn):
    """Ends its worker the first time that it meets 7."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def process(self, element: int) -> Iterator[int]:
        Metrics.counter("test", "seen").inc()
        yield element
        if element == 7:
            try:
                os.close(os.open(self._mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    """Its task is run again: each row once, each count once."""
    mark = tmp_path / "died"
    p = beam.Pipeline(runner=SparkRunner())
    rows = p | beam.Create(range(100)) | beam.Reshuffle() | beam.ParDo(_Dies(str(mark)))
    assert_that(rows, equal_to(list(range(100))))
    result = p.run()
    assert result.wait_until_finish() == PipelineState.DONE
    assert mark.exists()
    assert _counters(result, "seen") == [100]


def _refuse(element: int) -> int:
    raise InputError(f"cannot read {element}")


def _break(element: int) -> int:
    return 1 // element


def test_an_error_of_ours_keeps_its_type_and_names_the_transform() -> None:
    """It is what `fabric_beam.run` prints, without a word of Java."""
    with pytest.raises(InputError, match=r"^cannot read 0 \[while running 'Read it") as raised:  # noqa: SIM117
        with beam.Pipeline(runner=SparkRunner()) as p:
            _ = p | beam.Create([0]) | "Read it" >> beam.Map(_refuse)
    assert "py4j" not in str(raised.value)


def test_an_error_of_the_users_keeps_its_type_and_says_where() -> None:
    """The note has the worker's traceback."""
    with pytest.raises(ZeroDivisionError, match="while running 'Divide") as raised:  # noqa: SIM117
        with beam.Pipeline(runner=SparkRunner()) as p:
            _ = p | beam.Create([0]) | "Divide" >> beam.Map(_break)
    assert "in _break" in raised.value.__notes__[0]
    assert "py4j" not in raised.value.__notes__[0]


def test_what_transforms_print_comes_out_once(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output, as on DirectRunner."""
    with beam.Pipeline(runner=SparkRunner()) as p:
        _ = p | beam.Create(["one", "two"]) | beam.Map(print)
    assert sorted(capsys.readouterr().out.split()) == ["one", "two"]


class _Batches(beam.DoFn):
    def process(self, number: int) -> Iterator[Any]:
        yield number % 3, to_batch(pl.DataFrame({"x": [number, number], "s": ["a", None]}))


def _forbid(batch: pa.RecordBatch) -> pa.RecordBatch:
    def reduce(*_: Any) -> None:
        raise TypeError("a batch was pickled")

    import copyreg

    copyreg.pickle(pa.RecordBatch, reduce)  # type: ignore[arg-type]
    return batch


def test_batches_cross_the_shuffle_by_the_arrow_coder() -> None:
    """Rows are not pickled: a worker in which that is forbidden gives all of them."""
    schema = pa.schema([("x", pa.int64()), ("s", pa.string_view())])
    with beam.Pipeline(runner=SparkRunner()) as p:
        keyed = p | beam.Create(range(9)) | beam.ParDo(_Batches())
        keyed.element_type = beam.typehints.KV[int, BatchOf(schema)]
        keyed |= "Forbid" >> beam.MapTuple(lambda key, batch: (key, _forbid(batch))).with_output_types(
            beam.typehints.KV[int, BatchOf(schema)]
        )
        sums = (
            keyed
            | beam.GroupByKey()
            | beam.MapTuple(lambda key, batches: (key, sum(sum(batch["x"].to_pylist()) for batch in batches)))
        )
        assert_that(sums, equal_to([(0, 18), (1, 24), (2, 30)]))


def test_a_flatten_before_a_group_by_key_brings_all_values_of_a_key_together() -> None:
    """From stages that wrote them apart."""
    with beam.Pipeline(runner=SparkRunner()) as p:
        parts = [
            p | f"C{n}" >> beam.Create([(key, n) for key in range(20)]) | f"R{n}" >> beam.Reshuffle() for n in range(3)
        ]
        grouped_values = parts | beam.Flatten() | beam.GroupByKey() | beam.MapTuple(lambda k, vs: (k, sorted(vs)))
        assert_that(grouped_values, equal_to([(key, [0, 1, 2]) for key in range(20)]))


class _Number(beam.DoFn):
    COUNT = ReadModifyWriteStateSpec("count", VarIntCoder())

    def process(self, element: Any, count: Any = beam.DoFn.StateParam(COUNT)) -> Iterator[Any]:
        number = (count.read() or 0) + 1
        count.write(number)
        yield element[0], number


def test_state_is_a_keys_own_whatever_stage_its_elements_come_from() -> None:
    """All elements of a key meet in one task."""
    with beam.Pipeline(runner=SparkRunner()) as p:
        parts = [
            p | f"C{n}" >> beam.Create([(key, n) for key in "abcdef"]) | f"R{n}" >> beam.Reshuffle() for n in range(2)
        ]
        numbered = parts | beam.Flatten() | beam.ParDo(_Number())
        assert_that(numbered, equal_to([(key, number) for key in "abcdef" for number in (1, 2)]))


def test_a_large_side_input_reaches_every_task() -> None:
    """One that is broadcast."""
    with beam.Pipeline(runner=SparkRunner()) as p:
        table = p | "Side" >> beam.Create([(n, "x" * 1000) for n in range(1000)])
        sizes = (
            p
            | beam.Create(range(10))
            | beam.Reshuffle()
            | beam.Map(lambda n, table: len(table[n]), beam.pvalue.AsDict(table))
        )
        assert_that(sizes, equal_to([1000] * 10))


def test_a_pipeline_without_elements_ends() -> None:
    """Stages without input count as run."""
    with beam.Pipeline(runner=SparkRunner()) as p:
        _ = p | beam.Create([]) | beam.GroupByKey() | beam.Map(_break)


def _sleep(element: int) -> int:
    time.sleep(60)
    return element


def test_a_run_can_be_cancelled() -> None:
    """Within seconds, and no task goes on."""
    from pyspark import SparkContext

    p = beam.Pipeline(runner=SparkRunner())
    _ = p | beam.Create([1, 2]) | beam.Reshuffle() | beam.Map(_sleep)
    result = p.run()
    assert result.state == PipelineState.RUNNING
    time.sleep(2)
    started = time.monotonic()
    assert result.cancel() == PipelineState.CANCELLED
    assert time.monotonic() - started < 20
    assert not SparkContext._active_spark_context.statusTracker().getActiveJobsIds()  # type: ignore[union-attr]


def test_a_worker_that_always_dies_is_told_in_a_sentence() -> None:
    """It names the transform, and no Java."""
    with pytest.raises(FabricBeamError, match=r"A Python worker died 4 times while running .*Kill"):  # noqa: SIM117
        with beam.Pipeline(runner=SparkRunner()) as p:
            _ = p | beam.Create([1]) | "Kill" >> beam.Map(lambda _: os.kill(os.getpid(), signal.SIGKILL))


def _eat(element: int) -> int:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    # Workers are used again: only what this one allocates here is to fail.
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (64 << 20), limits[1]))
    try:
        return len(bytearray(1 << 30)) + element
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_a_worker_without_memory_is_told_in_a_sentence() -> None:
    """The limit is a real one: it names the transform, and what to do."""
    with pytest.raises(FabricBeamError, match=r"no memory left while running 'Eat.*(?s:.)*take less"):  # noqa: SIM117
        with beam.Pipeline(runner=SparkRunner()) as p:
            _ = p | beam.Create([1]) | "Eat" >> beam.Map(_eat)
