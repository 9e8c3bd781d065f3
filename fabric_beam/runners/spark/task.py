"""What a Spark task does: a stage on one partition, its outputs written as blocks of Spark's shuffle."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pickle
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from pyspark import TaskContext
from pyspark.serializers import FramedSerializer

from fabric_beam.progress import PROGRESS
from fabric_beam.runners.elements import IMPULSE, Coders, Keys, elements, partition
from fabric_beam.runners.failures import ours, pack
from fabric_beam.runners.plan import Grouping, Port, Stage
from fabric_beam.runners.spill import Spill
from fabric_beam.runners.stage import executor

#: Partitions of one output are one after another in a stage's shuffle; the last of all holds the tasks' accounts.
_BLOCK = 1 << 20
_pack_partition = struct.Struct("!q").pack

_coders: dict[str, Coders] = {}


@dataclass(frozen=True)
class Route:
    """Where an output's elements go in the stage's shuffle.

    Attributes:
        first: its first partition.
        width: how many partitions it has.
        by: `key`, `element` (each to the next partition) or `task` (where the task is).
        coder: id of the coder that takes the elements apart, where they are.
    """

    first: int
    width: int
    by: str
    coder: str


@dataclass(frozen=True)
class Source:
    """Where a run of input partitions comes from.

    Attributes:
        partitions: how many they are.
        port: the stage's input.
        grouping: how they are grouped, or None.
    """

    partitions: int
    port: Port
    grouping: Grouping | None


@dataclass(frozen=True)
class Account:
    """What a task that was committed says of itself.

    Attributes:
        task: its partition.
        filled: the shuffle partitions that it wrote to.
        infos: Beam's monitoring infos, serialised.
        printed: what its transforms printed.
        failure: what a transform raised, packed, if Spark is not to try again; then nothing else counts.
    """

    task: int
    filled: frozenset[int]
    infos: list[bytes]
    printed: bytes = b""
    failure: bytes = b""


@dataclass(frozen=True)
class Task:
    """All that a task needs to know; sent to workers with each stage.

    Attributes:
        run: the run's id.
        stage: the stage.
        components: `Plan.components`.
        sources: its inputs, in order of their partitions.
        routes: by the transforms of its outputs.
        account: the shuffle partition for accounts.
        side_inputs: what `side_input_values` made, or a Spark broadcast of it.
        folder: where the command was given: relative paths start there, if the worker's machine has it.
        memory: bytes of values that a task may hold to group them before it spills to disk.
        attempts: how often Spark tries a task.
        report: takes progress and failures as they come: a Spark accumulator.
    """

    run: str
    stage: Stage
    components: bytes
    sources: tuple[Source, ...]
    routes: dict[str, Route]
    account: int
    side_inputs: Any
    folder: str
    memory: int
    attempts: int
    report: Any

    def __call__(self, index: int, data: Iterator[bytes]) -> Iterator[Callable[[IO[bytes]], None]]:
        """Give the one thing to be done, which takes the stream that Spark reads from (`Blocks`)."""
        yield lambda stream: self._run(index, data, stream)

    def _run(self, index: int, data: Iterator[bytes], stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError):
            os.chdir(self.folder)
        if self.run not in _coders:
            _coders.clear()
            _coders[self.run] = Coders(self.components)
        coders = _coders[self.run]
        output = _Output(stream, self.routes, coders, index)
        before = (PROGRESS.total, PROGRESS.bytes, PROGRESS.rows, PROGRESS.dead_letters)
        side_inputs = getattr(self.side_inputs, "value", self.side_inputs)
        printed = _Printed()
        try:
            with contextlib.redirect_stdout(printed.text), contextlib.closing(Spill(coders, self.memory)) as spill:
                inputs = self._inputs(index, data, spill)
                infos = executor(self.run, self.stage).run(inputs, output.emit, side_inputs, spill)
            output.flush()
        except Exception as error:
            context = TaskContext.get()
            last = context is None or context.attemptNumber() + 1 >= self.attempts
            if not last and ours(error) is None:
                raise
            failure = pack(error)
            self.report.add([("failure", failure)])
            output.block(self.account, pickle.dumps(Account(index, frozenset(), [], failure=failure)))
            return
        after = (PROGRESS.total, PROGRESS.bytes, PROGRESS.rows, PROGRESS.dead_letters)
        if before != after:
            self.report.add([("progress", tuple(b - a for a, b in zip(before, after, strict=True)))])
        account = Account(
            index, frozenset(output.filled), [i.SerializeToString() for i in infos], printed.bytes.getvalue()
        )
        output.block(self.account, pickle.dumps(account))

    def _inputs(self, index: int, data: Iterator[bytes], spill: Spill) -> Iterator[tuple[str, bytes]]:
        for source in self.sources:
            if index < source.partitions:
                break
            index -= source.partitions
        if source.port.kind == "impulse":
            for _ in data:
                yield source.port.transform, IMPULSE
        elif source.grouping is None:
            for chunk in data:
                yield source.port.transform, chunk
        else:
            for group in spill.group(source.grouping, data):
                yield source.port.transform, group


class _Printed:
    """What transforms print, kept for the driver to print once."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        self.text = io.TextIOWrapper(self.bytes, "utf-8", errors="replace", write_through=True)


class _Output:
    """Writes pairs of partition and block as Spark's PairwiseRDD reads them."""

    def __init__(self, stream: IO[bytes], routes: dict[str, Route], coders: Coders, index: int) -> None:
        self.filled: set[int] = set()
        self._stream = stream
        self._routes = routes
        self._coders = coders
        self._index = index
        self._keys: dict[str, Keys] = {}
        self._blocks: dict[int, list[bytes]] = {}
        self._sizes: dict[int, int] = {}
        self._next = itertools.count(index)

    def emit(self, output: str, data: bytes) -> None:
        route = self._routes[output]
        if route.by == "task" or route.width == 1:
            self._add(route.first + self._index % route.width, data)
        elif route.by == "element":
            for element in elements(self._coders, route.coder, data):
                self._add(route.first + next(self._next) % route.width, element)
        else:
            keys = self._keys.get(route.coder) or self._keys.setdefault(route.coder, Keys(self._coders, route.coder))
            for key, element in keys.split(data):
                self._add(route.first + partition(key, route.width), element)

    def _add(self, target: int, data: bytes) -> None:
        size = self._sizes.get(target, 0) + len(data)
        if size < _BLOCK:
            self._blocks.setdefault(target, []).append(data)
            self._sizes[target] = size
            return
        waiting = self._blocks.pop(target, [])
        self._sizes[target] = 0
        self.block(target, b"".join([*waiting, data]) if waiting else data)

    def flush(self) -> None:
        for target, blocks in self._blocks.items():
            self.block(target, blocks[0] if len(blocks) == 1 else b"".join(blocks))
        self._blocks = {}

    def block(self, target: int, data: bytes) -> None:
        self.filled.add(target)
        self._stream.write(b"\0\0\0\x08" + _pack_partition(target) + struct.pack("!i", len(data)))
        self._stream.write(data)


class Blocks(FramedSerializer):
    """Reads blocks as bytes, and lets a task write its own to the stream, so that nothing is pickled nor copied."""

    def loads(self, obj: bytes) -> bytes:
        return obj

    def dumps(self, obj: Any) -> Any:
        return obj

    def dump_stream(self, iterator: Iterable[Callable[[IO[bytes]], None]], stream: IO[bytes]) -> None:
        for work in iterator:
            work(stream)


__all__ = ["Account", "Blocks", "Route", "Source", "Task"]
