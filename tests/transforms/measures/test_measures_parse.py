"""The text form of measures, and what a wrong one is told."""

from __future__ import annotations

import polars as pl
import pytest

from fabric_beam.errors import SchemaError, UsageError
from transforms.measures import Aggregation, Window
from transforms.measures.parse import parse

SCHEMA = pl.Schema(
    {
        "timestamp": pl.Datetime("us", "UTC"),
        "service.name": pl.String(),
        "http.response.body.size": pl.Int64(),
        "tags": pl.List(pl.String),
    }
)


@pytest.mark.parametrize(
    ("text", "function", "argument", "name"),
    [
        ("count", "count", "", "count"),
        ("count()", "count", "", "count"),
        ("count AS events", "count", "", "events"),
        ("sum(http.response.body.size)", "sum", "http.response.body.size", "http.response.body.size.sum"),
        ("sum( a ) as bytes", "sum", "a", "bytes"),
        ("SUM(a)AS b.c", "sum", "a", "b.c"),
        ("p99.9(a)", "p99.9", "a", "a.p99.9"),
        ("count_if(CAST(a AS INT) > (1 + 2)) AS n", "count_if", "CAST(a AS INT) > (1 + 2)", "n"),
    ],
)
def test_a_measure_is_read_from_text(text: str, function: str, argument: str, name: str) -> None:
    """The function, its argument and the output column's name are found, and the name has a default."""
    call = parse(text)
    assert (call.function, call.argument, call.name) == (function, argument, name)


@pytest.mark.parametrize(
    ("by", "measures", "error", "messages"),
    [
        ([], ["sum(http.response.body.siz)"], SchemaError, ["'sum(http.response.body.siz)'", "Did you mean 'http."]),
        ([], ["sum(service.name)"], SchemaError, ["'service.name' is String, expected a number"]),
        ([], ["p99(service.name)"], SchemaError, ["'service.name' is String, expected a number"]),
        ([], ["max(tags)"], SchemaError, ["'tags' is List(String), expected a number, a time, a string or a boolean"]),
        ([], ["distinct(tags)"], SchemaError, ["'tags' is List(String), expected a type that is not nested"]),
        ([], ["summ(a)"], UsageError, ["there is no function 'summ'. Did you mean 'sum'?", "p99"]),
        ([], ["p101(http.response.body.size)"], UsageError, ["there is no function 'p101'"]),
        (
            [],
            ["sum(http.response.body.size"],
            UsageError,
            ["expected function, function(column) or function(column) AS"],
        ),
        ([], ["sum"], UsageError, ["expected a column, as in sum(column)"]),
        ([], [""], UsageError, ["measure ''"]),
        ([], [], UsageError, ["at least one measure"]),
        ([], ["count", "count"], UsageError, ["named twice: count"]),
        ([], ["count AS window_end"], UsageError, ["named twice: window_end"]),
        (["service.name"], ["count AS service.name"], UsageError, ["named twice: service.name"]),
        (["service.nam"], ["count"], SchemaError, ["no column 'service.nam'. Did you mean 'service.name'?"]),
        (["tags"], ["count"], SchemaError, ["may not be nested: tags"]),
        ([], ["count_if(http.response.body.size > 1)"], UsageError, ["a name for the output column"]),
        ([], ["count_if() AS n"], UsageError, ["expected a condition"]),
        ([], ["count_if(http.response.body.siz > 1) AS n"], UsageError, ["Did you mean 'http.response.body.size'?"]),
        ([], ["count_if(http.response.body.size) AS n"], UsageError, ["Int64"]),
    ],
)
def test_what_does_not_fit_is_refused(
    by: list[str], measures: list[str], error: type[UsageError], messages: list[str]
) -> None:
    """The error has the right class and says what was given, what was expected and the nearest name."""
    with pytest.raises(error) as raised:
        Aggregation(SCHEMA, Window.parse("1m"), by, measures)
    assert all(message in str(raised.value) for message in messages), str(raised.value)


@pytest.mark.parametrize("dtype", [pl.Datetime("ms", "UTC"), pl.Datetime("us"), pl.Int64])
def test_a_timestamp_of_another_type_is_refused(dtype: pl.DataType) -> None:
    """Event time is microseconds in UTC and nothing else."""
    with pytest.raises(SchemaError, match=r"'timestamp' is .*, expected Datetime"):
        Aggregation(pl.Schema({"timestamp": dtype}), Window.parse("1m"), [], ["count"])


def test_a_missing_timestamp_is_refused() -> None:
    """Without event time there are no windows."""
    with pytest.raises(SchemaError, match="Did you mean 'time'"):
        Aggregation(pl.Schema({"time": pl.Int64}), Window.parse("1m"), [], ["count"])


def test_a_key_that_could_be_taken_for_state_is_refused() -> None:
    """The prefix of state columns is reserved."""
    schema = pl.Schema({"timestamp": pl.Datetime("us", "UTC"), "state:count()": pl.Int64()})
    with pytest.raises(UsageError, match="may not begin with 'state:'"):
        Aggregation(schema, Window.parse("1m"), ["state:count()"], ["count"])
