"""`stdout:` or `-`: JSON Lines on standard output."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import apache_beam as beam
import pyarrow as pa

from fabric_beam import ledger
from fabric_beam.batches import from_batch
from fabric_beam.endpoints import Endpoint, Sink, step
from fabric_beam.errors import UsageError
from fabric_beam.io.jsonl import JsonLinesWriter
from fabric_beam.map_batches import as_batches


class WriteStdout(Sink):
    """Print rows as JSON Lines, to look at them or to pipe them on.

    Args:
        endpoint: `stdout:`, without options.
        job: not used; every sink takes it.
    """

    def __init__(self, endpoint: Endpoint, job: str) -> None:
        super().__init__()
        endpoint.no_more_options()
        if endpoint.path:
            raise UsageError(f"stdout: takes nothing after it, not {endpoint.path!r}.")

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        label = step(pcoll.pipeline)
        batches, _ = as_batches(pcoll)
        return batches | "Print" >> beam.ParDo(_Print(label))


class _Print(beam.DoFn):
    def __init__(self, step: str) -> None:
        self._account = ledger.Account(step)

    def process(self, batch: pa.RecordBatch) -> Iterator[None]:
        lines = io.BytesIO()
        JsonLinesWriter(lines).write(from_batch(batch))
        # One write a batch: worker threads share standard output.
        sys.stdout.buffer.write(lines.getvalue())
        sys.stdout.buffer.flush()
        self._account.add("written", batch.num_rows)
        return iter(())
