"""Each measure at its limits: types, extremes, accuracy."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from transforms.measures import Aggregation, Window

INF, NAN = math.inf, math.nan


def measure(values: pl.Series, function: str, batch: int | None = None) -> Any:
    """Take one measure of a column, in batches of a size."""
    at = pl.lit(datetime(2026, 1, 1, tzinfo=UTC)).dt.cast_time_unit("us").alias("timestamp")
    events = values.alias("x").to_frame().with_columns(at)
    aggregation = Aggregation(events.schema, Window.parse("1d"), [], [f"{function}(x) AS y"])
    partials = [aggregation.partial(part) for part in events.iter_slices(batch or len(events))]
    return aggregation.finish(pl.concat(partials))["y"].item()


def same(actual: float | None, expected: float | None) -> bool:
    """Tell whether two values are equal, NaN to NaN and null to null."""
    return actual == expected or str(actual) == str(expected) == "nan"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series([127, 127], dtype=pl.Int8), 254),
        (pl.Series([2**31 - 1, 2**31 - 1], dtype=pl.Int32), 2**32 - 2),
        (pl.Series([2**32 - 1, 1], dtype=pl.UInt32), 2**32),
        (pl.Series([2**63, 1], dtype=pl.UInt64), 2**63 + 1),
        (pl.Series([-(2**62), -(2**62)]), -(2**63)),
        (pl.Series([0.5, 1.25], dtype=pl.Float32), 1.75),
        (pl.Series([Decimal("0.5"), Decimal("1.25")]), 1.75),
        (pl.Series([None, None], dtype=pl.Int64), None),
        (pl.Series([INF, -INF]), NAN),
    ],
)
def test_a_sum_does_not_overflow_its_column(values: pl.Series, expected: float | None) -> None:
    """Totals have a wider type than the column; of no values there is no total."""
    assert same(measure(values, "sum", 1), expected)


def test_a_mean_of_large_integers_does_not_overflow() -> None:
    """Nanosecond time stamps, whose total is beyond Int64, have a mean."""
    assert measure(pl.Series([1_700_000_000_000_000_000] * 10), "mean", 3) == 1.7e18


@pytest.mark.parametrize(
    ("values", "least", "greatest"),
    [
        (pl.Series(["b", None, "a", "a longer string than twelve"]), "a", "b"),
        (pl.Series([True, False, None]), False, True),
        (pl.Series([date(2026, 1, 2), None, date(1969, 1, 1)]), date(1969, 1, 1), date(2026, 1, 2)),
        (pl.Series([NAN, 1.0, None, -INF]), -INF, 1.0),
        (pl.Series([None], dtype=pl.String), None, None),
    ],
)
def test_extrema_are_of_any_ordered_type(values: pl.Series, least: Any, greatest: Any) -> None:
    """Numbers, strings, booleans and times have extrema; null and NaN are neither."""
    assert (measure(values, "min", 1), measure(values, "max", 1)) == (least, greatest)


@pytest.mark.parametrize("batch", [None, 7, 1000])
@pytest.mark.parametrize("offset", [0, 1e3, 1e6])
def test_a_standard_deviation_is_stable(offset: float, batch: int | None) -> None:
    """It is right to 1e-9 where the mean is a million times the deviation, in any batches."""
    values = offset + np.random.default_rng(7).normal(size=5000)
    exact = [Fraction(value) for value in values.tolist()]
    centre = sum(exact) / len(exact)
    expected = math.sqrt(sum((value - centre) ** 2 for value in exact) / (len(exact) - 1))
    assert measure(pl.Series(values), "stddev", batch) == pytest.approx(expected, rel=1e-9, abs=0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([3.0], None), ([3.0, None], None), ([3.0, 3.0], 0.0), ([1.0, NAN], NAN), ([1.0, INF], NAN)],
)
def test_a_standard_deviation_of_few_or_odd_values(values: list[float | None], expected: float | None) -> None:
    """Fewer than two values have none, equal values zero, and NaN or infinity NaN."""
    assert same(measure(pl.Series([None, *values], dtype=pl.Float64), "stddev", 1), expected)


@settings(deadline=None, max_examples=150)
@given(
    values=st.lists(st.none() | st.just(NAN) | st.floats(-1.7e308, 1.7e308, allow_subnormal=False), max_size=40),
    percent=st.sampled_from(["0", "1", "50", "95", "99.9", "100"])
    | st.integers(0, 9999).map(lambda n: f"{n / 100:.2f}"),
    batch=st.integers(1, 40),
)
def test_a_percentile_is_within_one_percent_of_the_true_one(
    values: list[float | None], percent: str, batch: int
) -> None:
    """Over all magnitudes and both signs; null and NaN are not counted."""
    actual = measure(pl.Series([None, *values], dtype=pl.Float64), f"p{percent}", batch)
    counted = sorted(value for value in values if value is not None and not math.isnan(value))
    if not counted:
        assert actual is None
        return
    expected = counted[max(1, math.ceil(Fraction(percent) / 100 * len(counted))) - 1]
    assert actual == pytest.approx(expected, rel=0.01 * (1 + 1e-9), abs=0)


def test_a_rank_is_exact_where_floating_point_is_not() -> None:
    """p99.9 of 1000 values is the 999th, though 99.9 / 100 * 1000 is more than 999 in floating point."""
    values = pl.Series([1.0] * 999 + [1e6])
    assert measure(values, "p99.9") == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([-INF, 0.0, 1.0], -INF), ([-1.0, -0.0, 5e-324, INF], 0.0), ([INF], INF), ([-5e-324], 0.0)],
)
def test_percentiles_of_zero_and_infinity_are_themselves(values: list[float], expected: float) -> None:
    """The sketch's ends and its middle: infinities, zeros and what is too small to have a logarithm of its own."""
    assert measure(pl.Series(values), "p30") == expected


@pytest.mark.parametrize("count", [0, 1, 10, 99, 1_000, 5_000, 10_000, 20_000, 100_000])
@pytest.mark.parametrize("kind", ["integers", "multiples", "floats", "strings", "times"])
def test_distinct_is_within_four_standard_errors(kind: str, count: int) -> None:
    """Whatever the type, and with no bias where the small range ends; nearly exact below a hundred."""
    numbers = pl.Series(range(count), dtype=pl.Int64)
    values = {
        "integers": numbers,
        "multiples": numbers * 4096,
        "floats": numbers / 2,
        "strings": "user-" + numbers.cast(pl.String),
        "times": (numbers * 1_000_000).cast(pl.Datetime("us", "UTC")),
    }[kind]
    repeated = pl.concat([pl.Series([None], dtype=values.dtype), values, values])
    assert measure(repeated, "distinct", 30_000) == pytest.approx(count, rel=4 * 0.01625, abs=3 if count < 100 else 0)


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([0.0, -0.0, NAN, -NAN, None]),
        pl.Series([True, None, False, True]),
        pl.Series([b"a", b"b", None]),
        pl.Series([Decimal("1.1"), Decimal("1.2"), None]),
    ],
)
def test_distinct_takes_equal_values_for_one(values: pl.Series) -> None:
    """Equal values count once in whatever batches they come, as do zeros of both signs and any NaN."""
    assert measure(values, "distinct", 1) == measure(values, "distinct") == 2


@pytest.mark.parametrize("dtype", [pl.Categorical(), pl.Enum(["b", "a"])])
def test_distinct_takes_categories_by_name(dtype: pl.DataType) -> None:
    """The state is that of the strings, so it merges with that of a worker that numbers its categories otherwise."""
    names = pl.DataFrame({"timestamp": [datetime(2026, 1, 1, tzinfo=UTC)] * 4, "x": ["a", "b", "a", None]})
    partials = [
        Aggregation(events.schema, Window.parse("1d"), [], ["distinct(x)"]).partial(events)
        for events in (names, names.with_columns(pl.col("x").cast(dtype)))
    ]
    assert_frame_equal(partials[0], partials[1])
