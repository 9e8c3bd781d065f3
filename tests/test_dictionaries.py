"""DictionaryBuilder against a plain dict."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from fabric_beam.dictionaries import DictionaryBuilder

# Few letters, so that values repeat and differ in one place; lengths about 8, 12 and 16, where the loops change.
_VALUES = st.one_of(st.none(), st.text("aé\0", max_size=5), st.text("ab", min_size=6, max_size=18))


def _expected(values: list[str | None]) -> tuple[list[str], list[int | None]]:
    known: dict[str, int] = {}
    return [*dict.fromkeys(v for v in values if v is not None)], [
        None if v is None else known.setdefault(v, len(known)) for v in values
    ]


def _check(*columns: pl.Series) -> None:
    builder = DictionaryBuilder()
    # The second time with what it grew to, and nothing of the first.
    for _ in range(2):
        assert all(builder.append(column) for column in columns)
        found = builder.finish()
        found.validate(full=True)
        values = [value for column in columns for value in column.to_list()]
        assert (found.dictionary.to_pylist(), found.indices.to_pylist()) == _expected(values)


def _is_refused(*columns: pl.Series) -> bool:
    """Whether the last column is one too much, and the others are still there."""
    builder = DictionaryBuilder()
    assert all(builder.append(column) for column in columns[:-1])
    refused = not builder.append(columns[-1])
    if refused:
        assert builder.finish().dictionary_decode().to_pylist() == [v for column in columns[:-1] for v in column]
    return refused


@given(st.lists(st.lists(_VALUES, max_size=12), min_size=1, max_size=5), st.integers(0, 3))
def test_any_column(chunks: list[list[str | None]], cut: int) -> None:
    """One after the other and in one: each chunk with buffers of its own, from their start or from behind it."""
    columns = [pl.Series(chunk, dtype=pl.String)[cut:] for chunk in chunks]
    _check(*columns)
    _check(pl.concat(columns, rechunk=False))


@given(st.lists(_VALUES, max_size=30), st.lists(_VALUES, max_size=30))
def test_rows_of_several_buffers_in_turn(one: list[str | None], two: list[str | None]) -> None:
    """As a join or a choice between two columns leaves them."""
    rows = min(len(one), len(two))
    table = pl.DataFrame({"one": one[:rows], "two": two[:rows]}, schema={"one": pl.String, "two": pl.String})
    _check(table.select(pl.when(pl.int_range(pl.len()) % 2 == 0).then("one").otherwise("two"))["one"])


def test_as_many_values_as_fit() -> None:
    """4,096 values of together 256 KiB, and no more of either."""
    values = pl.Series([f"{i:064}" for i in range(4096)])
    _check(values)
    assert _is_refused(values, pl.Series([""]))
    _check(pl.Series(["x" * (1 << 18)]))
    assert _is_refused(pl.Series(["x" * (1 << 18)]), pl.Series(["x", "y"]))


def test_values_that_differ_little() -> None:
    """Long values that differ in one place, also where the words that they are read in overlap."""
    _check(pl.Series([("a" * i + "b").ljust(43, "a") for i in range(43)] * 3))


def test_too_many_changes_of_buffer() -> None:
    """A column whose rows lie now in one buffer, now in another, is given up rather than taken slowly."""
    column = pl.concat([pl.Series([f"a value that is long enough {i} {j}" for j in range(5000)]) for i in range(2)])
    _check(column.rechunk().gather([0, 5000] * 500))
    assert _is_refused(column[:10], column.rechunk().gather([0, 5000] * 600))
