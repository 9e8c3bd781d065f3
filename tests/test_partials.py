"""Partial tables hold what they need, and no more."""

from __future__ import annotations

import gc

import numpy as np
import polars as pl
import pyarrow as pa

from fabric_beam.batches import to_batch
from fabric_beam.partials import Partials
from fabric_beam.views import Text, padded
from transforms.most_frequent import FrequentItems

_BLOCK = 1 << 22


def test_a_partial_table_does_not_keep_the_block_that_its_text_lies_in() -> None:
    """Three blocks of 4 MiB come and go; what is left of them is a value of 20 bytes each."""
    before = pa.total_allocated_bytes()
    partials = Partials(FrequentItems(pl.Schema({"value": pl.String()}), "value", 10), [], windowed=False)
    partials.start_bundle()
    for letter in b"abc":
        words = padded(_BLOCK)
        words.view(np.uint8)[:_BLOCK] = letter
        column = Text(pa.py_buffer(words)).cut(np.array([0, 20]), np.array([20, 20]))
        partials.process(to_batch(pl.DataFrame({"value": column})))
        del words, column
    gc.collect()
    assert pa.total_allocated_bytes() - before < _BLOCK
    assert sum(len(part.value[1]) for part in partials.finish_bundle()) == 3
