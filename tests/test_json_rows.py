"""Rows survive the way to JSON and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from polars.testing.parametric import dataframes

from fabric_beam.json_rows import from_json, to_json

_TYPES = [
    pl.Boolean,
    pl.Int8,
    pl.Int64,
    pl.UInt64,
    pl.Float64,
    pl.String,
    pl.Binary,
    pl.Date,
    pl.Time,
    pl.Datetime("us"),
    pl.Datetime("us", "UTC"),
    pl.Datetime("ns", "UTC"),
    pl.Datetime("ms"),
    pl.Datetime("us", "Europe/Berlin"),
    pl.Duration("us"),
    pl.List(pl.Datetime("us")),
    pl.List(pl.Binary),
    pl.Struct({"a": pl.Int64, "b": pl.List(pl.String)}),
]


@given(dataframes(allowed_dtypes=_TYPES, max_cols=4, max_size=8, allow_infinity=False, allow_nan=False))
def test_rows_come_back_as_they_were(table: pl.DataFrame) -> None:
    """Every type, with nulls and nested."""
    texts = to_json(table)
    assert [set(json.loads(text)) for text in texts] == [set(table.columns)] * table.height
    if table.width:
        assert from_json(texts, table.schema).equals(table)


@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)))
def test_times_are_rfc_3339_in_utc(time: datetime) -> None:
    """Whatever zone the column is in."""
    aware = time.replace(tzinfo=UTC)
    table = pl.DataFrame({"t": [aware]}, schema={"t": pl.Datetime("us", "UTC")})
    for zone in ("UTC", "Asia/Kolkata"):
        [text] = to_json(table.with_columns(pl.col("t").dt.convert_time_zone(zone)))
        assert json.loads(text)["t"] == aware.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_what_json_lacks_is_null() -> None:
    """Not a number and the infinities."""
    assert to_json(pl.DataFrame({"a": [float("nan"), float("inf"), 1.5]})).to_list() == [
        '{"a":null}',
        '{"a":null}',
        '{"a":1.5}',
    ]
