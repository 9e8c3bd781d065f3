"""A stage as a PyFlink function: it gathers its input, runs when that is whole, and says what it counted."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from apache_beam.internal import pickler
from pyflink.common import Row
from pyflink.common.typeinfo import TypeInformation, Types
from pyflink.datastream import OutputTag, ProcessFunction, RuntimeContext

from fabric_beam.progress import PROGRESS
from fabric_beam.runners.elements import IMPULSE, Coders, side_input_values
from fabric_beam.runners.failures import pack
from fabric_beam.runners.flink.edges import END, PIECE, PIECES, Edge, Message, Spool, Writer
from fabric_beam.runners.flink.seams import (
    end_with_task_manager,
    end_without_connection,
    restore_print,
    share_registries,
    spool_output,
)
from fabric_beam.runners.metrics import merge
from fabric_beam.runners.plan import Grouping, Stage
from fabric_beam.runners.spill import Spill
from fabric_beam.runners.stage import SideInputs, StageExecutor

share_registries()
restore_print()
spool_output()
end_with_task_manager()
end_without_connection()

_WAITING = 16


def message_type() -> TypeInformation:
    """Flink's type of a `Message`."""
    return Types.ROW([Types.INT(), Types.INT(), Types.INT(), Types.PRIMITIVE_ARRAY(Types.BYTE())])


class Counts(NamedTuple):
    """What a worker has counted since it said so last: the fields of `fabric_beam.progress.Progress`."""

    total: int
    bytes: int
    rows: int
    dead_letters: int


_counted, _counting = Counts(0, 0, 0, 0), threading.Lock()


def _fresh_counts() -> Counts:
    global _counted
    with _counting:
        before, _counted = _counted, Counts(PROGRESS.total, PROGRESS.bytes, PROGRESS.rows, PROGRESS.dead_letters)
        return Counts(*(now - then for now, then in zip(_counted, before, strict=True)))


class Report(NamedTuple):
    """What a stage's subtask tells the driver when it is done.

    Attributes:
        stage: the stage's number in the plan.
        subtask: which of its subtasks.
        infos: Beam's monitoring infos, each serialised.
        error: what `failures.pack` made of the exception that ended it, or None.
    """

    stage: int
    subtask: int
    infos: list[bytes]
    error: bytes | None


class StageFunction(ProcessFunction):
    """Runs one stage of a plan in a Flink operator.

    An exception of the pipeline's own code is reported, not raised: the driver then cancels the job. No stage that
    reads from this one starts meanwhile, as it has not said that it is through. Flink restarts what fails otherwise.

    Args:
        number: the stage's number in the plan.
        stage: the stage.
        groupings: of the plan.
        components: of the plan.
        edges: where its outputs go.
        ends: how many messages say that its input is whole.
        folder: the folder that relative paths start from, used where it exists.
        pickle_library: what the stage's functions were pickled by.
        memory: bytes of values that are grouped in memory; more are spilled to disk.
    """

    def __init__(
        self,
        number: int,
        stage: Stage,
        groupings: dict[str, Grouping],
        components: bytes,
        edges: list[Edge],
        ends: int,
        folder: str,
        pickle_library: str,
        memory: int,
    ) -> None:
        self._number = number
        self._stage = stage
        self._groupings = groupings
        self._components = components
        self._edges = edges
        self._expected = ends
        self._folder = folder
        self._pickle_library = pickle_library
        self._memory = memory

    def open(self, runtime_context: RuntimeContext) -> None:
        """Prepare for this attempt."""
        with contextlib.suppress(OSError):
            if str(Path.cwd()) != self._folder:
                os.chdir(self._folder)
        pickler.set_library(self._pickle_library)
        self._subtask: int = runtime_context.get_index_of_this_subtask()
        self._ends = 0
        self._inputs: dict[int, dict[int, Spool]] = {}
        self._pieces: dict[bytes, list[bytes]] = {}
        self._tags = {edge.tag: OutputTag(edge.tag, message_type()) for edge in self._edges}
        self._closed = threading.Event()

    def close(self) -> None:
        """Let go of what this attempt gathered."""
        self._closed.set()
        for spools in self._inputs.values():
            for spool in spools.values():
                spool.close()
        self._inputs = {}

    def process_element(self, value: Any, ctx: Any) -> Iterator[Any]:
        """Keep a chunk of input, or run the stage if that was the last of it."""
        _, port, part, data = value
        if port <= PIECES:
            port, (name, last) = PIECES - port, PIECE.unpack_from(data)
            self._pieces.setdefault(name, []).append(data[PIECE.size :])
            if not last:
                return
            data = b"".join(self._pieces.pop(name))
        if port != END:
            self._inputs.setdefault(port, {}).setdefault(part, Spool()).append(data)
            return
        self._ends += 1
        if self._ends == self._expected:
            yield from self._stream()

    def _stream(self) -> Iterator[Any]:
        """What the stage puts out while it runs in a thread of its own, which waits for slow readers."""
        items: queue.Queue[Any] = queue.Queue(_WAITING)

        def put(item: Any) -> None:
            while not self._closed.is_set():
                with contextlib.suppress(queue.Full):
                    return items.put(item, timeout=1)
            raise InterruptedError("The job was cancelled.")

        def tell(what: Counts | Report) -> None:
            put(Row(self._subtask, self._number, 0, pickle.dumps(what)))

        def run() -> None:
            report = self._run(lambda tag, message: put((self._tags[tag], Row(*message))), tell)
            with contextlib.suppress(InterruptedError):
                tell(report)
                put(None)

        threading.Thread(target=run, name=self._stage.name, daemon=True).start()
        while (item := items.get()) is not None:
            yield item

    def _run(self, put: Callable[[str, Message], None], tell: Callable[[Counts], None]) -> Report:
        infos: list[Any] = []
        executor = spill = None
        try:
            coders = Coders(self._components)
            spill = Spill(coders, self._memory)
            writers: dict[str, list[Writer]] = {}
            for edge in self._edges:
                writers.setdefault(edge.output, []).append(Writer(edge, self._subtask, coders, put))

            def emit(output: str, data: bytes) -> None:
                for writer in writers.get(output, ()):
                    writer.write(data)

            side_inputs = self._side_inputs(coders)
            for bundle in self._bundles(spill):
                executor = executor or StageExecutor(self._stage)
                infos = merge([*infos, *executor.run(bundle, emit, side_inputs, spill)])
                if any(counts := _fresh_counts()):
                    tell(counts)
            if executor is not None:
                executor.close()
            for output in writers.values():
                for writer in output:
                    writer.end()
        except BaseException as error:
            return Report(self._number, self._subtask, [], pack(error))
        finally:
            if spill is not None:
                spill.close()
        return Report(self._number, self._subtask, [info.SerializeToString() for info in infos], None)

    def _side_inputs(self, coders: Coders) -> SideInputs:
        values: dict[bytes, bytes] = {}
        for port, side in enumerate(self._stage.side_inputs, len(self._stage.inputs)):
            values.update(side_input_values(side, coders, self._inputs.get(port, {}).get(0, ())))
        return values

    def _bundles(self, spill: Spill) -> Iterator[Iterator[tuple[str, bytes]]]:
        """The input as bundles, each drawn only as far as the stage has got with it."""
        if self._stage.splittable:
            yield from (iter([chunk]) for chunk in self._all(spill))
        elif self._stage.key:
            parts = sorted({part for port in self._main_ports() for part in self._inputs[port]})
            yield from (self._all(spill, part) for part in parts)
        elif self._subtask == 0 or any(True for _ in self._main_ports()):
            yield self._all(spill)

    def _main_ports(self) -> Iterator[int]:
        return (port for port in range(len(self._stage.inputs)) if port in self._inputs)

    def _all(self, spill: Spill, only: int | None = None) -> Iterator[tuple[str, bytes]]:
        for number, port in enumerate(self._stage.inputs):
            if port.kind == "impulse" and self._subtask == 0:
                yield port.transform, IMPULSE
            grouping = self._groupings.get(port.buffer) if port.kind == "group" else None
            for part, spool in sorted(self._inputs.get(number, {}).items()):
                if only is None or part == only:
                    for chunk in spill.group(grouping, spool) if grouping else spool:
                        yield port.transform, chunk
