"""A stage runs in-process: encoded elements in, encoded elements out."""

# ruff: noqa: B008 (Beam takes its parameters from defaults.)

from __future__ import annotations

import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import StrUtf8Coder, VarIntCoder
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.metrics import Metrics
from apache_beam.metrics.monitoring_infos import extract_metric_result_map_value, is_user_monitoring_info
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.timestamp import Duration
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.runners.elements import IMPULSE, Coders, Keys, elements, partition, side_input_values
from fabric_beam.runners.metrics import merge
from fabric_beam.runners.plan import plan
from fabric_beam.runners.spill import Spill
from fabric_beam.runners.stage import StageExecutor, executor

_SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    _SEEN.clear()


def _see(element: Any) -> None:
    _SEEN.append(element)


def _run(p: beam.Pipeline, memory: int = 1 << 30) -> list[Any]:
    """Run a pipeline stage after stage in this process; returns the monitoring infos of all."""
    planned = plan(p)
    coders = Coders(planned.components)
    buffers: dict[str, list[bytes]] = defaultdict(list)
    infos = []
    for stage in planned.stages:
        outputs = {port.transform: port.buffer for port in stage.outputs}
        side_inputs = {}
        for side in stage.side_inputs:
            side_inputs.update(side_input_values(side, coders, buffers[side.buffer]))

        def inputs(spill: Spill, stage: Any = stage) -> Iterator[tuple[str, bytes]]:
            for port in stage.inputs:
                chunks: Iterable[bytes] = [IMPULSE] if port.kind == "impulse" else buffers[port.buffer]
                if port.kind == "group":
                    chunks = spill.group(planned.groupings[port.buffer], chunks)
                for chunk in chunks:
                    yield port.transform, chunk

        def emit(output: str, data: bytes, outputs: dict[str, str] = outputs) -> None:
            buffers[outputs[output]].append(data)

        live = StageExecutor(stage)
        with contextlib.closing(Spill(coders, memory)) as spill:
            infos += live.run(inputs(spill), emit, side_inputs, spill)
        live.close()
    return infos


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=50) | st.integers(), st.integers(0, 200)), max_size=40),
    st.sampled_from([0, 100, 1 << 20]),
)
def test_values_are_the_same_wherever_they_are_grouped(rows: list[tuple[int, Any, int]], memory: int) -> None:
    """In memory, in files, or each key's by a token: those of a key and window, as often as they are asked for."""
    _SEEN.clear()
    expected: dict[tuple[int, int], list[str]] = defaultdict(list)
    for key, value, second in rows:
        expected[key, second // 60].append(repr(value))
    p = beam.Pipeline()
    _ = (
        p
        | beam.Create(rows, reshuffle=False)
        | beam.Map(lambda row: TimestampedValue((row[0], row[1]), row[2]))
        | beam.WindowInto(FixedWindows(60))
        | beam.GroupByKey()
        | beam.Map(
            lambda group, window=beam.DoFn.WindowParam: _see(
                ((group[0], int(window.start) // 60), [sorted(map(repr, group[1])) for _ in range(2)])
            )
        )
    )
    _run(p, memory)
    assert sorted(_SEEN) == sorted((key, [sorted(values)] * 2) for key, values in expected.items())


def test_a_key_of_many_pages_is_read_from_disk() -> None:
    """Values beyond memory come one page after another, to be gone through again, and combined."""
    values = [random.Random(n).randbytes(300_000) for n in range(20)]
    p = beam.Pipeline()
    grouped = p | beam.Create([("k", value) for value in values], reshuffle=False) | beam.GroupByKey()
    _ = grouped | "Again" >> beam.Map(lambda group: _see([sorted(group[1]) == sorted(values) for _ in range(3)]))
    _ = grouped | beam.CombineValues(max) | "Most" >> beam.Map(lambda group: _see(group[1] == max(values)))
    _run(p, memory=1 << 20)
    assert sorted(_SEEN, key=str) == [True, [True, True, True]]


def test_values_are_grouped_by_key_and_window() -> None:
    """Windows are Beam's own, keys and values pass as bytes."""
    p = beam.Pipeline()
    _ = (
        p
        | beam.Create([("a", 1), ("b", 2), ("a", 3), ("a", 61)])
        | beam.Map(lambda kv: TimestampedValue(kv, kv[1]))
        | beam.WindowInto(FixedWindows(60))
        | beam.GroupByKey()
        | beam.MapTuple(lambda key, values: (key, sorted(values)))
        | beam.Map(_see)
    )
    _run(p)
    assert sorted(_SEEN) == [("a", [1, 3]), ("a", [61]), ("b", [2])]


def test_side_inputs_are_whole() -> None:
    """Lists and multimaps, from the elements of their buffer."""
    p = beam.Pipeline()
    side = p | "Side" >> beam.Create([("a", 1), ("b", 2)])
    _ = (
        p
        | beam.Create(["a"])
        | beam.Map(
            lambda key, table, rows: (key, table[key], sorted(rows)), beam.pvalue.AsDict(side), beam.pvalue.AsList(side)
        )
        | beam.Map(_see)
    )
    _run(p)
    assert _SEEN == [("a", 1, [("a", 1), ("b", 2)])]


class _Alarm(beam.DoFn):
    VALUES = BagStateSpec("values", VarIntCoder())
    TIMER = TimerSpec("timer", TimeDomain.WATERMARK)
    LATER = TimerSpec("later", TimeDomain.WATERMARK)

    def process(
        self,
        element: Any,
        values: Any = beam.DoFn.StateParam(VALUES),
        timer: Any = beam.DoFn.TimerParam(TIMER),
        later: Any = beam.DoFn.TimerParam(LATER),
    ) -> None:
        values.add(element[1])
        later.set(100)
        timer.set(10)

    @on_timer(TIMER)
    def ring(
        self,
        key: Any = beam.DoFn.KeyParam,
        at: Any = beam.DoFn.TimestampParam,
        values: Any = beam.DoFn.StateParam(VALUES),
        timer: Any = beam.DoFn.TimerParam(TIMER),
    ) -> Iterator[Any]:
        yield key, int(at), sorted(values.read())
        if at < 30:
            timer.set(int(at) + 10)

    @on_timer(LATER)
    def ring_later(self, key: Any = beam.DoFn.KeyParam, values: Any = beam.DoFn.StateParam(VALUES)) -> Iterator[Any]:
        yield key, "later", sorted(values.read())


def test_timers_of_a_key_fire_in_order_of_time() -> None:
    """After all elements, those that are set by timers between those that wait."""
    p = beam.Pipeline()
    _ = p | beam.Create([("a", 1), ("b", 2), ("a", 3)]) | beam.ParDo(_Alarm()) | beam.Map(_see)
    _run(p)
    for key, values in (("a", [1, 3]), ("b", [2])):
        mine = [event for event in _SEEN if event[0] == key]
        assert mine == [(key, 10, values), (key, 20, values), (key, 30, values), (key, "later", values)]


class _Clock(beam.DoFn):
    TIMER = TimerSpec("timer", TimeDomain.REAL_TIME)

    def process(self, element: Any, timer: Any = beam.DoFn.TimerParam(TIMER)) -> None:
        timer.set(element[1])

    @on_timer(TIMER)
    def ring(self) -> Iterator[float]:
        yield time.time()


def test_timers_of_the_clock_wait_for_it() -> None:
    """A processing-time timer does not fire early."""
    due = time.time() + 0.5
    p = beam.Pipeline()
    _ = p | beam.Create([("a", due)]) | beam.ParDo(_Clock()) | beam.Map(_see)
    _run(p)
    assert len(_SEEN) == 1
    # Beam's timers are of whole milliseconds.
    assert _SEEN[0] >= due - 0.001


class _Pieces(beam.RestrictionProvider):  # type: ignore[misc]
    def initial_restriction(self, element: int) -> OffsetRange:
        return OffsetRange(0, element)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OffsetRestrictionTracker(restriction)

    def split(self, element: int, restriction: OffsetRange) -> Iterable[OffsetRange]:
        return restriction.split(5, 1)  # type: ignore[no-any-return]

    def restriction_size(self, element: int, restriction: OffsetRange) -> int:
        return int(restriction.size())


class _StopAfterThree(beam.DoFn):
    @beam.DoFn.unbounded_per_element()  # type: ignore[misc]
    def process(self, element: int, tracker: Any = beam.DoFn.RestrictionParam(_Pieces())) -> Iterator[int]:
        start = tracker.current_restriction().start
        for position in range(start, start + 3):
            if not tracker.try_claim(position):
                return
            yield position
        tracker.defer_remainder(Duration(0.01))


def test_residuals_are_run_until_there_are_none() -> None:
    """A splittable DoFn that checkpoints itself gives every position once."""
    p = beam.Pipeline()
    _ = p | beam.Create([12]) | beam.ParDo(_StopAfterThree()) | beam.Map(_see)
    planned = plan(p, unbounded=True)
    coders, buffers = Coders(planned.components), [IMPULSE]
    for stage in planned.stages:
        out: list[bytes] = []
        StageExecutor(stage).run(
            [(stage.inputs[0].transform, chunk) for chunk in buffers], lambda output, data, out=out: out.append(data)
        )
        if stage.outputs:
            restrictions = [one for data in out for one in elements(coders, stage.outputs[0].coder, data)]
            buffers = restrictions
    assert len(buffers) == 3
    assert sorted(_SEEN) == list(range(12))


class _Counting(beam.DoFn):
    def process(self, element: int) -> Iterator[int]:
        Metrics.counter("test", "elements").inc()
        Metrics.distribution("test", "sizes").update(element)
        yield element


def test_metrics_of_several_runs_are_merged() -> None:
    """Sums are added, distributions joined."""
    p = beam.Pipeline()
    _ = p | beam.Create([1, 5]) | beam.ParDo(_Counting())
    infos = merge([*_run(p), *_run(p)])
    values = {
        info.labels["NAME"]: extract_metric_result_map_value(info) for info in infos if is_user_monitoring_info(info)
    }
    assert values["elements"] == 4
    assert (values["sizes"].sum, values["sizes"].min, values["sizes"].max, values["sizes"].count) == (12, 1, 5, 4)


def _fail(element: int) -> int:
    raise ValueError(f"cannot do {element}")


def test_an_error_names_its_transform_and_the_executor_goes_on() -> None:
    """The next run is with new DoFns."""
    p = beam.Pipeline()
    _ = p | beam.Impulse() | beam.Map(len) | "Broken" >> beam.Map(_fail)
    [stage] = plan(p).stages
    live = StageExecutor(stage)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"cannot do 0 \[while running 'Broken"):
            live.run([(stage.inputs[0].transform, IMPULSE)], lambda output, data: None)


class _Remember(beam.DoFn):
    LAST = ReadModifyWriteStateSpec("last", StrUtf8Coder())

    def process(self, element: Any, last: Any = beam.DoFn.StateParam(LAST)) -> Iterator[Any]:
        yield element, last.read()
        last.write(element[1])


def test_state_does_not_outlive_a_run() -> None:
    """An executor that is used again for another partition begins without state."""
    p = beam.Pipeline()
    _ = p | beam.Create([("a", "1")]) | beam.ParDo(_Remember()) | beam.Map(_see)
    make, remember = plan(p).stages
    made: list[bytes] = []
    StageExecutor(make).run([(make.inputs[0].transform, IMPULSE)], lambda output, data: made.append(data))
    live = StageExecutor(remember)
    for _ in range(2):
        live.run([(remember.inputs[0].transform, data) for data in made], lambda output, data: None)
    assert _SEEN == [(("a", "1"), None)] * 2


def test_one_executor_a_stage_is_kept_alive() -> None:
    """Setting DoFns up costs: the same stage of the same run has the same executor."""
    p = beam.Pipeline()
    _ = p | beam.Impulse() | beam.Map(len)
    [stage] = plan(p).stages
    assert executor("one", stage) is executor("one", stage)
    assert executor("one", stage) is not executor("two", stage)


@given(st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=40)), max_size=30))
def test_chunks_are_taken_apart_by_key(pairs: list[tuple[int, bytes]]) -> None:
    """Each element's bytes and key, in order, nothing added and nothing lost."""
    p = beam.Pipeline()
    _ = p | beam.Create([(0, b"")]) | beam.GroupByKey()
    planned = plan(p)
    [grouping] = planned.groupings.values()
    coders = Coders(planned.components)
    coder = coders.windowed(*grouping.before)
    key_coder, value_coder = VarIntCoder(), coders[grouping.before[0]].wrapped_value_coder
    data = b"".join(
        coder.get_impl().encode_nested(beam.transforms.window.GlobalWindows.windowed_value(pair)) for pair in pairs
    )
    split = list(Keys(coders, grouping.before[0]).split(data))
    assert value_coder is not None
    assert [key for key, _ in split] == [key_coder.encode(key) for key, _ in pairs]
    assert b"".join(element for _, element in split) == data


def test_a_key_is_at_the_same_place_in_every_process() -> None:
    """The hash has no seed."""
    assert [partition(key, 4) for key in (b"a", b"b", b"c")] == [3, 1, 3]
