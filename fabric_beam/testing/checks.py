"""What every transform, source and sink must keep to: one suite for ours and yours."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import cloudpickle
import polars as pl

from fabric_beam.endpoints import Read, WriteTo
from fabric_beam.map_batches import MapBatches
from fabric_beam.testing.batches import collect_with_dead_letters, read_all, run


def check_transform(make: Callable[[], MapBatches], table: pl.DataFrame, *, filters: bool = False) -> None:
    """Check that a transform of batches keeps its promises.

    Its output schema is the one inferred on no rows; rows are the same however they are batched; none is lost unless it
    filters; the input is not changed; its kernel can be sent to a worker.

    Args:
        make: makes the transform.
        table: rows for it, good ones and, if it can reject, bad ones; at least two.
        filters: whether it may drop rows on purpose.

    Raises:
        AssertionError: naming the promise that was broken.

    Example:
        >>> from fabric_beam.testing import batch
        >>> check_transform(lambda: MapBatches(lambda rows: rows.with_columns(b=pl.col("a") + 1)), batch(a=[1, 2, 3]))
    """
    before = table.clone()
    kernel = make().bind(table.schema)
    pickle.loads(cloudpickle.dumps(kernel))(table.clear())
    whole, whole_dead = collect_with_dead_letters(table, make())
    half = table.height // 2
    parts, parts_dead = collect_with_dead_letters([table[:half], table[half:]], make())
    assert whole.schema == parts.schema, f"the schema depends on the batches: {whole.schema} and {parts.schema}"
    assert whole.sort(pl.all()).equals(parts.sort(pl.all())), "the rows depend on how they are batched"
    assert whole_dead.sort(pl.all()).equals(parts_dead.sort(pl.all())), "the dead letters depend on the batches"
    if not filters:
        total = whole.height + whole_dead.height
        assert total == table.height, f"{table.height} rows came in, {total} came out or were rejected"
    assert table.equals(before), "the input was changed"


def check_source(url: str, expected: pl.DataFrame) -> None:
    """Check that a source gives its rows once each, with their provenance.

    Args:
        url: what `Read` takes.
        expected: the rows, with some or all of the source's columns, in any order.

    Raises:
        AssertionError: naming the promise that was broken.
    """
    rows = read_all(Read(url))
    assert {"source", "offset"} <= set(rows.columns), f"no provenance: {rows.columns}"
    identities = rows.select("source", "offset").unique().height
    assert identities == rows.height, f"{rows.height - identities} rows share their source and offset with another"
    got = rows.select(expected.columns).sort(pl.all())
    assert got.equals(expected.sort(pl.all())), f"{got.height} rows were read, not the {expected.height} expected"
    assert read_all(Read(url, limit=1)).height == min(1, expected.height), "limit=1 did not give one row"


def check_sink(url: str, read: Callable[[], pl.DataFrame], table: pl.DataFrame) -> None:
    """Check that a sink writes every row once, and that a repeated run replaces and never duplicates.

    Args:
        url: what `WriteTo` takes; nothing is stored there yet.
        read: reads everything back, with the table's columns.
        table: the rows to write, at least two, without nulls.

    Raises:
        AssertionError: naming the promise that was broken.
    """
    half = table.height // 2
    order = pl.all()

    def stored() -> pl.DataFrame:
        return read().select(table.columns).sort(order)

    run([table[:half], table[half:]], WriteTo(url, job="one"))
    assert stored().equals(table.sort(order)), "what was read back is not what was written"
    run(table, WriteTo(url, job="one"))
    assert stored().equals(table.sort(order)), "a repeated run did not replace what it wrote before"
    run(table[:half], WriteTo(url, job="one"))
    assert stored().equals(table[:half].sort(order)), "a run with fewer rows left some of the run before"
    run(table[half:], WriteTo(url, job="two"))
    assert stored().equals(table.sort(order)), "another job did not add to what was there"
    run([table.clear()], WriteTo(url, job="two"))
    assert stored().equals(table[:half].sort(order)), "a run without rows left those of the run before"
