"""IsolationForest: what it finds, in windows and in events, and what it says of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fabric_beam.errors import SchemaError, UsageError
from fabric_beam.testing.detectors import check_detector
from transforms.detectors import IsolationForest


def events(rows: int = 400, seed: int = 1) -> pl.DataFrame:
    """Ordinary requests: sizes and durations that go together, with where they came from."""
    rng = np.random.default_rng(seed)
    size = rng.lognormal(7, 0.3, rows)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "timestamp": pl.datetime_range(start, start + timedelta(seconds=rows - 1), "1s", eager=True),
            "source": "access.log",
            "offset": np.arange(rows) * 100,
            "service.name": rng.choice(["api", "web"], rows),
            "size": size,
            "duration": size / 1e4 + rng.normal(0, 0.005, rows),
        }
    )


def with_last(table: pl.DataFrame, **values: float | None) -> pl.DataFrame:
    """The table with other values in its last row."""
    last = pl.int_range(pl.len()) == pl.len() - 1
    return table.with_columns(pl.when(last).then(value).otherwise(name).alias(name) for name, value in values.items())


def test_the_detector_keeps_the_rules() -> None:
    """IsolationForest passes the check that every detector must pass."""
    check_detector(IsolationForest())


def test_events_keep_their_order_and_provenance() -> None:
    """Of events every row comes out in order with its time, source and offset, which are no features."""
    table = events()
    scored = IsolationForest().score(table, ["service.name"])
    assert scored.columns[:4] == ["timestamp", "source", "offset", "service.name"]
    assert_frame_equal(scored.select(scored.columns[:4]), table.select(scored.columns[:4]))
    assert set(scored["measure"]) == {"isolation_forest"}
    assert scored["value"].null_count() == table.height


def test_a_combination_is_found_that_no_feature_shows_alone() -> None:
    """A row whose features are each as usual, but not together, is anomalous, and the reason says so."""
    table = with_last(events(), size=1600.0, duration=0.07)
    assert not IsolationForest(["size"]).score(table)["is_anomaly"][-1]
    assert not IsolationForest(["duration"]).score(table)["is_anomaly"][-1]
    reason = IsolationForest().score(table)["reason"][-1]
    assert reason.startswith("an unusual combination; size 1600 is 1.")
    assert "; duration 0.07 is 1." in reason


def test_a_reason_names_the_features_that_deviate_most() -> None:
    """The reason has the features far off, the farthest first, and not those that are as usual."""
    table = with_last(events().with_columns(load=pl.col("size") / 50), size=90_000.0, duration=0.0)
    reason = IsolationForest().score(table)["reason"][-1]
    farthest, next_one = reason.split("; ")
    assert farthest.startswith("size 90000 is ")
    assert "robust deviations above its median" in farthest
    assert next_one.startswith("duration 0 is ")
    assert "below its median" in next_one


def test_a_row_is_compared_with_its_own_series() -> None:
    """A value that is usual in one series is anomalous in another, and the reason has that series' median."""
    table = events().with_columns(
        size=pl.col("size") * pl.when(pl.col("service.name") == "web").then(1000).otherwise(1)
    )
    table = with_last(table.sort("service.name", descending=True, maintain_order=True), size=1_000_000.0)
    scored = IsolationForest(["size"]).score(table, ["service.name"])
    assert scored["is_anomaly"][-1]
    assert scored["reason"][-1].endswith(
        f"above its median {_median(table.filter(pl.col('service.name') == 'api')):.6g}"
    )
    assert not IsolationForest(["size"]).score(table)["is_anomaly"][-1]


def _median(table: pl.DataFrame) -> float:
    return float(np.median(table["size"].to_numpy()))


def test_a_missing_value_counts_as_the_median() -> None:
    """Null, NaN and infinite features change no verdict: the row scores as with the median of its series."""
    table = events()
    expected = IsolationForest().score(with_last(table, size=_median(table[:-1])))["score"][-1]
    for missing in (None, float("nan"), float("inf")):
        assert IsolationForest().score(with_last(table, size=missing))["score"][-1] == pytest.approx(expected, abs=0.02)


def test_contamination_is_the_share_that_is_anomalous() -> None:
    """With a contamination of 5 % one row in twenty is above the threshold, which is then a quantile of the scores."""
    scored = IsolationForest(contamination=0.05).score(events())
    assert scored["is_anomaly"].sum() == 20
    assert scored["threshold"].n_unique() == 1


def test_the_seed_decides() -> None:
    """The same seed gives the same scores, another seed gives others."""
    table = events()
    assert_frame_equal(IsolationForest(seed=4).score(table), IsolationForest(seed=4).score(table), check_exact=True)
    assert not IsolationForest(seed=5).score(table)["score"].equals(IsolationForest(seed=4).score(table)["score"])


def test_too_few_rows_get_no_score() -> None:
    """Nineteen rows say nothing about what is usual."""
    scored = IsolationForest().score(with_last(events(19), size=1e9))
    assert scored["score"].null_count() == 19
    assert not scored["is_anomaly"].any()


def test_a_table_of_features_alone_is_scored() -> None:
    """Rows need no identity: without time, series or provenance the verdicts stand alone, in order."""
    scored = IsolationForest().score(with_last(events().select("size"), size=1e7))
    assert scored.columns == ["measure", "value", "score", "threshold", "is_anomaly", "reason"]
    assert scored["is_anomaly"].arg_true().to_list()[-1] == 399


def test_what_does_not_fit_is_named() -> None:
    """A wrong column or number is refused."""
    with pytest.raises(SchemaError, match="Did you mean 'duration'"):
        IsolationForest(["duratoin"]).score(events())
    cases: list[Callable[[], IsolationForest]] = [
        lambda: IsolationForest(threshold=1),
        lambda: IsolationForest(contamination=0.6),
        lambda: IsolationForest(sample=1),
    ]
    for make in cases:
        with pytest.raises(UsageError, match="IsolationForest"):
            make()


def test_a_missing_extra_names_its_install_line() -> None:
    """Without scikit-learn the other detectors work, and this one says what to install."""
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from transforms.detectors import IsolationForest, RobustZScore\n"
        "RobustZScore()\n"
        "IsolationForest()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith('pip install "fabric-beam[sklearn]"')
