"""Build batches and run a transform on them."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.error_handling import ErrorHandler

from fabric_beam.batches import BatchOf, arrow_schema, from_batch, to_batch
from fabric_beam.dead_letters import SCHEMA
from fabric_beam.runners.direct import DirectRunner


def batch(**columns: Any) -> pl.DataFrame:
    """A table from columns given by name; dots in names are written as two underscores.

    Example:
        >>> batch(http__request__method=["GET"]).columns
        ['http.request.method']
    """
    return pl.DataFrame({name.replace("__", "."): values for name, values in columns.items()})


class _Tables(beam.PTransform):
    """Tables as a PCollection of batches, all of the first one's schema."""

    def __init__(self, tables: Sequence[pl.DataFrame]) -> None:
        super().__init__()
        self._tables = tables

    def expand(self, pbegin: Any) -> beam.PCollection:
        batches = [to_batch(table) for table in self._tables]
        return pbegin | beam.Create(batches, reshuffle=False).with_output_types(BatchOf(arrow_schema(self._tables[0])))


def read_all(source: beam.PTransform) -> pl.DataFrame:
    """Run a source by DirectRunner and return all of its rows, as one table."""
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline(runner=DirectRunner(), options=_options()) as p:
            out = p | source
            out | "Save" >> _Save(Path(folder))
        hint: BatchOf = out.element_type
        return pl.concat([hint.empty(), *(from_batch(element) for element in _load(Path(folder)))])


def run(tables: pl.DataFrame | Sequence[pl.DataFrame], transform: beam.PTransform) -> list[Any]:
    """Run a transform on batches by DirectRunner and return the elements that come out.

    Args:
        tables: one table a batch, all of one schema.
        transform: any transform that takes batches.

    Returns:
        The output's elements, in no particular order.
    """
    with tempfile.TemporaryDirectory() as folder:
        _run(tables, transform, Path(folder))
        return _load(Path(folder) / "out")


def collect(tables: pl.DataFrame | Sequence[pl.DataFrame], transform: beam.PTransform) -> pl.DataFrame:
    """Run a transform on batches and return the rows that come out, as one table."""
    return collect_with_dead_letters(tables, transform, handled=False)[0]


def collect_with_dead_letters(
    tables: pl.DataFrame | Sequence[pl.DataFrame], transform: beam.PTransform, *, handled: bool = True
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Run a transform on batches and return the rows that come out, and its dead letters."""
    with tempfile.TemporaryDirectory() as folder:
        schema = _run(tables, transform, Path(folder), handled=handled)
        kept = [from_batch(element) for element in _load(Path(folder) / "out")]
        letters = [from_batch(element) for element in _load(Path(folder) / "dead")]
        return pl.concat([schema.empty(), *kept]), pl.concat([pl.DataFrame(schema=SCHEMA), *letters])


def _options() -> PipelineOptions:
    # dill, the default of older Beam, does not pickle what a test defines.
    return PipelineOptions([], pickle_library="cloudpickle")


def _run(
    tables: pl.DataFrame | Sequence[pl.DataFrame], transform: beam.PTransform, folder: Path, *, handled: bool = False
) -> BatchOf:
    source = _Tables([tables] if isinstance(tables, pl.DataFrame) else tables)
    with beam.Pipeline(runner=DirectRunner(), options=_options()) as p:
        if handled:
            with ErrorHandler(_Save(folder / "dead")) as handler:
                out = p | source | "Transform" >> transform.with_error_handler(handler)
        else:
            out = p | source | "Transform" >> transform
        out | "Save" >> _Save(folder / "out")
    hint = out.element_type
    return hint if isinstance(hint, BatchOf) else BatchOf(arrow_schema(pl.DataFrame()))


class _Save(beam.PTransform):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        self._folder.mkdir(parents=True, exist_ok=True)
        return pcoll | beam.ParDo(_SaveElements(str(self._folder)))


class _SaveElements(beam.DoFn):
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, element: Any) -> list[None]:
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".pickle", delete=False) as file:
            pickle.dump(element, file)
        return []


def _load(folder: Path) -> list[Any]:
    files = sorted(folder.glob("*.pickle"), key=lambda path: path.stat().st_mtime_ns)
    return [pickle.loads(path.read_bytes()) for path in files]
