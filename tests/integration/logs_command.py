"""The logs pipeline as people run it: its command, and the rows that it wrote."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl

ROOT = Path(__file__).parents[2]
DATASETS = ("events", "metrics", "alerts", "dead_letters")


def generate(folder: Path, lines: int, seed: int) -> Path:
    """A folder of simulated access logs, malformed lines among them."""
    command = [sys.executable, "-m", "fabric_beam.demo", "--lines", str(lines), "--seed", str(seed), "--out", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder / "access"


def start(out: Path | str, *arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    """Start `pipelines.logs`, all of its output in one folder, and what it prints in one pipe."""
    command = [sys.executable, "-W", "ignore", "-m", "pipelines.logs", f"--sink=*=parquet:{out}", *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextlib.contextmanager
def running(
    out: Path | str, *arguments: str, folder: Path = ROOT, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Start it, and leave nothing of it behind, however that goes."""
    process = start(out, *arguments, folder=folder, **environment)
    try:
        yield process
    finally:
        process.kill()


def run(out: Path | str, *arguments: str, folder: Path = ROOT, **environment: str) -> tuple[int, str]:
    """Run it: its exit code, and what it printed."""
    with running(out, *arguments, folder=folder, **environment) as process:
        printed, _ = process.communicate(timeout=300)
    return process.returncode, printed


def tables(out: Path) -> dict[str, pl.DataFrame]:
    """The rows of each dataset, in one order, of a run whose ledger balances and that left nothing temporary."""
    assert json.loads((out / "ledger.json").read_text())["balanced"]
    assert not list(out.rglob(".tmp-*"))
    found = {
        name: pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in (out / name).rglob("*.parquet")])
        for name in DATASETS[:-1]
    }
    found["dead_letters"] = pl.concat(
        [pl.read_ndjson(file) for file in (out / "dead_letters").rglob("*.jsonl") if file.stat().st_size]
        or [pl.DataFrame()]
    )
    return {name: table.sort(table.columns) for name, table in found.items()}
