"""What holds of every SQL expression, whatever is written."""

import itertools
import re
import sqlite3
from contextlib import closing

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.errors import UsageError
from fabric_beam.expressions import compile_predicate, evaluate, reject_failures
from fabric_beam.kernel import Split

TABLE = pl.DataFrame(
    {
        "timestamp": pl.Series([0, 1, None], dtype=pl.Datetime("us", "UTC")),
        "http.response.status_code": [200, 503, None],
        "service.name": ["12", "it's", None],
        "value": [0.5, 2.5, None],
        "offset": [0, 70, 140],
        "user": ["7", "bob", "cid"],
        "sampled": [True, False, None],
        "tags": [["x"], ["y", "z"], []],
        "resource": [{"host": "h1"}, {"host": "h2"}, {"host": "h3"}],
    }
)
WORDS = st.sampled_from(
    re.findall(
        r"\S+",
        """timestamp http.response.status_code service.name value offset user sampled tags resource.host nosuch
        ( ) ( ) , + - * / % = <> < >= AND OR NOT IN LIKE BETWEEN IS NULL CASE WHEN THEN ELSE END CAST( TRY_CAST( AS INT
        VARCHAR LOWER( LENGTH( ABS( COALESCE( SUM( 1 0 2.5 'api' '%a' '2015-05-17' "user" ' " [ ] :: || -- /* TIMESTAMP
        INTERVAL '1h' EXTRACT( hour FROM DISTINCT REGEXP ~ . ; {} \\ é""",
    )
)
COMPARISON = st.tuples(
    st.sampled_from(["value", "offset", "ABS(value)", "-offset", "http.response.status_code", "CAST(user AS INT)"]),
    st.sampled_from(["=", "<>", "<", ">="]),
    st.sampled_from(["1", "70", "offset", "value * 2", "TRY_CAST(service.name AS FLOAT)", "NULL", "LENGTH(user)"]),
).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=9).map(" ".join))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    """Whatever is written, the answer is a working condition or a UsageError, never another exception."""
    try:
        predicate = compile_predicate(text, TABLE.schema)
    except UsageError:
        return
    result = reject_failures(TABLE, lambda rows: rows.with_columns(predicate.alias("result")), [predicate])
    rows = result.height if isinstance(result, pl.DataFrame) else result.kept.height + result.rejected.height
    assert rows == TABLE.height


@settings(max_examples=100, deadline=None)
@given(st.lists(COMPARISON, min_size=1, max_size=4).map(" OR ".join))
def test_a_row_does_not_see_its_neighbours(text: str) -> None:
    """A row gets the same answer alone as among others."""
    predicate = compile_predicate(text, TABLE.schema)

    def answers(rows: pl.DataFrame) -> dict[int, bool | None]:
        result = reject_failures(rows, lambda rows: rows.select("offset", predicate.alias("result")), [predicate])
        return dict((result.kept if isinstance(result, Split) else result).rows())

    alone = [answers(TABLE[row]) for row in range(TABLE.height)]
    assert answers(TABLE) == {offset: answer for row in alone for offset, answer in row.items()}


def _sql(depth: int) -> tuple[st.SearchStrategy[str], st.SearchStrategy[str], st.SearchStrategy[str]]:
    """Strategies of numbers, texts and conditions in SQL without redundant brackets."""
    numbers = st.sampled_from(["a", "b", "1", "2", "0", "2.5", "-1", "-a"])
    texts = st.sampled_from(["s", "t", "'a'", "'b%'", "'ab'"])
    conditions = st.sampled_from(["a = 1", "b < 2", "s = 'a'", "t LIKE 'b%'", "s IS NULL"])
    for _ in range(depth):
        number, text, condition = numbers, texts, conditions
        numbers |= st.builds("{} {} {}".format, number, st.sampled_from("+-*"), number)
        numbers |= st.builds("({})".format, number) | st.builds("COALESCE({}, {})".format, number, number)
        numbers |= st.builds("CASE WHEN {} THEN {} ELSE {} END".format, condition, number, number)
        texts |= st.builds("{} || {}".format, text, text) | st.builds("UPPER({})".format, text)
        is_not, is_ = st.sampled_from(["", "NOT "]), st.sampled_from(["=", "<>", "<", ">=", "!="])
        conditions |= st.builds("{} {} {}".format, number, is_, number) | st.builds("{} {} {}".format, text, is_, text)
        conditions |= st.builds("{} {}BETWEEN {} AND {}".format, number, is_not, number, number)
        conditions |= st.builds("{} {}IN (0, 2.5)".format, number, is_not) | st.builds(
            "{} IS {}NULL".format, text, is_not
        )
        conditions |= st.builds("{} {}LIKE 'a_%'".format, text, is_not) | st.builds("NOT {}".format, condition)
        conditions |= st.builds("{} {} {}".format, condition, st.sampled_from(["AND", "OR"]), condition)
    return numbers, texts, conditions


@settings(max_examples=200, deadline=None)
@given(_sql(3)[2])
def test_conditions_mean_what_sqlite_says(text: str) -> None:
    """Precedence, null and comparison are those of SQL, as SQLite has them."""
    rows = list(itertools.product([None, 0, 1, 2], [None, 1.0, 2.5], [None, "a", "ab"], ["b", "B%"]))
    table = pl.DataFrame(rows, schema={"a": pl.Int64, "b": pl.Float64, "s": pl.String, "t": pl.String}, orient="row")
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("PRAGMA case_sensitive_like = ON")
        database.execute("CREATE TABLE event (a INTEGER, b REAL, s TEXT, t TEXT)")
        database.executemany("INSERT INTO event VALUES (?, ?, ?, ?)", rows)
        expected = [
            answer if answer is None else bool(answer) for (answer,) in database.execute(f"SELECT {text} FROM event")
        ]
    try:
        predicate = compile_predicate(text, table.schema)
    except UsageError as error:
        assert "the same for every row" in str(error)
        assert len(set(expected)) == 1
    else:
        assert evaluate(table, predicate).to_list() == expected
