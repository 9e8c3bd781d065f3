"""dictionary_encoded against a plain dict."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from fabric_beam.dictionaries import dictionary_encoded

# Few letters, so that values repeat and differ in one place; lengths about 8, 12 and 16, where the loops change.
_VALUES = st.one_of(st.none(), st.text("aé\0", max_size=5), st.text("ab", min_size=6, max_size=18))


def _expected(values: list[str | None]) -> tuple[list[str], list[int | None]]:
    known: dict[str, int] = {}
    return [*dict.fromkeys(v for v in values if v is not None)], [
        None if v is None else known.setdefault(v, len(known)) for v in values
    ]


def _check(column: pl.Series) -> None:
    found = dictionary_encoded(column)
    assert found is not None
    found.validate(full=True)
    assert (found.dictionary.to_pylist(), found.indices.to_pylist()) == _expected(column.to_list())


@given(st.lists(st.lists(_VALUES, max_size=12), min_size=1, max_size=5), st.integers(0, 3))
def test_any_column(chunks: list[list[str | None]], cut: int) -> None:
    """Chunks, each with buffers of its own, from their start or from behind it."""
    _check(pl.concat([pl.Series(chunk, dtype=pl.String)[cut:] for chunk in chunks], rechunk=False))


@given(st.lists(_VALUES, max_size=30), st.lists(_VALUES, max_size=30))
def test_rows_of_several_buffers_in_turn(one: list[str | None], two: list[str | None]) -> None:
    """As a join or a choice between two columns leaves them."""
    rows = min(len(one), len(two))
    table = pl.DataFrame({"one": one[:rows], "two": two[:rows]}, schema={"one": pl.String, "two": pl.String})
    _check(table.select(pl.when(pl.int_range(pl.len()) % 2 == 0).then("one").otherwise("two"))["one"])


def test_as_many_values_as_fit() -> None:
    """65,536 values of less than a mebibyte, and no more of either."""
    values = pl.Series([f"{i:015}" for i in range(65_536)])
    _check(values)
    assert dictionary_encoded(values.append(pl.Series(["one more"]))) is None
    _check(pl.Series(["x" * (1 << 20)]))
    assert dictionary_encoded(pl.Series(["x" * (1 << 20), "y"])) is None


def test_values_that_fall_on_one_another() -> None:
    """Long values that differ only where words overlap or are far apart."""
    _check(pl.Series([("a" * i + "b").ljust(40, "a") for i in range(40)] * 3))


def test_too_many_changes_of_buffer() -> None:
    """A column whose rows lie now in one buffer, now in another, is given up rather than taken slowly."""
    column = pl.concat([pl.Series([f"a value that is long enough {i} {j}" for j in range(5000)]) for i in range(2)])
    _check(column.rechunk().gather([0, 5000] * 500))
    assert dictionary_encoded(column.rechunk().gather([0, 5000] * 600)) is None
