"""A Beam pipeline as fused stages in the order they run: what every engine starts from."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_fn_api_pb2, beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import translations
from apache_beam.runners.portability.fn_api_runner.fn_runner import merge_common_environments
from apache_beam.runners.worker import bundle_processor
from apache_beam.transforms.environments import EmbeddedPythonEnvironment
from apache_beam.utils import proto_utils

from fabric_beam.errors import UsageError

_FAKE_URL = "memory"
_SDK, _PYTHON_SDK = "beam:version:sdk_base:", "beam:version:sdk_base:apache/beam_python"
_SDF_PROCESS = common_urns.sdf_components.PROCESS_SIZED_ELEMENTS_AND_RESTRICTIONS.urn
_SDF_TRUNCATE = common_urns.sdf_components.TRUNCATE_SIZED_RESTRICTION.urn

#: What is in a buffer between stages: the one impulse, the elements of a PCollection, or keys and values to be grouped.
Kind = Literal["impulse", "elements", "group"]


@dataclass(frozen=True)
class Port:
    """Where elements enter or leave a stage.

    Attributes:
        transform: the id of the read or write transform in the stage's descriptor.
        buffer: the buffer's name: a PCollection, or a grouping (`Plan.groupings`); stages that write the same buffer
            are flattened by that.
        kind: what the buffer holds.
        coder: id of the coder of the elements that pass, windowed values nested one after the other.
    """

    transform: str
    buffer: str
    kind: Kind
    coder: str


@dataclass(frozen=True)
class SideInput:
    """A side input of a stage.

    Attributes:
        transform: the transform that reads it.
        tag: its name there.
        buffer: the buffer that must be whole before the stage runs.
        pattern: Beam's URN of the access pattern, iterable or multimap.
        coder: id of the coder that takes the buffer's elements apart without the user's classes.
    """

    transform: str
    tag: str
    buffer: str
    pattern: str
    coder: str


@dataclass(frozen=True)
class TimerFamily:
    """Timers of a stateful transform.

    Attributes:
        transform: the transform.
        family: the timer family's id.
        processing_time: whether they fire by the clock and not by event time.
        coder: id of the coder that reads timers with keys as bytes.
    """

    transform: str
    family: str
    processing_time: bool
    coder: str


@dataclass(frozen=True)
class Grouping:
    """A GroupByKey between two stages.

    Attributes:
        name: its transform, and the name of its buffer.
        before: ids of two coders of what is written: keys and values as bytes, and Beam's own for the window.
        after: the same two for what is read.
        windowing: id of the windowing strategy.
    """

    name: str
    before: tuple[str, str]
    after: tuple[str, str]
    windowing: str


@dataclass(frozen=True)
class Stage:
    """Fused transforms that run together, element by element, in one process.

    Attributes:
        name: unique in the plan, and made of the names of the transforms.
        transforms: the names of the transforms that are fused in it.
        descriptor: Beam's ProcessBundleDescriptor, serialised.
        inputs: where its main input comes from.
        outputs: where its elements go to.
        side_inputs: what must be whole before it runs.
        timers: timer families of its stateful transforms.
        key: for a stage with state or timers, id of the coder of its input with keys as bytes: elements of one key must
            be run by one executor; else None.
        splittable: whether its input is restrictions of a splittable DoFn, each to be run by itself.
    """

    name: str
    transforms: tuple[str, ...]
    descriptor: bytes
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    side_inputs: tuple[SideInput, ...]
    timers: tuple[TimerFamily, ...]
    key: str | None
    splittable: bool


@dataclass(frozen=True)
class Plan:
    """A pipeline made ready for an engine.

    Attributes:
        stages: each after those it reads from.
        groupings: by the name of their buffers.
        components: Beam's Components (coders, windowing strategies), serialised: what the ids stand for.
    """

    stages: tuple[Stage, ...]
    groupings: dict[str, Grouping]
    components: bytes

    def producers(self, buffer: str) -> list[Stage]:
        """The stages that write a buffer."""
        return [stage for stage in self.stages if any(port.buffer == buffer for port in stage.outputs)]

    def consumers(self, buffer: str) -> list[Stage]:
        """The stages whose main input a buffer is."""
        return [stage for stage in self.stages if any(port.buffer == buffer for port in stage.inputs)]

    def describe(self) -> str:
        """The stages as lines of text, for `--dry_run` and messages."""
        lines = []
        for number, stage in enumerate(self.stages, 1):
            lines.append(
                f"stage {number}{' (state)' if stage.key else ''}{' (splittable)' if stage.splittable else ''}"
            )
            lines += [f"    {port.kind} <- {port.buffer}" for port in stage.inputs]
            lines += [f"    side input <- {side.buffer}" for side in stage.side_inputs]
            lines += [f"    {name}" for name in stage.transforms]
            lines += [f"    {port.kind} -> {port.buffer}" for port in stage.outputs]
        return "\n".join(lines)


def plan(pipeline: Any, *, engine: str = "", drain: bool = False, unbounded: bool = False) -> Plan:
    """Translate a Beam pipeline into fused stages by Beam's own translations.

    Args:
        pipeline: a `beam.Pipeline`, or its `beam_runner_api_pb2.Pipeline`.
        engine: the engine's name, for messages.
        drain: whether unbounded splittable DoFns are truncated, as when a job is drained.
        unbounded: whether to take unbounded sources too; each must have an end.

    Raises:
        UsageError: no engine of ours can run it; the message names the transform.

    Example:
        >>> import apache_beam as beam
        >>> p = beam.Pipeline()
        >>> _ = p | beam.Create([("a", 1)]) | beam.GroupByKey() | beam.Map(print)
        >>> [stage.inputs[0].kind for stage in plan(p).stages][-1]
        'group'
    """
    if not isinstance(pipeline, beam_runner_api_pb2.Pipeline):
        pipeline = pipeline.to_runner_api(default_environment=EmbeddedPythonEnvironment.default())
    refuse(pipeline, engine, unbounded=unbounded)
    context, stages = translations.create_and_optimize_stages(
        merge_common_environments(copy.deepcopy(pipeline)),
        phases=[
            translations.annotate_downstream_side_inputs,
            translations.annotate_stateful_dofns_as_roots,
            translations.fix_side_input_pcoll_coders,
            translations.pack_combiners,
            translations.lift_combiners,
            translations.expand_sdf,
            translations.expand_gbk,
            translations.sink_flattens,
            translations.greedily_fuse,
            translations.read_to_impulse,
            translations.impulse_to_input,
            translations.sort_stages,
            translations.add_impulse_to_dangling_transforms,
            translations.setup_timer_mapping,
            translations.populate_data_channel_coders,
        ],
        known_runner_urns=frozenset([common_urns.primitives.FLATTEN.urn, common_urns.primitives.GROUP_BY_KEY.urn]),
        # Values of a key that are too many for memory: see `fabric_beam.runners.spill`.
        use_state_iterables=True,
        is_drain=drain,
    )
    groupings: dict[str, Grouping] = {}
    planned = tuple(_stage(stage, context, groupings) for stage in stages)
    return Plan(planned, groupings, context.components.SerializeToString())


def refuse(proto: beam_runner_api_pb2.Pipeline, engine: str = "", *, unbounded: bool = False) -> None:
    """Refuse what none of our engines can do, before anything runs.

    Raises:
        UsageError: naming the transform, the engine and what to do.
    """
    who = engine or "this runner"
    refuse_streams(proto, who, unbounded=unbounded)
    environments = proto.components.environments
    for transform in proto.components.transforms.values():
        environment = environments.get(transform.environment_id)
        if environment is not None and any(
            urn.startswith(_SDK) and not urn.startswith(_PYTHON_SDK) for urn in environment.capabilities
        ):
            raise UsageError(
                f"{transform.unique_name}: {who} runs transforms of Beam's Python SDK only, and this is of another "
                "language."
            )


def refuse_streams(proto: beam_runner_api_pb2.Pipeline, who: str, *, unbounded: bool = False) -> None:
    """Refuse sources without an end, and scripts of them, on an engine that runs bounded pipelines.

    Args:
        proto: the pipeline.
        who: the engine's name, for messages.
        unbounded: whether to take unbounded sources nevertheless; each must have an end.

    Raises:
        UsageError: naming the transform, the engine and what to do.
    """
    components = proto.components
    for transform in components.transforms.values():
        name = transform.unique_name
        if transform.spec.urn == common_urns.primitives.TEST_STREAM.urn:
            raise UsageError(
                f"{name}: {who} has no TestStream. Run the test on Beam's own: beam.Pipeline(runner='DirectRunner')."
            )
        if unbounded or transform.subtransforms:
            continue
        for pcollection in transform.outputs.values():
            if components.pcollections[pcollection].is_bounded == beam_runner_api_pb2.IsBounded.UNBOUNDED:
                raise UsageError(
                    f"{name} is unbounded, and {who} runs bounded pipelines only. Use a bounded source, or PrismRunner."
                )


def _stage(stage: Any, context: Any, groupings: dict[str, Grouping]) -> Stage:
    components = context.components
    inputs: list[Port] = []
    outputs: list[Port] = []
    side_inputs: list[SideInput] = []
    timers: list[TimerFamily] = []
    key, splittable = None, False
    transforms = []
    for original in stage.transforms:
        transform = beam_runner_api_pb2.PTransform()
        transform.CopyFrom(original)
        transforms.append(transform)
        urn = transform.spec.urn
        if urn in (bundle_processor.DATA_INPUT_URN, bundle_processor.DATA_OUTPUT_URN):
            ends = transform.outputs if urn == bundle_processor.DATA_INPUT_URN else transform.inputs
            port = _port(transform, translations.only_element(ends.values()), context)
            (inputs if urn == bundle_processor.DATA_INPUT_URN else outputs).append(port)
            if port.kind == "group" and port.buffer not in groupings:
                groupings[port.buffer] = _grouping(port.buffer, context)
            transform.spec.payload = _data_spec(port.coder)
        elif urn in translations.PAR_DO_URNS:
            payload = proto_utils.parse_Bytes(transform.spec.payload, beam_runner_api_pb2.ParDoPayload)
            for tag, side in payload.side_inputs.items():
                buffer = transform.inputs[tag]
                side_inputs.append(
                    SideInput(transform.unique_name, tag, buffer, side.access_pattern.urn, _safe(context, buffer))
                )
            for family, spec in payload.timer_family_specs.items():
                coder = context.safe_coders.get(spec.timer_family_coder_id, spec.timer_family_coder_id)
                by_clock = spec.time_domain == beam_runner_api_pb2.TimeDomain.PROCESSING_TIME
                timers.append(TimerFamily(transform.unique_name, family, by_clock, coder))
            if payload.state_specs or payload.timer_family_specs:
                key = "state"
            splittable |= urn in (_SDF_PROCESS, _SDF_TRUNCATE)
    if key:
        key = context.safe_coders.get(inputs[0].coder, inputs[0].coder)
    return Stage(
        name=stage.name,
        transforms=tuple(sorted(t.unique_name for t in transforms if not _is_port(t))),
        descriptor=_descriptor(stage.name, transforms, components),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        side_inputs=tuple(side_inputs),
        timers=tuple(timers),
        key=key,
        splittable=splittable,
    )


def _is_port(transform: beam_runner_api_pb2.PTransform) -> bool:
    return transform.spec.urn in (bundle_processor.DATA_INPUT_URN, bundle_processor.DATA_OUTPUT_URN)


def _port(transform: beam_runner_api_pb2.PTransform, pcollection: str, context: Any) -> Port:
    payload = transform.spec.payload
    coder = context.data_channel_coders[pcollection]
    if payload == translations.IMPULSE_BUFFER:
        return Port(transform.unique_name, "impulse", "impulse", coder)
    kind, name = translations.split_buffer_id(payload)
    return Port(transform.unique_name, name, "group" if kind == "group" else "elements", coder)


def _safe(context: Any, pcollection: str) -> str:
    """The coder of what passes for a PCollection that takes user types for bytes."""
    coder: str = context.data_channel_coders[pcollection]
    return str(context.safe_coders.get(coder, coder))


def _grouping(name: str, context: Any) -> Grouping:
    transform = context.components.transforms[name]
    before = translations.only_element(transform.inputs.values())
    after = translations.only_element(transform.outputs.values())
    return Grouping(
        name,
        (_safe(context, before), context.data_channel_coders[before]),
        (_safe(context, after), context.data_channel_coders[after]),
        context.components.pcollections[before].windowing_strategy_id,
    )


def _data_spec(coder: str) -> bytes:
    port = beam_fn_api_pb2.RemoteGrpcPort(coder_id=coder)
    port.api_service_descriptor.url = _FAKE_URL
    return bytes(port.SerializeToString())


def _descriptor(name: str, transforms: Iterable[beam_runner_api_pb2.PTransform], components: Any) -> bytes:
    descriptor = beam_fn_api_pb2.ProcessBundleDescriptor(
        id=name,
        transforms={transform.unique_name: transform for transform in transforms},
        pcollections=dict(components.pcollections.items()),
        coders=dict(components.coders.items()),
        windowing_strategies=dict(components.windowing_strategies.items()),
        environments=dict(components.environments.items()),
    )
    descriptor.timer_api_service_descriptor.url = _FAKE_URL
    return bytes(descriptor.SerializeToString())
