"""What a built pipeline looks like: its steps, their schemas, and the way of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pipeline import PipelineVisitor

from fabric_beam.batches import BatchOf
from fabric_beam.endpoints import WriteTo


class _Collect(PipelineVisitor):
    def __init__(self) -> None:
        self.composites: list[Any] = []
        self.leaves: list[Any] = []

    def enter_composite_transform(self, transform_node: Any) -> None:
        if transform_node.full_label:
            self.composites.append(transform_node)

    def visit_transform(self, transform_node: Any) -> None:
        self.leaves.append(transform_node)


def _visit(pipeline: beam.Pipeline) -> _Collect:
    visitor = _Collect()
    pipeline.visit(visitor)
    return visitor


def sinks(pipeline: beam.Pipeline) -> dict[str, WriteTo]:
    """The pipeline's `WriteTo` transforms by their full labels."""
    return {n.full_label: n.transform for n in _visit(pipeline).composites if isinstance(n.transform, WriteTo)}


def path_to(pipeline: beam.Pipeline, label: str) -> list[str]:
    """The steps on the way from the sources to a step, in order.

    Args:
        pipeline: a built pipeline.
        label: the full label of the step, such as a sink's.

    Returns:
        Full labels of every transform, at every level, that the step's rows go through.
    """
    leaves = _visit(pipeline).leaves
    producers = {value: leaf for leaf in leaves for value in leaf.outputs.values()}
    ahead = [leaf for leaf in leaves if leaf.full_label.startswith(f"{label}/")]
    inner = {leaf.full_label for leaf in ahead}
    seen: dict[str, Any] = {}
    while ahead:
        leaf = ahead.pop()
        for value in leaf.inputs:
            producer = producers.get(value)
            if producer is not None and producer.full_label not in seen and producer.full_label not in inner:
                seen[producer.full_label] = producer
                ahead.append(producer)
    ordered = [leaf.full_label for leaf in leaves if leaf.full_label in seen]
    labels: dict[str, None] = {}
    for leaf_label in ordered:
        parts = leaf_label.split("/")
        labels.update(dict.fromkeys("/".join(parts[: n + 1]) for n in range(len(parts))))
    return list(labels)


def plan(pipeline: beam.Pipeline) -> Iterator[tuple[str, BatchOf | None]]:
    """The pipeline's own steps in order, each with the schema of what comes out, None if it is not batches."""
    for node in _visit(pipeline).composites:
        if node.parent is not None and not node.parent.full_label:
            values = [value for value in node.outputs.values() if isinstance(value.element_type, BatchOf)]
            yield node.full_label, values[0].element_type if values else None
