"""Shards: the few keys by which batches cross a shuffle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl


def shard_out(table: pl.DataFrame, by: Sequence[str], shards: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """Split a table so that rows with equal keys always go to the same shard.

    Args:
        table: any rows.
        by: the key columns; none puts all rows in one shard.
        shards: how many shards there are.

    Returns:
        Pairs of a shard's number and its rows, in their order; shards without rows are left out. Hashes are the same in
        every process of a run, not in other versions of Polars.

    Example:
        >>> [rows.height for _, rows in shard_out(pl.DataFrame({"host.name": ["a", "a"]}), ["host.name"], 4)]
        [2]
    """
    if not table.height:
        return
    if not by:
        yield 0, table
        return
    number = table.select(by).hash_rows(0) % shards
    for shard in number.unique().sort():
        yield shard, table.filter(number == shard)
