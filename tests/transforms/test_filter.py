"""Filter keeps the rows for which a condition is true, and nothing else happens to them."""

import operator
from collections.abc import Callable
from typing import Any

import cloudpickle
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.errors import UsageError
from fabric_beam.expressions import compile_predicate
from fabric_beam.kernel import Split
from fabric_beam.testing import collect, collect_with_dead_letters
from transforms.filter import Filter, FilterKernel

SCHEMA = pl.Schema(
    {"http.response.status_code": pl.Int32(), "http.request.method": pl.String(), "http.response.body.size": pl.Int64()}
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from([None, 200, 404, 500]),
        st.sampled_from([None, "GET", "POST", "", "it's"]),
        st.none() | st.integers(-3, 3),
    ),
    max_size=30,
)
Row = tuple[Any, ...]
#: A condition: its SQL, and the same in Python, where None is SQL's null.
Condition = tuple[str, Callable[[Row], bool | None]]
OPERATORS = {
    "=": operator.eq, "<>": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
NAMES = SCHEMA.names()


def _compare(column: int, symbol: str, limit: int | str) -> Condition:
    def holds(row: Row) -> bool | None:
        return None if row[column] is None else OPERATORS[symbol](row[column], limit)

    shown = "'" + limit.replace("'", "''") + "'" if isinstance(limit, str) else str(limit)
    return f"{NAMES[column]} {symbol} {shown}", holds


def _one_of(column: int, values: list[str]) -> Condition:
    listed = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{NAMES[column]} IN ({listed})", lambda row: None if row[column] is None else row[column] in values


def _is_null(column: int) -> Condition:
    return f"{NAMES[column]} IS NULL", lambda row: row[column] is None


def _not(inner: Condition) -> Condition:
    def holds(row: Row) -> bool | None:
        answer = inner[1](row)
        return None if answer is None else not answer

    return f"NOT ({inner[0]})", holds


def _both(left: Condition, right: Condition, decides: bool) -> Condition:
    """AND, which False decides, or OR, which True decides."""

    def holds(row: Row) -> bool | None:
        answers = {left[1](row), right[1](row)}
        return decides if decides in answers else None if None in answers else not decides

    return f"({left[0]}) {'OR' if decides else 'AND'} ({right[0]})", holds


SYMBOLS = st.sampled_from(list(OPERATORS))
TEXTS = st.sampled_from(["GET", "POST", "it's", "", "HEAD"])
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    st.builds(_compare, st.just(0), SYMBOLS, st.sampled_from([200, 404, 450]))
    | st.builds(_compare, st.just(2), SYMBOLS, st.integers(-2, 2))
    | st.builds(_compare, st.just(1), SYMBOLS, TEXTS)
    | st.builds(_one_of, st.just(1), st.lists(TEXTS, min_size=1))
    | st.builds(_is_null, st.integers(0, 2)),
    lambda inner: st.builds(_not, inner) | st.builds(_both, inner, inner, st.booleans()),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(ROWS, CONDITIONS)
def test_filter_keeps_what_a_loop_would_keep(rows: list[Row], condition: Condition) -> None:
    """The rows kept are those for which the condition is true, in their order; null is not true."""
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    kept = FilterKernel(compile_predicate(condition[0], SCHEMA))(table)
    assert isinstance(kept, pl.DataFrame)
    assert kept.rows() == [row for row in rows if condition[1](row)]


def test_no_rows_keep_their_columns() -> None:
    """An empty table comes out with its schema."""
    kernel = FilterKernel(compile_predicate("http.response.status_code > 1", SCHEMA))
    assert kernel(pl.DataFrame(schema=SCHEMA)).schema == SCHEMA


def test_rows_that_fail_are_rejected_and_none_is_lost() -> None:
    """A row on which the condition cannot be computed is rejected; the others are judged."""
    table = pl.DataFrame({"size": [str(n) if n % 7 else "-" for n in range(100)], "offset": range(100)})
    result = FilterKernel(compile_predicate("CAST(size AS INT) >= 50", table.schema))(table)
    assert isinstance(result, Split)
    assert result.kept["offset"].to_list() == [n for n in range(50, 100) if n % 7]
    assert result.rejected["offset"].to_list() == list(range(0, 100, 7))
    assert set(result.rejected["rejected.message"]) == {"cannot convert '-' to Int32"}


def test_kernel_travels_to_workers() -> None:
    """A kernel does the same after pickling."""
    table = pl.DataFrame({"user": ["ann", "bob"]})
    kernel = FilterKernel(compile_predicate("user IN ('bob') OR user REGEXP '^b'", table.schema))
    assert cloudpickle.loads(cloudpickle.dumps(kernel))(table).equals(kernel(table))


def test_filter_in_a_pipeline() -> None:
    """In a pipeline, true rows go on and failing rows become dead letters with their source and offset."""
    table = pl.DataFrame({"size": ["5", "x", "1"], "source": ["a.log"] * 3, "offset": [0, 2, 4]})
    kept, letters = collect_with_dead_letters(table, Filter("CAST(size AS INT) > 2"))
    assert kept.equals(table[:1])
    assert letters.select("rule", "message", "source", "offset").rows() == [
        ("expression", "cannot convert 'x' to Int32", "a.log", 2)
    ]


def test_wrong_condition_stops_the_pipeline_before_it_runs() -> None:
    """A condition that does not fit the columns is refused at construction, with the step's name."""
    with pytest.raises(UsageError, match=r"^Transform: There is no column 'siz'\. Did you mean 'size'\?"):
        collect(pl.DataFrame({"size": [1]}), Filter("siz > 1"))
