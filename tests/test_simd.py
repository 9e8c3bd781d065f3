"""Sixty-four bytes compared at once, beside numpy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fabric_beam import simd
from fabric_beam.views import Bytes, Words, compiled


@compiled
def _compare(text: Bytes, at: int, byte: int, found: Words) -> None:
    found[0], found[1], found[2] = simd.equal(text, at, byte), simd.below(text, at, byte), simd.above(text, at, byte)


@compiled
def _count(bits: np.uint64) -> int:
    return int(simd.count(bits))


@compiled
def _first(bits: np.uint64) -> int:
    return int(simd.first(bits))


@given(st.binary(min_size=simd.WIDTH, max_size=3 * simd.WIDTH), st.integers(0, 255), st.data())
def test_bytes_are_compared_as_numpy_does(data: bytes, byte: int, draw: st.DataObject) -> None:
    """At any place, bytes taken as numbers without a sign."""
    text = np.frombuffer(data, np.uint8)
    at = draw.draw(st.integers(0, len(data) - simd.WIDTH))
    found = np.zeros(3, np.uint64)
    _compare(text, at, byte, found)
    block = text[at : at + simd.WIDTH]
    for bits, expected in zip(found, (block == byte, block < byte, block > byte), strict=True):
        assert np.array_equal(np.unpackbits(bits.reshape(1).view(np.uint8), bitorder="little"), expected)


@given(st.integers(0, 2**64 - 1))
def test_bits_are_counted(bits: int) -> None:
    """Those that are set."""
    assert _count(np.uint64(bits)) == bits.bit_count()


@given(st.integers(1, 2**64 - 1))
def test_the_first_bit_is_the_lowest(bits: int) -> None:
    """Counted from zero."""
    assert _first(np.uint64(bits)) == (bits & -bits).bit_length() - 1
