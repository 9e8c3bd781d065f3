"""WriteDataset and WriteDeadLetters: a dataset to each of its sinks."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

import apache_beam as beam
from apache_beam.transforms.error_handling import ErrorHandler

from fabric_beam import WriteTo

if TYPE_CHECKING:
    from pipelines.parts.report import Report


class WriteDataset(beam.PTransform):
    """Write a dataset to each of the sinks that were asked for.

    Args:
        dataset: `events`, `metrics`, `alerts` or `dead_letters`.
        options: `sinks` (dataset → URLs) and `job`.
        error_handler: where rows go that a sink does not take.
    """

    def __init__(self, dataset: str, options: Namespace, error_handler: ErrorHandler | None = None) -> None:
        super().__init__(f"Write({dataset})")
        self._dataset = dataset
        self._options = options
        self._error_handler = error_handler

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        for url in dict.fromkeys(self._options.sinks[self._dataset]):
            sink = WriteTo(url, dataset=self._dataset, job=self._options.job)
            pcoll | sink.with_error_handler(self._error_handler)
        return pcoll


class WriteDeadLetters(beam.PTransform):
    """Write dead letters to their sinks, and a sample of them to the report.

    Args:
        options: `sinks` and `job`.
        report: what tells of them.
    """

    def __init__(self, options: Namespace, report: Report) -> None:
        super().__init__("DeadLetters")
        self._options = options
        self._report = report

    def expand(self, letters: beam.PCollection) -> beam.PCollection:
        self._report.explain(letters)
        return letters | WriteDataset("dead_letters", self._options)
