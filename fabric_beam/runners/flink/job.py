"""A plan as a Flink job: an operator for each stage, and a way for each of its outputs to each stage that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyflink.datastream import OutputTag

from fabric_beam.runners.flink import cluster, seams
from fabric_beam.runners.flink.edges import END, Edge
from fabric_beam.runners.flink.worker import StageFunction, message_type
from fabric_beam.runners.plan import Plan, Port, Stage

#: A stage holds one partition of what it groups in memory at a time.
_PARTITIONS_PER_SUBTASK = 16


def build(plan: Plan, environment: Any, parallelism: int, pickle_library: str, memory: int) -> Any:
    """Make the operators of a plan.

    All stages are there from the start, and each runs when its input is whole: a job is one region of Flink's, so that
    every slot needs one Python worker only, started once.

    Args:
        plan: what to run.
        environment: Java's StreamExecutionEnvironment.
        parallelism: the subtasks of a stage.
        pickle_library: what the plan's functions were pickled by.
        memory: bytes of values that a stage groups in memory.

    Returns:
        Java's DataStream of the reports of all subtasks.
    """
    rows = message_type().get_java_type_info()
    partitioner, selector = seams.java(seams.PARTITIONER)(), seams.java(seams.KEY_SELECTOR)()
    widths = [_width(stage, parallelism) for stage in plan.stages]
    edges = {number: list(_edges(plan, stage, widths)) for number, stage in enumerate(plan.stages)}
    start = environment.fromData([_start()], rows)

    #: What reaches each stage so far, and how many messages will say that it is all.
    arriving: list[list[Any]] = [[] for _ in plan.stages]
    ends = [0 for _ in plan.stages]
    reports: list[Any] = []
    for number, stage in enumerate(plan.stages):
        if not arriving[number]:
            arriving[number], ends[number] = [start.partitionCustom(partitioner, selector)], 1
        function = StageFunction(
            number,
            stage,
            {port.buffer: plan.groupings[port.buffer] for port in stage.inputs if port.kind == "group"},
            plan.components,
            [edge for _, edge in edges[number]],
            ends[number],
            str(Path.cwd()),
            pickle_library,
            memory,
        )
        arrived = _union(arriving[number])
        operator = seams.process(arrived, function, message_type(), stage_name(stage), widths[number])
        tags = {edge.tag: OutputTag(edge.tag, message_type()).get_java_output_tag() for _, edge in edges[number]}
        if tags:
            seams.add_output_tags(operator, list(tags.values()))
        for consumer, edge in edges[number]:
            side = operator.getSideOutput(tags[edge.tag])
            broadcast = edge.how == "broadcast"
            arriving[consumer].append(side.broadcast() if broadcast else side.partitionCustom(partitioner, selector))
            ends[consumer] += widths[number]
        reports.append(operator)
    seams.java(seams.PYTHON_CONFIG).configPythonOperator(environment)
    return _union(reports)


def subtasks(plan: Plan, parallelism: int) -> set[tuple[int, int]]:
    """The number and subtask of every report that a job of `build` makes."""
    return {
        (number, subtask) for number, stage in enumerate(plan.stages) for subtask in range(_width(stage, parallelism))
    }


def stage_name(stage: Stage) -> str:
    """A stage's transforms, short enough to read."""
    names = [name for name in stage.transforms if "/" not in name] or list(stage.transforms)
    text = ", ".join(dict.fromkeys(name.partition("/")[0] for name in names)) or stage.name
    return text if len(text) <= 80 else f"{text[:77]}..."


def _width(stage: Stage, parallelism: int) -> int:
    return 1 if all(port.kind == "impulse" for port in stage.inputs) else parallelism


def _edges(plan: Plan, stage: Stage, widths: list[int]) -> Iterator[tuple[int, Edge]]:
    """The ways out of a stage, with the number of the stage at their end."""
    for output in stage.outputs:
        for consumer, (reader, width) in enumerate(zip(plan.stages, widths, strict=True)):
            for number, port in enumerate(reader.inputs):
                if port.buffer == output.buffer:
                    how, coder = _way(plan, reader, port)
                    tag = f"{output.transform} to {consumer}.{number}"
                    yield (
                        consumer,
                        Edge(tag, output.transform, number, width, width * _PARTITIONS_PER_SUBTASK, how, coder),
                    )
            for number, side in enumerate(reader.side_inputs, len(reader.inputs)):
                if side.buffer == output.buffer:
                    tag = f"{output.transform} to {consumer}.{number}"
                    yield consumer, Edge(tag, output.transform, number, width, width, "broadcast", side.coder)


def _way(plan: Plan, reader: Stage, port: Port) -> tuple[Any, str]:
    if port.kind == "group":
        return "keys", plan.groupings[port.buffer].before[0]
    if reader.key:
        return "keys", reader.key
    return ("elements" if reader.splittable else "chunks"), port.coder


def _start() -> Any:
    """The message that lets a stage begin which reads no other's output."""
    row = seams.java("org.apache.flink.types.Row")(4)
    for field, value in enumerate((0, END, 0, b"")):
        row.setField(field, value)
    return row


def _union(streams: list[Any]) -> Any:
    first, *rest = streams
    if not rest:
        return first
    others = cluster.gateway().new_array(seams.java("org.apache.flink.streaming.api.datastream.DataStream"), len(rest))
    for number, stream in enumerate(rest):
        others[number] = stream
    return first.union(others)
