"""Elements between stages, as Beam encodes them: taken apart, grouped by key and window, looked up as side inputs."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from apache_beam.coders import coder_impl
from apache_beam.coders.coders import WindowedValueCoder
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners import pipeline_context
from apache_beam.runners.common import ENCODED_IMPULSE_VALUE
from apache_beam.runners.portability.fn_api_runner import execution
from apache_beam.runners.portability.fn_api_runner.worker_handlers import StateServicer

from fabric_beam.runners.plan import Grouping, SideInput

#: What an impulse is: one element of no bytes in the global window, encoded.
IMPULSE: bytes = ENCODED_IMPULSE_VALUE


class Coders:
    """The coders and windowing strategies that a plan's ids stand for.

    Args:
        components: `Plan.components`.
    """

    def __init__(self, components: bytes) -> None:
        self._context = pipeline_context.PipelineContext(beam_runner_api_pb2.Components.FromString(components))

    def __getitem__(self, coder: str) -> Any:
        return self._context.coders[coder]

    def windowing(self, strategy: str) -> Any:
        """A windowing strategy, with the user's own window function in it."""
        return self._context.windowing_strategies[strategy]

    def windowed(self, safe: str, real: str) -> WindowedValueCoder:
        """A coder of elements with user types as bytes, in windows as they are."""
        return WindowedValueCoder(self[safe].wrapped_value_coder, self[real].window_coder)


def partition(key: bytes, partitions: int) -> int:
    """Which partition a key belongs to: the same in every process.

    Example:
        >>> partition(b"a", 4)
        3
    """
    return zlib.crc32(key) % partitions


class Keys:
    """Takes chunks of encoded key-value elements apart.

    Args:
        coders: of the plan.
        safe: id of the coder that takes keys and values for bytes: `Grouping.before[0]` or `Stage.key`.
    """

    def __init__(self, coders: Coders, safe: str) -> None:
        coder = coders[safe]
        self._decode = coder.get_impl().decode_from_stream
        self._encode_key = coder.wrapped_value_coder.key_coder().get_impl().encode

    def split(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The elements of a chunk: each one's key, encoded, and the whole element, encoded."""
        stream = coder_impl.create_InputStream(data)
        decode, encode_key = self._decode, self._encode_key
        start, size = 0, len(data)
        while start < size:
            element = decode(stream, True)
            stop = size - stream.size()
            yield encode_key(element.value[0]), data if stop - start == size else data[start:stop]
            start = stop


def elements(coders: Coders, coder: str, data: bytes) -> Iterator[bytes]:
    """The elements of a chunk, each encoded by itself.

    Args:
        coders: of the plan.
        coder: id of the coder that takes user types for bytes.
        data: the chunk.
    """
    stream = coder_impl.create_InputStream(data)
    decode = coders[coder].get_impl().decode_from_stream
    start, size = 0, len(data)
    while start < size:
        decode(stream, True)
        stop = size - stream.size()
        yield data if stop - start == size else data[start:stop]
        start = stop


class Groups:
    """Groups values by key and window, with Beam's own windows and triggers on keys and values as bytes.

    Args:
        grouping: from a plan.
        coders: of the plan.
    """

    def __init__(self, grouping: Grouping, coders: Coders) -> None:
        self._before = coders.windowed(*grouping.before)
        self._after = coders.windowed(*grouping.after)
        self._windowing = coders.windowing(grouping.windowing)

    def group(self, data: Iterable[bytes]) -> Iterator[bytes]:
        """Group what belongs together.

        Args:
            data: chunks of encoded key-value elements, all those of the keys that are in them.

        Returns:
            Chunks of encoded keys with their values.
        """
        buffer = execution.GroupingBuffer(self._before, self._after, self._windowing)
        for chunk in data:
            buffer.append(chunk)
        yield from (chunk for chunk in buffer if chunk)


def side_input_values(side_input: SideInput, coders: Coders, data: Iterable[bytes]) -> dict[bytes, bytes]:
    """What a stage may ask of one side input, by window and key.

    Args:
        side_input: from a plan.
        coders: of the plan.
        data: all chunks of its buffer.

    Returns:
        A part of the `side_inputs` that `StageExecutor.run` takes.
    """
    servicer = StateServicer()
    context = _SideInputContext(servicer, coders, side_input, data)
    pattern = beam_runner_api_pb2.FunctionSpec(urn=side_input.pattern)
    execution.FnApiRunnerExecutionContext.commit_side_inputs_to_state(
        context, {(side_input.transform, side_input.tag): (_SideInputContext.BUFFER, pattern)}
    )
    return {key: b"".join(values) for key, values in servicer._state.items()}


class _SideInputContext:
    """The part of Beam's execution context that its own code for side inputs needs."""

    BUFFER = b"materialize:side"

    def __init__(self, servicer: StateServicer, coders: Coders, side_input: SideInput, data: Iterable[bytes]) -> None:
        self.state_servicer = servicer
        self.safe_coders = {"side": "side"}
        self.data_channel_coders = {"side": "side"}
        self.pcoll_buffers = {self.BUFFER: data}
        self.pipeline_context = self
        self.coders = {"side": coders[side_input.coder]}
