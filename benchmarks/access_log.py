"""The access-log job on Fabric Beam beside other ways to do it: `python -m benchmarks.access_log`.

All ways run in turn, several times over, on the same files. What start-up and imports cost is measured on a file of ten
lines and taken off, so that a cost a line is a cost a line; it is in a column of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Usage, run

WAYS = {
    "fabric": "Fabric Beam, DirectRunner",
    "polars_script": "Polars script",
    "duckdb_csv": "DuckDB script, CSV reader",
    "duckdb_regex": "DuckDB script, regex",
    "elementwise": "Beam, an element a line",
}
#: The element-wise way takes minutes for what the others do in seconds.
_ELEMENTWISE_LINES = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        inputs = {n: generate(Path(folder), n) for n in {10, options.lines, _ELEMENTWISE_LINES}}
        runs: dict[str, list[tuple[Usage, Usage]]] = {way: [] for way in options.ways}
        for _ in range(options.runs):
            for way in options.ways:
                lines = _lines(way, options.lines)
                small, big = (run(f"benchmarks.jobs.{way}", inputs[n], Path(folder) / "out") for n in (10, lines))
                runs[way].append((small, big))
                print(f"{way}: {big.cpu:.2f} s CPU, {big.wall:.2f} s wall, start-up {small.cpu:.2f} s", file=sys.stderr)
    load = os.getloadavg()[0]
    print(
        f"{options.lines:,} lines, medians of {options.runs} runs, {len(os.sched_getaffinity(0))} cores, "
        f"load {load:.1f}\n"
    )
    print("| way | CPU a line | CPU against Fabric Beam | lines a second | peak memory | 10-line file |")
    print("|---|---|---|---|---|---|")
    ours = _median(runs, "fabric", options.lines)[0] if "fabric" in runs else float("nan")
    for way, name in ((way, WAYS[way]) for way in options.ways):
        cpu, speed, memory, start = _median(runs, way, options.lines)
        print(f"| {name} | {cpu:.2f} µs | {cpu / ours:.1f} | {speed:,.0f} | {memory:,.0f} MiB | {start:.1f} s CPU |")


def _lines(way: str, lines: int) -> int:
    return min(lines, _ELEMENTWISE_LINES) if way == "elementwise" else lines


def _median(runs: dict[str, list[tuple[Usage, Usage]]], way: str, total: int) -> tuple[float, float, float, float]:
    """CPU µs a line, lines a wall second, peak MiB, and start-up CPU seconds."""
    lines = _lines(way, total) - 10
    return (
        statistics.median((big.cpu - small.cpu) / lines * 1e6 for small, big in runs[way]),
        statistics.median(lines / (big.wall - small.wall) for small, big in runs[way]),
        statistics.median(big.memory for _, big in runs[way]),
        statistics.median(small.cpu for small, _ in runs[way]),
    )


def generate(folder: Path, lines: int) -> Path:
    """One file of simulated access-log lines, a host's day after the other."""
    made = folder / f"demo-{lines}"
    # In a process of its own: what this one holds in memory would count as its children's.
    subprocess.run(
        [sys.executable, "-m", "fabric_beam.demo", "--lines", str(lines), "--out", str(made)],
        check=True,
        stdout=sys.stderr,
    )
    path = folder / f"{lines}.log"
    with path.open("wb") as whole:
        for file in sorted((made / "access").glob("*.log")):
            with file.open("rb") as part:
                shutil.copyfileobj(part, whole)
    return path


if __name__ == "__main__":
    main()
