"""Every named pipeline gives the same rows on every runner."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fabric_beam.runners.prism import binary_path
from tests.integration.logs_command import DATASETS, generate, run, tables

_needs = {
    "PrismRunner": (binary_path().exists(), "Prism is not built: that takes Go"),
    "SparkRunner": (importlib.util.find_spec("pyspark") is not None, "PySpark is not installed"),
    "FlinkRunner": (importlib.util.find_spec("pyflink") is not None, "PyFlink is not in the lock of the newest Beam"),
}
RUNNERS = [
    pytest.param(runner, marks=pytest.mark.skipif(not there, reason=reason))
    for runner, (there, reason) in _needs.items()
]


def rows(runner: str, arguments: Sequence[str], out: Path) -> dict[str, pl.DataFrame]:
    """The rows of each dataset that `pipelines.logs` writes on a runner, in one order."""
    code, printed = run(out, f"--runner={runner}", *arguments)
    assert code == 0, printed[-3000:]
    assert (out / "report.html").stat().st_size > 10_000
    return tables(out)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated fleet's access logs, malformed lines among them."""
    return generate(tmp_path_factory.mktemp("demo"), 60_000, 7)


@pytest.fixture(scope="module")
def direct(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """What DirectRunner makes of the generated logs."""
    found = rows("DirectRunner", ["--input", str(generated)], tmp_path_factory.mktemp("direct"))
    assert found["events"].height + found["dead_letters"].height == 60_000
    assert found["dead_letters"].height
    assert found["metrics"].height > 100
    return found


@pytest.mark.parametrize("runner", RUNNERS)
def test_generated_logs_give_the_same_rows(
    runner: str, generated: Path, direct: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    """Events, metrics, alerts and dead letters are those of DirectRunner, row for row."""
    found = rows(runner, ["--input", str(generated)], tmp_path)
    for name in DATASETS:
        assert_frame_equal(found[name], direct[name])


@pytest.mark.real_data
@pytest.mark.parametrize("runner", RUNNERS)
def test_a_real_log_gives_the_same_rows(runner: str, real_data: Path, tmp_path: Path) -> None:
    """10,000 lines of a real site, its malformed line among them."""
    arguments = ["--input", str(real_data / "web" / "apache_combined.log")]
    found, expected = (rows(each, arguments, tmp_path / each) for each in (runner, "DirectRunner"))
    assert expected["events"].height == 9_999
    for name in DATASETS:
        assert_frame_equal(found[name], expected[name])
