"""The access-log job on every runner, with one, two and four partitions: `python -m benchmarks.runners`.

CPU seconds are those of the driver and of everything it starts, Python and Java apart. What the start costs is measured
on a file of ten lines and taken off.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.access_log import generate

RUNNERS = {
    "DirectRunner": [],
    "SparkRunner, 1 partition": ["--spark_master=local[1]"],
    "SparkRunner, 2 partitions": ["--spark_master=local[2]"],
    "SparkRunner, 4 partitions": ["--spark_master=local[4]"],
    "FlinkRunner, 1 partition": ["--parallelism=1"],
    "FlinkRunner, 2 partitions": ["--parallelism=2"],
    "FlinkRunner, 4 partitions": ["--parallelism=4"],
}


class Usage(NamedTuple):
    """What a run took: CPU seconds of Python and of Java, wall seconds, bytes that crossed Spark's shuffle."""

    python: float
    java: float
    wall: float
    shuffled: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=4_000_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = (generate(folder, lines) for lines in (10, options.lines))
        runs: dict[str, list[tuple[Usage, Usage]]] = {runner: [] for runner in RUNNERS}
        for _ in range(options.runs):
            for runner in RUNNERS:
                runs[runner].append((_run(runner, few, folder), _run(runner, many, folder)))
                print(f"{runner}: {runs[runner][-1]}", file=sys.stderr)
    print(f"{options.lines:,} lines, medians of {options.runs} runs, {psutil.cpu_count()} cores\n")
    print(
        "| runner | Python CPU a line | Java CPU a line | lines a second | start to end of 10 lines | bytes shuffled |"
    )
    print("|---|---|---|---|---|---|")
    for runner, pairs in runs.items():
        python, java = (
            statistics.median((getattr(big, kind) - getattr(small, kind)) / options.lines * 1e6 for small, big in pairs)
            for kind in ("python", "java")
        )
        speed = statistics.median(options.lines / (big.wall - small.wall) for small, big in pairs)
        start = statistics.median(small.wall for small, _ in pairs)
        shuffled = f"{pairs[0][1].shuffled:,}" if runner.startswith("Spark") else "-"
        print(f"| {runner} | {python:.2f} µs | {java:.2f} µs | {speed:,.0f} | {start:.1f} s | {shuffled} |")


def _run(runner: str, source: Path, folder: Path) -> Usage:
    out, log = folder / "out", folder / "log"
    for made in (out, log):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
    name = runner.partition(",")[0]
    arguments = [f"--runner={name}", *RUNNERS[runner]]
    if name == "SparkRunner":
        settings = {"enabled": "true", "dir": log.as_uri(), "compress": "false", "rolling.enabled": "false"}
        arguments += [f"--spark_conf=spark.eventLog.{key}={value}" for key, value in settings.items()]
    started = time.monotonic()
    process = psutil.Popen(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.jobs.fabric", str(source), str(out), *arguments],
        stdout=subprocess.DEVNULL,
    )
    seen: dict[int, tuple[str, float]] = {}
    while process.poll() is None:
        seen.update(_cpu(process))
        time.sleep(0.05)
    wall = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"{runner} failed on {source}")
    java = sum(seconds for name, seconds in seen.values() if name == "java")
    return Usage(sum(seconds for _, seconds in seen.values()) - java, java, wall, sum(_shuffled(log)))


def _cpu(process: psutil.Process) -> Iterator[tuple[int, tuple[str, float]]]:
    """The CPU seconds of a process and of all below it that live, by process id."""
    try:
        tree = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in tree:
        try:
            times = one.cpu_times()
            yield one.pid, (one.name(), times.user + times.system)
        except psutil.NoSuchProcess:
            continue


def _shuffled(log: Path) -> Iterator[int]:
    for path in log.iterdir():
        for event in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            if event["Event"] == "SparkListenerTaskEnd":
                yield event["Task Metrics"]["Shuffle Write Metrics"]["Shuffle Bytes Written"]


if __name__ == "__main__":
    main()
