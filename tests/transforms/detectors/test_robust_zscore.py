"""RobustZScore: medians of the past, floors, gaps, level shifts, and the labelled series."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fabric_beam.errors import SchemaError, UsageError
from fabric_beam.testing.detectors import check_detector
from transforms.detectors import DETECTORS, RobustZScore, detector

START = datetime(2026, 1, 1, tzinfo=UTC)
NAB = Path(__file__).parents[3] / "../shared/data/nab"


def windows(values: Sequence[float | None], name: str = "size", minutes: Sequence[int] | None = None) -> pl.DataFrame:
    """One series of minutes, in order; as integers if the values are."""
    at = [START + timedelta(minutes=minute) for minute in (minutes or range(len(values)))]
    starts = pl.Series("window_start", at, pl.Datetime("us", "UTC"))
    return pl.DataFrame([starts, (starts + timedelta(minutes=1)).alias("window_end"), pl.Series(name, values)])


def noise(length: int, level: float = 100.0, deviation: float = 5.0, seed: int = 1) -> list[float]:
    """Normal noise around a level."""
    return list(np.random.default_rng(seed).normal(level, deviation, length))


def reference(values: Sequence[float | None], counts: bool, history: int, least: int) -> list[float]:
    """The scores of one series by the formula, one window at a time; NaN for none."""
    past: list[float] = []
    scores: list[float] = []
    for value in values:
        if value is None or not math.isfinite(value):
            scores.append(math.nan)
            continue
        x = math.copysign(2 * (math.sqrt(abs(value) + 3 / 8) - math.sqrt(3 / 8)), value) if counts else float(value)
        before = past[-history:]
        past.append(x)
        if len(before) < least:
            scores.append(math.nan)
            continue
        middle = statistics.median(before)
        distances = sorted(abs(y - middle) for y in before)
        tail = distances[math.ceil(0.85 * len(distances)) - 1]
        scale = max(1.4826 * statistics.median(distances), tail / 1.4395) or 1.2533 * statistics.mean(distances)
        scale = max(scale, 1, 0.025 * abs(middle)) if counts else max(scale, 0.05 * abs(middle))
        scale = scale or 0.05 * abs(x)
        scores.append(abs(x - middle) / scale if scale else 0.0)
    return scores


VALUES = st.lists(
    st.one_of(
        st.integers(-5, 5).map(float),
        st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6),
        st.sampled_from([None, math.nan, math.inf, 0.0]),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(VALUES, st.integers(2, 4), st.integers(4, 9))
def test_scores_of_measurements_follow_the_formula(values: list[float | None], least: int, history: int) -> None:
    """Floating-point measures get |x - median| / scale over the windows before, as computed one window at a time."""
    table = windows(values).cast({"size": pl.Float64})
    scored = RobustZScore(history=history, min_history=least).score(table)
    expected = reference(values, False, history, least)
    assert scored["score"].fill_null(math.nan).to_list() == pytest.approx(expected, rel=1e-6, nan_ok=True)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.none() | st.integers(-5, 5) | st.integers(0, 10**6), max_size=40), st.integers(4, 9))
def test_scores_of_counts_follow_the_formula(values: list[int | None], history: int) -> None:
    """Integer measures are judged on the square-root scale, where Poisson noise has a deviation of 1."""
    table = windows(values).cast({"size": pl.Int64})
    scored = RobustZScore(history=history, min_history=3).score(table)
    expected = reference(values, True, history, 3)
    assert scored["score"].fill_null(math.nan).to_list() == pytest.approx(expected, rel=1e-6, nan_ok=True)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 60), st.integers(0, 50)), max_size=60))
def test_series_do_not_see_each_other(events: list[tuple[str | None, int, int]]) -> None:
    """All series scored together have the scores that each has alone, gaps and all."""
    rows = {(name, minute): count for name, minute, count in events}
    table = windows(list(rows.values()), "count", [minute for _, minute in rows]).cast({"count": pl.Int64})
    table = table.with_columns(pl.Series("service.name", [name for name, _ in rows], pl.String))
    judge = RobustZScore(["count"], threshold=2, history=10, min_history=3)
    alone = [judge.score(part, ["service.name"]) for part in table.partition_by("service.name")]
    together = judge.score(table, ["service.name"])
    expected = pl.concat([together.clear(), *alone]).sort("window_start", "service.name")
    assert_frame_equal(together, expected)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 80), st.randoms(use_true_random=False))
def test_later_windows_change_no_score(length: int, shuffled: random.Random) -> None:
    """What a prefix of the windows scores is what it scores as part of the whole, whatever order the rows come in."""
    table = windows([int(value) for value in noise(80, 30, 10)], "count").with_columns(size=pl.Series(noise(80)))
    order = list(range(80))
    shuffled.shuffle(order)
    judge = RobustZScore(threshold=3)
    whole, prefix = judge.score(table[order]), judge.score(table[:length])
    assert_frame_equal(whole[: 2 * length], prefix, check_exact=True)


def test_the_detector_keeps_the_rules() -> None:
    """RobustZScore passes the check that every detector must pass."""
    check_detector(RobustZScore())


def test_rows_come_out_by_time_then_series_then_measure() -> None:
    """The output is sorted by window and series, null first, with the measures of a row side by side in their order."""
    table = pl.concat([windows([1.0, 2.0]).with_columns(host=pl.lit(host, pl.String)) for host in ("b", None)])
    scored = RobustZScore(["other", "size"]).score(table.with_columns(other=0.5), ["host"])
    assert scored.select("host", "measure").rows()[:4] == [
        *((None, "other"), (None, "size"), ("b", "other"), ("b", "size"))
    ]
    assert scored["window_start"].is_sorted()


def test_a_reason_tells_the_value_the_median_and_the_distance() -> None:
    """The reason says in words how far the value is from which median of how many windows."""
    scored = RobustZScore().score(windows([100.0, 90.0, 110.0] * 20 + [400.0, 5.0]))
    assert scored["reason"].drop_nulls().to_list() == [
        "size 400 is 20.2 robust deviations above the median 100 of the previous 60 windows",
        "size 5 is 6.4 robust deviations below the median 100 of the previous 60 windows",
    ]


def test_too_short_a_history_gives_no_score() -> None:
    """The first windows of a series have a null score and are never anomalous."""
    scored = RobustZScore(min_history=20).score(windows([1.0] * 10 + [1e9] + [1.0] * 20))
    assert scored["score"].null_count() == 20
    assert not scored["is_anomaly"].any()


def test_a_few_events_where_there_were_none_are_noise() -> None:
    """A count that rises from 0 to a handful does not fire: that is what Poisson noise does."""
    assert not RobustZScore().score(windows([0] * 60 + [5], "errors"))["is_anomaly"].any()
    assert RobustZScore().score(windows([0] * 60 + [50], "errors"))["is_anomaly"].any()


@pytest.mark.parametrize("rate", [0.2, 3, 40, 5000])
def test_poisson_noise_does_not_fire(rate: float) -> None:
    """Counts that are random at a steady rate give no anomaly in 50,000 windows."""
    counts = np.random.default_rng(3).poisson(rate, 50_000)
    assert not RobustZScore().score(windows(list(counts), "count"))["is_anomaly"].any()


def test_a_measure_that_was_always_zero_fires_when_it_is_not() -> None:
    """A floating-point measure with no scale at all fires with a finite score."""
    scored = RobustZScore().score(windows([0.0] * 60 + [0.3]))
    assert scored["score"][-1] == pytest.approx(20)
    assert scored["is_anomaly"][-1]


def test_what_happens_every_few_windows_is_usual() -> None:
    """A burst at every fifth window fires no more once it has been seen, while a larger one does."""
    bursts = [level + (400 if minute % 5 == 0 else 0) for minute, level in enumerate(noise(200))]
    scored = RobustZScore().score(windows([*bursts, 9000.0]))
    assert scored["is_anomaly"].arg_true().to_list() == [200]


def test_an_incident_leaves_the_baseline_as_it_was() -> None:
    """After nine anomalous windows the next one is judged as the first was."""
    scored = RobustZScore().score(windows(noise(100) + noise(9, 200) + noise(21) + noise(1, 200)))
    assert scored["is_anomaly"].arg_true().to_list() == [*range(100, 109), 130]


def test_a_lasting_level_is_accepted() -> None:
    """A new level fires at first, and no more before a history's length has passed."""
    scored = RobustZScore().score(windows(noise(100) + noise(100, 200)))
    fired = scored["is_anomaly"].arg_true().to_list()
    assert fired[:9] == list(range(100, 109))
    assert fired[-1] < 130


def test_a_slow_cycle_is_followed() -> None:
    """A daily cycle of minutes does not fire, though its crest is three times its trough."""
    day = [200 + 100 * math.sin(2 * math.pi * minute / 1440) for minute in range(3 * 1440)]
    scored = RobustZScore().score(
        windows([level + wobble for level, wobble in zip(day, noise(len(day), 0), strict=True)])
    )
    assert not scored["is_anomaly"].any()


def test_an_outage_is_found_although_its_windows_do_not_exist() -> None:
    """Windows without events count as 0 inside a series' life, and are in the output because they are anomalous."""
    counts, minutes = [240 + minute % 9 for minute in range(60)], [*range(40), *range(45, 65)]
    scored = RobustZScore().score(windows(counts, "count", minutes))
    found = scored.filter("is_anomaly")
    assert found["window_start"].to_list() == [START + timedelta(minutes=minute) for minute in range(40, 45)]
    assert found["window_end"].to_list() == [START + timedelta(minutes=minute) for minute in range(41, 46)]
    assert found["value"].to_list() == [0.0] * 5
    assert scored.height == 65


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([0, 0, 1, 3, 40, 300]), max_size=60))
def test_a_window_that_is_missing_counts_as_one_of_zero(counts: list[int]) -> None:
    """Without the rows of empty windows the verdicts are those with them."""
    dense = windows([1, *counts, 1], "count")
    judge = RobustZScore(threshold=3, history=8, min_history=4)
    expected = judge.score(dense).filter((pl.col("value") > 0) | pl.col("is_anomaly"))
    assert_frame_equal(judge.score(dense.filter(pl.col("count") > 0)), expected)


def test_empty_windows_that_are_usual_are_not_shown() -> None:
    """A series with few events has many empty windows: they make 0 its usual count and stay out of the output."""
    minutes = [*range(0, 600, 10), 601]
    scored = RobustZScore().score(windows([1] * 60 + [40], "count", minutes))
    assert scored["window_start"].to_list() == [START + timedelta(minutes=minute) for minute in minutes]
    assert scored["is_anomaly"].arg_true().to_list() == [60]


def test_an_endless_gap_costs_no_more_than_a_history() -> None:
    """A gap of years is filled with as many windows as a history has, and leaves a history of zeros."""
    table = windows([100] * 60 + [100], "count", [*range(60), 5_000_000])
    scored = RobustZScore().score(table)
    assert scored.height < 61 + 60
    assert scored["reason"][-1] == "count 100 is 18.8 robust deviations above the median 0 of the previous 60 windows"


def test_only_counts_are_filled() -> None:
    """In an empty window a count is 0, another measure is not known and is not judged."""
    table = windows([240] * 60, "count", [*range(50), *range(55, 65)]).with_columns(errors=240, size=240.0)
    judged = RobustZScore(fill_zero=["errors"]).score(table).filter("is_anomaly")
    assert judged.group_by("measure").len().rows() == [("errors", 5)]
    assert not RobustZScore(fill_zero=[]).score(table)["is_anomaly"].any()


def test_sliding_windows_are_filled_where_they_hold_nothing() -> None:
    """Between sliding windows that overlap nothing is missing; where they are far apart, it is."""
    table = windows([240] * 60, "count").with_columns(pl.col("window_end") + timedelta(minutes=4))
    assert RobustZScore().score(table).height == 60
    apart = windows([240] * 60, "count", [*range(50), *range(70, 80)])
    apart = apart.with_columns(pl.col("window_end") + timedelta(minutes=4))
    found = RobustZScore().score(apart).filter("is_anomaly")
    assert found["window_start"].to_list() == [START + timedelta(minutes=minute) for minute in (54, 59, 64)]


def test_what_does_not_fit_is_named() -> None:
    """A wrong column, type or number is refused, with the nearest name."""
    table = windows([1.0]).with_columns(body=pl.lit("x"))
    cases: list[tuple[Callable[[], pl.DataFrame], str]] = [
        (lambda: RobustZScore(["sise"]).score(table), "Did you mean 'size'"),
        (lambda: RobustZScore(["body"]).score(table), "'body' is String, expected a number"),
        (lambda: RobustZScore().score(table, ["hosts"]), "no column 'hosts'"),
        (lambda: RobustZScore(["size"]).score(table, ["size"]), "in `by`"),
        (lambda: RobustZScore().score(table.with_columns(reason=pl.lit("x")), ["reason"]), "rename it"),
        (lambda: RobustZScore().score(table.drop("window_end")), "'window_end' is missing"),
        (lambda: RobustZScore().score(table.drop("size")), "no numeric column"),
        (lambda: RobustZScore(fill_zero=["sise"]).score(table), "Did you mean 'size'"),
    ]
    for call, message in cases:
        with pytest.raises(SchemaError, match=message):
            call()
    for options in ({"threshold": 0}, {"history": 5}, {"min_history": 1}):
        with pytest.raises(UsageError):
            RobustZScore(**options)  # type: ignore[arg-type]


def test_detectors_are_made_by_name() -> None:
    """The registry makes a detector with its options and says what there is."""
    assert isinstance(detector("robust_zscore", threshold=4), DETECTORS["robust_zscore"])
    with pytest.raises(UsageError, match="Did you mean 'robust_zscore'"):
        detector("robust_score")
    with pytest.raises(UsageError, match="Did you mean 'threshold'"):
        detector("robust_zscore", treshold=4)


@pytest.mark.real_data
@pytest.mark.parametrize("name", DETECTORS)
def test_labelled_series_of_servers_and_traffic(name: str) -> None:
    """Of the labelled windows in real series most are hit, with few alarms outside of them."""
    labels = json.loads((NAB / "combined_windows.json").read_text())
    hit = total = false = outside = 0
    for file in sorted(NAB.glob("real*/*.csv")):
        series = pl.read_csv(file).select(
            pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC").alias("window_start"),
            pl.col("value").cast(pl.Float64),
        )
        table = series.with_columns((pl.col("window_start") + timedelta(minutes=5)).alias("window_end"))
        scored = detector(name).score(table)
        inside = pl.lit(False)
        for pair in labels[f"{file.parent.name}/{file.name}"]:
            first, last = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in pair)
            labelled = pl.col("window_start").is_between(first, last)
            hit += scored.filter(labelled, "is_anomaly").height > 0
            total += 1
            inside |= labelled
        false += scored.filter(~inside, "is_anomaly").height
        outside += scored.filter(~inside).height
    assert hit / total >= 0.8
    assert 1000 * false / outside < 30
