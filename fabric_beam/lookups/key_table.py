"""Rows found by key, in a time that hardly depends on how many there are."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import polars as pl

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Hashes = np.ndarray[Any, np.dtype[np.uint64]]


def hashes(keys: pl.DataFrame, seed: int = 0) -> Hashes:
    """A number for each key; the same in every process of a run."""
    return keys.hash_rows(seed).to_numpy()


def positions(keys: pl.DataFrame, known: pl.DataFrame, known_hashes: Hashes, seed: int = 0) -> Numbers:
    """Where each key stands among known ones, by binary search for its hash; -1 where it does not, or has a null.

    A join would hash all known keys anew for each batch.

    Args:
        keys: any keys.
        known: different keys without nulls, in the order of their hashes.
        known_hashes: theirs, all different.
        seed: of the hashes.
    """
    if not known.height or not keys.height:
        return np.full(keys.height, -1)
    wanted = hashes(keys, seed)
    found = np.searchsorted(known_hashes, wanted)
    found[found == known.height] = 0
    there = known[found]
    same = pl.Series(known_hashes[found] == wanted)
    for name in keys.columns:
        same &= (there[name] == keys[name]).fill_null(False)
    return np.where(same.to_numpy(), found, -1)


def gather(rows: pl.DataFrame, numbers: Numbers) -> pl.DataFrame:
    """Rows by their numbers; all null where the number is -1."""
    if not rows.height:
        return rows.clear(len(numbers))
    index = pl.Series(numbers)
    return rows.select(pl.all().gather(pl.lit(index.set(index < 0, None).cast(pl.UInt32))))


class KeyTable:
    """A table whose rows are found by their keys.

    Args:
        keys: different keys without nulls, one a row.
        rows: what is found by each.

    Example:
        >>> table = KeyTable(pl.DataFrame({"host": ["a", "b"]}), pl.DataFrame({"rack": [1, 2]}))
        >>> table.find(pl.DataFrame({"host": ["b", "x", None]}))[0]["rack"].to_list()
        [2, None, None]
    """

    def __init__(self, keys: pl.DataFrame, rows: pl.DataFrame) -> None:
        for seed in count():
            unordered = hashes(keys, seed)
            order = np.argsort(unordered)
            self._hashes = unordered[order]
            # Two keys with one hash are one in thirty million tables of a million rows; with another seed they differ.
            if not (self._hashes[1:] == self._hashes[:-1]).any():
                break
        self._seed = seed
        self._keys = keys[order]
        self._rows = gather(rows, order)

    def find(self, keys: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        """Find the rows of keys.

        Returns:
            One row a key, null where there is none; and whether there is one.
        """
        found = positions(keys, self._keys, self._hashes, self._seed)
        return gather(self._rows, found), pl.Series(found >= 0)
