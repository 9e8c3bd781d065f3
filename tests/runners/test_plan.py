"""A pipeline becomes fused stages that any engine can run."""

# ruff: noqa: B008 (Beam takes its parameters from defaults.)

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import BytesCoder
from apache_beam.internal import cloudpickle_pickler, pickler
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms.periodicsequence import PeriodicImpulse
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from fabric_beam.errors import UsageError
from fabric_beam.runners.direct import DirectRunner
from fabric_beam.runners.failures import ours
from fabric_beam.runners.plan import Plan, Stage, plan


def _stage(planned: Plan, transform: str) -> Stage:
    [stage] = [stage for stage in planned.stages if transform in stage.transforms]
    return stage


class _Remember(beam.DoFn):
    def process(self, element: Any, last: Any = beam.DoFn.StateParam(ReadModifyWriteStateSpec("last", BytesCoder()))):  # type: ignore[no-untyped-def]
        last.write(element[1])
        yield element


class _Numbers(beam.RestrictionProvider):  # type: ignore[misc]
    def initial_restriction(self, element: int) -> OffsetRange:
        return OffsetRange(0, element)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, element: int, restriction: OffsetRange) -> int:
        return restriction.size()


class _Count(beam.DoFn):
    def process(self, element: int, tracker: Any = beam.DoFn.RestrictionParam(_Numbers())) -> Iterable[int]:
        position = tracker.current_restriction().start
        while tracker.try_claim(position):
            yield position
            position += 1


def test_transforms_without_a_shuffle_between_them_are_one_stage() -> None:
    """Element-wise transforms are fused, from the impulse on."""
    p = beam.Pipeline()
    _ = p | beam.Impulse() | "A" >> beam.Map(len) | "B" >> beam.Map(str)
    [stage] = plan(p).stages
    assert {"A", "B"} <= set(stage.transforms)
    assert [port.kind for port in stage.inputs] == ["impulse"]
    assert stage.outputs == ()


def test_a_group_by_key_separates_two_stages() -> None:
    """The stage before writes the buffer that the stage after reads, in that order."""
    p = beam.Pipeline()
    _ = p | beam.Create([("a", 1)]) | beam.GroupByKey() | "After" >> beam.Map(str)
    planned = plan(p)
    [buffer] = planned.groupings
    before, after = planned.stages
    assert [port.buffer for port in before.outputs] == [buffer]
    assert [(port.buffer, port.kind) for port in after.inputs] == [(buffer, "group")]
    assert planned.producers(buffer) == [before]
    assert planned.consumers(buffer) == [after]


def test_flattened_stages_write_one_buffer() -> None:
    """What a Flatten joins is written to one buffer by all of its producers."""
    p = beam.Pipeline()
    parts = [p | f"C{n}" >> beam.Create([n]) for n in range(2)]
    _ = parts | beam.Flatten() | beam.Reshuffle()
    planned = plan(p)
    [grouping] = planned.groupings
    [flatten] = planned.producers(grouping)
    assert len(planned.producers(flatten.inputs[0].buffer)) == 2


def test_a_side_input_names_the_buffer_that_must_be_whole() -> None:
    """A side input leads back to the stage that makes it."""
    p = beam.Pipeline()
    side = p | "Side" >> beam.Create([1]) | "Double" >> beam.Map(lambda x: 2 * x)
    _ = p | "Main" >> beam.Create([1]) | "Use" >> beam.Map(lambda x, ys: (x, ys), beam.pvalue.AsList(side))
    planned = plan(p)
    [needed] = _stage(planned, "Use").side_inputs
    assert needed.transform == "Use"
    assert planned.producers(needed.buffer) == [_stage(planned, "Double")]


def test_a_transform_with_state_begins_a_stage_of_its_own() -> None:
    """Its input can then be brought together by key."""
    p = beam.Pipeline()
    _ = p | "Make" >> beam.Create([("a", b"1")]) | "State" >> beam.ParDo(_Remember())
    stage = _stage(plan(p), "State")
    assert stage.key is not None
    assert [port.kind for port in stage.inputs] == ["elements"]


def test_restrictions_begin_a_stage_of_their_own() -> None:
    """They can then be spread over all workers."""
    p = beam.Pipeline()
    _ = p | beam.Create([10]) | "Count" >> beam.ParDo(_Count())
    marked = [stage for stage in plan(p).stages if stage.splittable]
    assert ["Count/Process" in stage.transforms for stage in marked] == [True]


def test_a_plan_can_be_sent_to_workers() -> None:
    """It is the same after pickling."""
    p = beam.Pipeline()
    _ = p | beam.Create([("a", 1)]) | beam.CombinePerKey(sum)
    planned = plan(p)
    assert pickle.loads(pickle.dumps(planned)) == planned


def test_an_unbounded_source_is_refused_with_its_name_and_the_engine() -> None:
    """Nothing is half run: the pipeline is refused before anything starts."""
    p = beam.Pipeline()
    _ = p | "Tick" >> PeriodicImpulse()
    with pytest.raises(UsageError, match=r"Tick.* is unbounded, and SparkRunner runs bounded pipelines only"):
        plan(p, engine="SparkRunner")
    assert plan(p, engine="SparkRunner", unbounded=True).stages


def test_directrunner_refuses_an_unbounded_source() -> None:
    """It would gather its elements without an end."""
    p = beam.Pipeline(runner=DirectRunner())
    _ = p | "Tick" >> PeriodicImpulse()
    with pytest.raises(UsageError, match=r"Tick.* is unbounded, and DirectRunner runs bounded pipelines only"):
        p.run()


def test_a_test_stream_is_refused() -> None:
    """Its clock cannot be followed."""
    for runner in (DirectRunner(), None):
        p = beam.Pipeline(runner=runner)
        _ = p | "Script" >> TestStream().add_elements([1]).advance_watermark_to_infinity()
        with pytest.raises(UsageError, match=r"Script: \w+Runner has no TestStream"):
            p.run() if runner else plan(p, engine="SparkRunner")


class _Holds(beam.DoFn):
    """Cannot be pickled."""

    def __init__(self) -> None:
        self._numbers = (n for n in range(3))


def test_a_function_that_cannot_be_pickled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam's own error does not say which it is."""
    monkeypatch.setattr(pickler, "desired_pickle_lib", cloudpickle_pickler)
    with pytest.raises(TypeError, match="cannot pickle") as raised:
        pickler.dumps(_Holds())
    assert re.match(r"<.*_Holds object> cannot be sent to workers: cannot pickle", str(ours(raised.value)))


def test_want_of_memory_is_said_with_the_transform() -> None:
    """Beam makes a RuntimeError of it."""
    p = beam.Pipeline(runner=DirectRunner())
    _ = p | beam.Create([1]) | "Eat" >> beam.Map(lambda n: bytearray(1 << 62))
    with pytest.raises(RuntimeError) as raised:
        p.run()
    assert "no memory left while running 'Eat'" in str(ours(raised.value))


def test_a_plan_describes_itself() -> None:
    """Each stage with what it reads, does and writes."""
    p = beam.Pipeline()
    _ = p | beam.Create([("a", 1)]) | beam.GroupByKey() | "After" >> beam.Map(str)
    text = plan(p).describe()
    assert text.startswith("stage 1\n    impulse <- impulse\n")
    assert "\nstage 2\n    group <- " in text
