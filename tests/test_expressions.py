"""SQL expressions over dotted columns: what they mean, what is refused, and how it is said."""

import pickle
from datetime import UTC, datetime

import polars as pl
import pytest

from fabric_beam.errors import UsageError
from fabric_beam.expressions import compile_expression, compile_predicate, evaluate, reject_failures
from fabric_beam.kernel import Split

NOON = datetime(2015, 5, 17, 12, tzinfo=UTC)
TABLE = pl.DataFrame(
    {
        "timestamp": [NOON, NOON.replace(hour=13), None],
        "http.response.status_code": [200, 503, None],
        "service.name": ["api", "it's", None],
        "value": [0.5, 2.5, None],
        "offset": [0, 70, 140],
        "user": ["ann", "bob", "cid"],
        "from": ["a", "b", "c"],
        "sampled": [True, False, None],
        "tags": [["x"], ["y", "z"], []],
        "resource": [{"host": "h1"}, {"host": "h2"}, {"host": "h3"}],
        "process.local_time": [datetime(2015, 5, 17), datetime(2015, 5, 18), None],
        "odd-name": [1, 2, 3],
    }
)
YES, NO, NULL = True, False, None

GOOD = {
    "http.response.status_code >= 500": [NO, YES, NULL],
    "http.response.status_code >= 500 AND service.name = 'api'": [NO, NO, NULL],
    "http.response.status_code=503 or user='ann'": [YES, YES, NULL],
    "service.name = 'it''s'": [NO, YES, NULL],
    "user = 'http.response.status_code'": [NO, NO, NO],
    "value > .5 AND value < 2.5e0 + 1": [NO, YES, NULL],
    "value BETWEEN 0 AND 1": [YES, NO, NULL],
    "value NOT BETWEEN 0 AND 1": [NO, YES, NULL],
    "offset % 140 = 70": [NO, YES, NO],
    "user IN ('ann', 'cid')": [YES, NO, YES],
    "user NOT IN ('ann')": [NO, YES, YES],
    "http.response.status_code IN (200, 204)": [YES, NO, NULL],
    "user LIKE '%n%'": [YES, NO, NO],
    "user NOT LIKE 'a__'": [NO, YES, YES],
    "user ILIKE 'BOB'": [NO, YES, NO],
    "user REGEXP '^[ab]'": [YES, YES, NO],
    "user ~ 'd$'": [NO, NO, YES],
    "from = 'a' OR from > 'b'": [YES, NO, YES],
    "service.name IS NULL": [NO, NO, YES],
    "value IS NOT NULL": [YES, YES, NO],
    "NOT sampled": [NO, YES, NULL],
    "sampled IS TRUE": [YES, NO, NULL],
    "value IS DISTINCT FROM 0.5": [NO, YES, YES],
    "(value IS DISTINCT FROM 0.5) AND sampled IS NULL": [NO, NO, YES],
    "CAST(LENGTH(service.name) AS BIGINT) - 4 < 0": [YES, NO, NULL],
    "CASE WHEN value > 1 THEN 'big' ELSE user END = 'big'": [NO, YES, NO],
    "LOWER(UPPER(user)) = user": [YES, YES, YES],
    "LENGTH(service.name) = 3": [YES, NO, NULL],
    "COALESCE(http.response.status_code, 0) = 0": [NO, NO, YES],
    "user || '!' = 'bob!'": [NO, YES, NO],
    "tags[1] = 'y'": [NO, YES, NULL],
    "resource.host = 'h2'": [NO, YES, NO],
    '"odd-name" = 2': [NO, YES, NO],
    "`user` = 'bob'": [NO, YES, NO],
    "user = 'bob' -- the user, not 'ann'": [NO, YES, NO],
    "user /* http.x's */ = 'bob'": [NO, YES, NO],
    "user\n  = 'bob'": [NO, YES, NO],
    "timestamp >= '2015-05-17T12:30:00Z'": [NO, YES, NULL],
    "timestamp >= '2015-05-17T14:30:00+02:00'": [NO, YES, NULL],
    "timestamp > '2015-05-17 12:00:00'": [NO, YES, NULL],
    "'2015-05-18' > timestamp": [YES, YES, NULL],
    "timestamp BETWEEN '2015-05-17' AND '2015-05-17T12:00:00.000001Z'": [YES, NO, NULL],
    "timestamp NOT IN ('2015-05-17T12:00:00Z', '2015-05-18')": [NO, YES, NULL],
    "timestamp = TIMESTAMP '2015-05-17T14:00:00+02:00'": [YES, NO, NULL],
    "timestamp - INTERVAL '1h' < timestamptz '2015-05-17T11:30:00Z'": [YES, NO, NULL],
    "process.local_time < '2015-05-18'": [YES, NO, NULL],
    "EXTRACT(hour FROM timestamp) = 13": [NO, YES, NULL],
    "TRY_CAST(user AS INT) IS NULL": [YES, YES, YES],
    "CAST(offset AS VARCHAR) = '70'": [NO, YES, NO],
}

KNOWN = (
    "Known: from, http.response.status_code, odd-name, offset, process.local_time, resource, sampled, service.name, "
    "tags, timestamp, user, value."
)
ONE_ROW = "An expression sees one row at a time: no aggregate, window function, sub-query or list of rows."
CONSTANT = "It uses no column, so it is the same for every row. Names stand bare or in \"…\"; '…' is text."
UTC_TYPE = "Datetime(time_unit='us', time_zone='UTC')"
BAD = {
    "http.response.status > 5": (
        f"There is no column 'http.response.status'. Did you mean 'http.response.status_code'? {KNOWN}",
        "http.response.status > 5",
        "^",
    ),
    "value > 1 AND Service.name = 'x'": (
        f"There is no column 'Service.name'. Did you mean 'service.name'? {KNOWN}",
        "value > 1 AND Service.name = 'x'",
        "              ^",
    ),
    "value > 1\n  AND usr = 'x'\n  AND user = 'y'": (
        f"There is no column 'usr'. Did you mean 'user'? {KNOWN}",
        "  AND usr = 'x'",
        "      ^",
    ),
    'user = "bob"': (
        f"There is no column 'bob'. Text stands in single quotes: 'bob'. {KNOWN}",
        'user = "bob"',
        "       ^",
    ),
    '"^v.*$" > 1': (
        f"There is no column '^v.*$'. Text stands in single quotes: '^v.*$'. {KNOWN}",
        '"^v.*$" > 1',
        "^",
    ),
    "user = 'bob": ("What opens with ' is not closed.", "user = 'bob", "       ^"),
    "(value > 1": ("( is not closed.", "(value > 1", "^"),
    "value > 1)": (") closes nothing.", "value > 1)", "         ^"),
    "value >": (
        "This is not an SQL expression that Polars can read: unable to parse '\"value\" >' as Expr.",
        "value >",
    ),
    " ": ("This is not an SQL expression that Polars can read: unable to parse '' as Expr.", "(empty)"),
    "value > 1; DROP TABLE x": (
        "This is not an SQL expression that Polars can read: invalid expression (found unexpected token ';').",
        "value > 1; DROP TABLE x",
    ),
    "__import__('os') = 1": (
        "This is not an SQL expression that Polars can read: unsupported function '__import__'.",
        "__import__('os') = 1",
    ),
    "value > 1_000": ("An expression takes no alias, and this names its result '_000'.", "value > 1_000"),
    "value": ("A condition is needed, true or false for each row; this gives Float64.", "value"),
    "'user' = 'bob'": (CONSTANT, "'user' = 'bob'"),
    "value IS DISTINCT FROM 1 AND sampled": (
        "Put the comparison before this AND in brackets: (… IS DISTINCT FROM …).",
        "value IS DISTINCT FROM 1 AND sampled",
        "                         ^",
    ),
    "LENGTH(user) - 5 > 0": (
        "A difference of type UInt32 wraps round below 0: write CAST(… AS BIGINT) around its first part.",
        "LENGTH(user) - 5 > 0",
    ),
    "timestamp > now()": (
        "now would be the time when the pipeline is built: compare with a column.",
        "timestamp > now()",
        "            ^",
    ),
    "timestamp > 'noon'": (
        "'noon' is not a time in ISO 8601, such as '2015-05-17T10:00:00Z'.",
        "timestamp > 'noon'",
        "            ^",
    ),
    "timestamp + INTERVAL '1h' > '2015-05-17'": (
        f"Cannot compare a value of type {UTC_TYPE} with '2015-05-17' (String). "
        "Write a time as TIMESTAMP '2015-05-17T10:00:00Z'.",
        "timestamp + INTERVAL '1h' > '2015-05-17'",
        "^",
    ),
    "timestamp > 5": (f"Cannot compare timestamp ({UTC_TYPE}) with 5 (Int32).", "timestamp > 5", "^"),
    "offset > 1 OR user = 5": (
        "Cannot compare user (String) with 5 (Int32).",
        "offset > 1 OR user = 5",
        "              ^",
    ),
    "value BETWEEN 'a' AND 'b'": (
        "Cannot compare value (Float64) with 'a' (String).",
        "value BETWEEN 'a' AND 'b'",
        "^",
    ),
    "user IN (1, 2)": ("Cannot compare user (String) with [1, 2] (List(Int64)).", "user IN (1, 2)", "^"),
    "sampled = 'true'": ("Cannot compare sampled (Boolean) with 'true' (String).", "sampled = 'true'", "^"),
    "sampled = 1": ("Cannot compare sampled (Boolean) with 1 (Int32).", "sampled = 1", "^"),
    "tags = 'x'": ("Cannot compare tags (List(String)) with 'x' (String).", "tags = 'x'", "^"),
    "user = value": ("Cannot compare user (String) with value (Float64).", "user = value", "^"),
    "NOT user": ("Cannot convert user (String) to Boolean.", "NOT user", "    ^"),
    "CAST(user AS DATE) IS NULL": ("Cannot convert user (String) to Date.", "CAST(user AS DATE) IS NULL", "     ^"),
    "DATE(user) IS NULL": (
        "Without a format Polars guesses it from other rows: write STRPTIME(column, '%Y-%m-%d').",
        "DATE(user) IS NULL",
    ),
    "UPPER(value) = 'A'": (
        "invalid series dtype: expected `String`, got `f64` for series with name `value`. value is Float64.",
        "UPPER(value) = 'A'",
    ),
    "user REGEXP '('": (
        "regex error: regex parse error: ( ^ error: unclosed group. user is String.",
        "user REGEXP '('",
    ),
    "SUM(value) > 1": (ONE_ROW, "SUM(value) > 1"),
    "value > AVG(value)": (ONE_ROW, "value > AVG(value)"),
    "COUNT(*) > 1": (ONE_ROW, "COUNT(*) > 1"),
    "COUNT(DISTINCT value) > 1": (ONE_ROW, "COUNT(DISTINCT value) > 1"),
    "CORR(value, offset) > 0": (ONE_ROW, "CORR(value, offset) > 0"),
    "QUANTILE_DISC(value, 0.5) > 0": (ONE_ROW, "QUANTILE_DISC(value, 0.5) > 0"),
    "ROW_NUMBER() OVER (ORDER BY offset) = 1": (ONE_ROW, "ROW_NUMBER() OVER (ORDER BY offset) = 1"),
    "SUM(value) OVER (PARTITION BY user) > 1": (ONE_ROW, "SUM(value) OVER (PARTITION BY user) > 1"),
    "LAG(value) OVER (ORDER BY offset) > 1": (ONE_ROW, "LAG(value) OVER (ORDER BY offset) > 1"),
    "UNNEST(tags) = 'x'": (ONE_ROW, "UNNEST(tags) = 'x'"),
    "COLUMNS('v.*') > 1": (ONE_ROW, "COLUMNS('v.*') > 1"),
    "offset IN (SELECT 1)": (ONE_ROW, "offset IN (SELECT 1)", "           ^"),
}


@pytest.mark.parametrize(("text", "expected"), GOOD.items())
def test_predicate_means_what_sql_says(text: str, expected: list[bool | None]) -> None:
    """A condition gives SQL's true, false or null for each row."""
    assert evaluate(TABLE, compile_predicate(text, TABLE.schema)).to_list() == expected


@pytest.mark.parametrize(("text", "lines"), BAD.items())
def test_wrong_expression_is_refused_and_shown(text: str, lines: tuple[str, ...]) -> None:
    """What is wrong is said first, then shown in the expression, with a caret where the place is known."""
    with pytest.raises(UsageError) as error:
        compile_predicate(text, TABLE.schema)
    assert str(error.value) == "\n    ".join(lines)


@pytest.mark.parametrize("text", GOOD)
def test_compiled_expression_travels(text: str) -> None:
    """A compiled condition gives the same after pickling, as it is sent to workers."""
    expression = compile_predicate(text, TABLE.schema)
    again = pickle.loads(pickle.dumps(expression))
    assert TABLE.select(again).equals(TABLE.select(expression))


@pytest.mark.parametrize(
    "name", ["count", "date", "end", "group", "in", "interval", "limit", "null", "order", "select"]
)
def test_quotes_make_any_name_a_column(name: str) -> None:
    """A column whose name is a word of SQL can be used in double quotes."""
    table = pl.DataFrame({name: [1, 2]})
    assert table.filter(compile_predicate(f'"{name}" = 2', table.schema)).rows() == [(2,)]


@pytest.mark.parametrize("name", ["date", "from", "group", "interval", "limit", "offset", "order", "user", "values"])
def test_plain_names_may_be_words_of_sql(name: str) -> None:
    """A column whose name Polars would misread is found bare, too."""
    table = pl.DataFrame({name: [1, 2]})
    assert table.filter(compile_predicate(f"1 < {name} AND {name} < 3", table.schema)).rows() == [(2,)]


def test_longest_column_name_wins() -> None:
    """Of two columns that a dotted name could begin with, the longer one is meant."""
    table = pl.DataFrame({"a.b": [{"c": 1}], "a.b.c": [2], "a": [{"b": {"c": 3}}]})
    assert table.select(compile_expression("a.b.c * 10", table.schema)).item() == 20


def test_expression_may_be_of_any_type() -> None:
    """An expression that is not a condition gives its value, and may be a constant."""
    assert TABLE.select(compile_expression("offset + 1", TABLE.schema)).to_series().to_list() == [1, 71, 141]
    assert pl.select(compile_expression("'production'", TABLE.schema)).item() == "production"


def test_long_expressions_compile() -> None:
    """Hundreds of terms are no trouble."""
    text = " OR ".join(f"offset = {number}" for number in range(300))
    assert evaluate(TABLE, compile_predicate(text, TABLE.schema)).to_list() == [True, True, True]


def test_rows_that_a_cast_cannot_convert_are_rejected() -> None:
    """CAST rejects exactly the rows that it cannot convert, with the value, and keeps the order of the others."""
    table = pl.DataFrame({"size": ["3", "-", "1", None, "x", "2"]})
    predicate = compile_predicate("CAST(size AS INT) > 1", table.schema)
    result = reject_failures(table, lambda rows: rows.filter(predicate), [predicate])
    assert isinstance(result, Split)
    assert result.kept["size"].to_list() == ["3", "2"]
    assert result.rejected.rows() == [
        ("-", "expression", "cannot convert '-' to Int32"),
        ("x", "expression", "cannot convert 'x' to Int32"),
    ]


def test_other_failures_are_isolated_row_by_row() -> None:
    """Rows on which an expression fails for another reason are found one by one; the others are kept in order."""
    table = pl.DataFrame({"day": ["2015", "x", "2016", "y", "2017"]})
    predicate = compile_predicate("STRPTIME(day, '%Y') > TIMESTAMP '2015-06-01'::TIMESTAMP", table.schema)
    result = reject_failures(table, lambda rows: rows.filter(predicate), [predicate])
    assert isinstance(result, Split)
    assert result.kept["day"].to_list() == ["2016", "2017"]
    assert result.rejected["day"].to_list() == ["x", "y"]
    assert set(result.rejected["rejected.rule"]) == {"expression"}
    assert result.rejected["rejected.message"][0].startswith("the expression fails on this row: conversion from `str`")


def test_no_failure_costs_no_split() -> None:
    """A kernel that does not fail gives its own result."""
    assert reject_failures(TABLE, lambda rows: rows).equals(TABLE)
