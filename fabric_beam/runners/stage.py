"""One fused stage run in this process by Beam's own bundle machinery: encoded elements in, encoded elements out."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2, beam_runner_api_pb2, metrics_pb2
from apache_beam.runners import pipeline_context
from apache_beam.runners.portability.fn_api_runner.worker_handlers import StateServicer
from apache_beam.runners.worker import bundle_processor, data_plane, sdk_worker
from apache_beam.runners.worker.statecache import StateCache
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from fabric_beam.runners.metrics import merge
from fabric_beam.runners.plan import Stage, TimerFamily
from fabric_beam.runners.spill import Spill

#: Takes the name of an output's transform and encoded elements.
Emit = Callable[[str, bytes], None]
#: Side inputs by what they are asked for (`fabric_beam.runners.elements.side_input_values`).
SideInputs = Mapping[bytes, bytes]

_CHUNK = 1 << 20
_STATE_CACHE_BYTES = 100 << 20


class StageExecutor:
    """Runs a stage, one bundle after another; what a worker keeps alive between them.

    Elements pass as Beam encodes them: windowed values, nested, one after the other in a chunk of bytes. Inputs are
    taken one chunk at a time and outputs given away as soon as a mebibyte is full: a bundle may be larger than memory.

    Args:
        stage: from a plan; picklable, while the executor itself is not.

    Example:
        >>> import apache_beam as beam
        >>> from fabric_beam.runners.elements import IMPULSE
        >>> from fabric_beam.runners.plan import plan
        >>> p = beam.Pipeline()
        >>> _ = p | beam.Impulse() | beam.Map(len) | beam.Map(print)
        >>> [stage] = plan(p).stages
        >>> _ = StageExecutor(stage).run([(stage.inputs[0].transform, IMPULSE)], emit=lambda output, data: None)
        0
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._channel = _Channel()
        self._state = _State()
        self._cache = StateCache(_STATE_CACHE_BYTES)
        self._descriptor = beam_fn_api_pb2.ProcessBundleDescriptor.FromString(stage.descriptor)
        self._runs = itertools.count()
        context = pipeline_context.PipelineContext(_components(self._descriptor))
        self._timer_coders = {_id(timer): context.coders[timer.coder].get_impl() for timer in stage.timers}
        self._processor: Any = None

    def run(
        self,
        inputs: Iterable[tuple[str, bytes]],
        emit: Emit,
        side_inputs: SideInputs | None = None,
        spill: Spill | None = None,
    ) -> list[metrics_pb2.MonitoringInfo]:
        """Run the stage on all of its input: elements, then the residuals of splittable DoFns, then timers in order.

        Args:
            inputs: names of inputs' transforms (`Port.transform`) and chunks of encoded elements.
            emit: takes the outputs as they come.
            side_inputs: what `side_input_values` made of the stage's side inputs.
            spill: what grouped the inputs, if they may have values that are on disk.

        Returns:
            Beam's monitoring infos, of all bundles together.

        Raises:
            Exception: what a transform raised, with its name in the message.
        """
        self._state._state.clear()
        self._state._ordered_list_keys.clear()
        self._state.spill = spill
        if side_inputs:
            self._state._state.update({key: [value] for key, value in side_inputs.items()})
        token = f"{self._stage.name}-{next(self._runs)}"
        infos: list[metrics_pb2.MonitoringInfo] = []
        pending = _Timers(self._stage.timers, self._timer_coders)
        try:
            bundle: Iterable[Any] = self._elements(inputs)
            while bundle:
                residuals, more = self._bundle(token, bundle, emit, pending)
                infos = merge([*infos, *more]) if infos else more
                if residuals:
                    _wait(residuals)
                    bundle = [self._element(residual.application) for residual in residuals]
                else:
                    bundle = pending.due()
        except BaseException:
            self._processor = None
            raise
        finally:
            self._state._state.clear()
            self._state.spill = None
            self._cache.invalidate_all()
        return infos

    def close(self) -> None:
        """Tear the stage's DoFns down."""
        processor, self._processor = self._processor, None
        if processor is not None:
            processor.shutdown()

    def _bundle(
        self, token: str, inputs: Iterable[Any], emit: Emit, pending: _Timers
    ) -> tuple[list[Any], list[metrics_pb2.MonitoringInfo]]:
        if self._processor is None:
            handler = sdk_worker.GlobalCachingStateHandler(self._cache, self._state)
            self._processor = bundle_processor.BundleProcessor(
                frozenset(), self._descriptor, handler, data_plane.InMemoryDataChannelFactory(self._channel)
            )
        else:
            self._processor.reset()
        self._channel.open(inputs, emit, pending.set)
        tokens = [
            beam_fn_api_pb2.ProcessBundleRequest.CacheToken(
                user_state=beam_fn_api_pb2.ProcessBundleRequest.CacheToken.UserState(), token=token.encode()
            )
        ]
        try:
            with self._processor.state_handler.process_instruction_id("bundle", tokens):
                residuals, finalizes = self._processor.process_bundle("bundle")
                infos = self._processor.monitoring_infos()
            if finalizes:
                # A splittable DoFn that checkpoints itself may wait for it, so not at the end of the run.
                self._processor.finalize_bundle()
            return residuals, infos
        finally:
            self._channel.close()

    def _elements(self, inputs: Iterable[tuple[str, bytes]]) -> Iterator[Any]:
        for transform, data in inputs:
            yield beam_fn_api_pb2.Elements.Data(transform_id=transform, data=data)

    def _element(self, application: Any) -> Any:
        """What is left of an element, as an input of the stage again."""
        pcollection = self._descriptor.transforms[application.transform_id].inputs[application.input_id]
        for port in self._stage.inputs:
            reads = self._descriptor.transforms[port.transform].outputs.values()
            truncated = [
                output
                for transform in self._descriptor.transforms.values()
                if set(transform.inputs.values()) & set(reads)
                for output in transform.outputs.values()
            ]
            if pcollection in reads or pcollection in truncated:
                return beam_fn_api_pb2.Elements.Data(transform_id=port.transform, data=application.element)
        raise RuntimeError(f"Nothing feeds {application.transform_id}.")


class _State(StateServicer):
    """State and side inputs in memory, values of keys that are too many for that on disk."""

    spill: Spill | None = None

    def get_raw(self, state_key: Any, continuation_token: bytes | None = None) -> Any:
        if self.spill is not None and state_key.WhichOneof("type") == "runner":
            return self.spill.read(state_key.runner.key, continuation_token)
        return super().get_raw(state_key, continuation_token)


def _wait(residuals: Iterable[Any]) -> None:
    """Wait as long as a splittable DoFn that deferred its remainder asked for at least."""
    delays = [r.requested_time_delay.seconds + r.requested_time_delay.nanos / 1e9 for r in residuals]
    if (least := min(delays)) > 0:
        time.sleep(least)


def _id(timer: TimerFamily) -> tuple[str, str]:
    return timer.transform, timer.family


class _Channel(data_plane.DataChannel):
    """The data plane of one executor: inputs are drawn from an iterable, outputs go to a function."""

    def __init__(self) -> None:
        self._inputs: Iterable[Any] = ()
        self._emit: Emit = _nowhere
        self._set_timers: Callable[[tuple[str, str], bytes], None] = _nowhere

    def open(self, inputs: Iterable[Any], emit: Emit, set_timers: Callable[[tuple[str, str], bytes], None]) -> None:
        self._inputs, self._emit, self._set_timers = inputs, emit, set_timers

    def input_elements(self, instruction_id: str, expected_inputs: Any, abort_callback: Any = None) -> Iterator[Any]:
        yield from self._inputs

    def output_stream(self, instruction_id: str, transform_id: str) -> Any:
        emit = self._emit

        def give(data: bytes) -> None:
            if data:
                emit(transform_id, data)

        return data_plane.SizeBasedBufferingClosableOutputStream(give, give, _CHUNK)

    def output_timer_stream(self, instruction_id: str, transform_id: str, timer_family_id: str) -> Any:
        set_timers = self._set_timers

        def give(data: bytes) -> None:
            if data:
                set_timers((transform_id, timer_family_id), data)

        return data_plane.SizeBasedBufferingClosableOutputStream(give, give, _CHUNK)

    def close(self) -> None:
        self._inputs, self._emit, self._set_timers = (), _nowhere, _nowhere


def _nowhere(_: Any, data: bytes) -> None:
    """Takes what is sent while no bundle runs: nothing."""


class _Timers:
    """Timers that are set: each key's fire in order of time, event time first as the input is whole."""

    def __init__(self, families: Iterable[TimerFamily], coders: Mapping[tuple[str, str], Any]) -> None:
        self._by_clock = {_id(family): family.processing_time for family in families}
        self._coders = coders
        #: By transform, key and window, then by family and tag: a timer that is set again replaces the one before.
        self._set: dict[tuple[str, Any, Any], dict[tuple[str, str], Any]] = {}

    def set(self, family: tuple[str, str], data: bytes) -> None:
        for timer in self._coders[family].decode_all(data):
            owner = (family[0], timer.user_key, timer.windows[0])
            timers = self._set.setdefault(owner, {})
            name = (family[1], timer.dynamic_timer_tag)
            if timer.clear_bit:
                timers.pop(name, None)
            else:
                timers[name] = timer
            if not timers:
                del self._set[owner]

    def due(self) -> list[Any]:
        """The next timer of each key, as a bundle's input; waits for the clock if it must."""
        events = self._take(False, MAX_TIMESTAMP)
        if events or not self._set:
            return events
        first = min(timer.fire_timestamp for timers in self._set.values() for timer in timers.values())
        time.sleep(max(0.0, float(first.micros) / 1e6 - time.time()))
        return self._take(True, max(first, Timestamp.now()))

    def _take(self, by_clock: bool, until: Timestamp) -> list[Any]:
        taken: dict[tuple[str, str], list[Any]] = {}
        for owner, timers in list(self._set.items()):
            transform = owner[0]
            names = [name for name in timers if self._by_clock[transform, name[0]] == by_clock]
            name = min(names, key=lambda name: timers[name].fire_timestamp, default=None)
            if name is None or timers[name].fire_timestamp > until:
                continue
            taken.setdefault((transform, name[0]), []).append(timers.pop(name))
            if not timers:
                del self._set[owner]
        return [
            beam_fn_api_pb2.Elements.Timers(
                transform_id=transform,
                timer_family_id=family,
                timers=self._coders[transform, family].encode_all(timers),
            )
            for (transform, family), timers in taken.items()
        ]


def _components(descriptor: beam_fn_api_pb2.ProcessBundleDescriptor) -> beam_runner_api_pb2.Components:
    return beam_runner_api_pb2.Components(
        coders=dict(descriptor.coders.items()), windowing_strategies=dict(descriptor.windowing_strategies.items())
    )


_MOST_EXECUTORS = 8
_executors: OrderedDict[tuple[str, str], StageExecutor] = OrderedDict()


def executor(run: str, stage: Stage) -> StageExecutor:
    """This process's executor of a stage, made when it is first asked for; the least used make way.

    Args:
        run: tells one run of a pipeline from another.
        stage: from a plan.
    """
    key = (run, stage.name)
    found = _executors.pop(key, None) or StageExecutor(stage)
    _executors[key] = found
    while len(_executors) > _MOST_EXECUTORS:
        _executors.popitem(last=False)[1].close()
    return found


def close_executors() -> None:
    """Tear down all of this process's executors."""
    while _executors:
        _executors.popitem()[1].close()
