"""Every named pipeline gives the same rows on every runner."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fabric_beam.runners.prism import binary_path

ROOT = Path(__file__).parents[2]
DATASETS = ("events", "metrics", "alerts", "dead_letters")
Run = Callable[[str, Sequence[str]], dict[str, pl.DataFrame]]

_needs = {
    "PrismRunner": (binary_path().exists(), "Prism is not built: that takes Go"),
    "SparkRunner": (importlib.util.find_spec("pyspark") is not None, "PySpark is not installed"),
    "FlinkRunner": (importlib.util.find_spec("pyflink") is not None, "PyFlink is not in the lock of the newest Beam"),
}
RUNNERS = [
    pytest.param(runner, marks=pytest.mark.skipif(not there, reason=reason))
    for runner, (there, reason) in _needs.items()
]


def run(runner: str, arguments: Sequence[str], out: Path) -> dict[str, pl.DataFrame]:
    """The rows of each dataset that `pipelines.logs` writes on a runner, in one order."""
    command = [sys.executable, "-m", "pipelines.logs", "--runner", runner, "--sink", f"*=parquet:{out}", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads((out / "ledger.json").read_text())["balanced"]
    assert (out / "report.html").stat().st_size > 10_000
    tables = {name: pl.read_parquet(out / name / "**" / "*.parquet") for name in DATASETS[:-1]}
    tables["dead_letters"] = pl.concat(
        [pl.read_ndjson(file) for file in (out / "dead_letters").rglob("*.jsonl") if file.stat().st_size]
        or [pl.DataFrame()]
    )
    return {name: table.sort(table.columns) for name, table in tables.items()}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated fleet's access logs, malformed lines among them."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "fabric_beam.demo", "--lines", "60000", "--seed", "7", "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder / "access"


@pytest.fixture(scope="module")
def direct(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """What DirectRunner makes of the generated logs."""
    tables = run("DirectRunner", ["--input", str(generated)], tmp_path_factory.mktemp("direct"))
    assert tables["events"].height + tables["dead_letters"].height == 60_000
    assert tables["dead_letters"].height
    assert tables["metrics"].height > 100
    return tables


@pytest.mark.parametrize("runner", RUNNERS)
def test_generated_logs_give_the_same_rows(
    runner: str, generated: Path, direct: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    """Events, metrics, alerts and dead letters are those of DirectRunner, row for row."""
    tables = run(runner, ["--input", str(generated)], tmp_path)
    for name in DATASETS:
        assert_frame_equal(tables[name], direct[name])


@pytest.mark.real_data
@pytest.mark.parametrize("runner", RUNNERS)
def test_a_real_log_gives_the_same_rows(runner: str, real_data: Path, tmp_path: Path) -> None:
    """10,000 lines of a real site, its malformed line among them."""
    arguments = ["--input", str(real_data / "web" / "apache_combined.log")]
    tables, expected = (run(each, arguments, tmp_path / each) for each in (runner, "DirectRunner"))
    assert expected["events"].height == 9_999
    for name in DATASETS:
        assert_frame_equal(tables[name], expected[name])
