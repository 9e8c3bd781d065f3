"""Time whole processes: CPU and wall seconds, and the most memory they held."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """What one run took: CPU seconds of all its processes, wall seconds, peak memory in MiB."""

    cpu: float
    wall: float
    memory: float


def run(module: str, source: Path, out: Path) -> Usage:
    """Run a job as a process of its own on an empty output folder.

    Raises:
        RuntimeError: if it fails.
    """
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", module, str(source), str(out)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{module} failed on {source}")
    return Usage(usage.ru_utime + usage.ru_stime, time.monotonic() - started, usage.ru_maxrss / 1024)


def timed(work: Callable[[], None], server: int) -> tuple[float, float, float]:
    """Wall seconds of some work, and CPU seconds of this process and of a server's, by its id."""
    wall, ours, theirs = time.perf_counter(), time.process_time(), _cpu(server)
    work()
    return time.perf_counter() - wall, time.process_time() - ours, _cpu(server) - theirs


def in_turn(
    ways: Mapping[str, Callable[[], None]],
    starts: Mapping[str, Callable[[], None]],
    *,
    runs: int,
    rows: int,
    server: int,
    before: Callable[[], None],
) -> dict[str, list[tuple[float, float, float]]]:
    """Time ways to write rows to a server, one after the other, several times over.

    Args:
        ways: what writes them, by its name.
        starts: the same with a few rows, for ways whose start is taken off.
        runs: how often each is timed.
        rows: how many they write.
        server: the server's process id.
        before: empties the server; not timed.

    Returns:
        What each way took in each run, as `timed` has it.
    """
    figures: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, write in ways.items():
            before()
            took = timed(write, server)
            if way in starts:
                start = timed(starts[way], server)
                took = (took[0] - start[0], took[1] - start[1], took[2] - start[2])
            figures[way].append(took)
            print(f"{way}: {rows / took[0]:,.0f} rows/s", file=sys.stderr)
    return figures


def show(figures: Mapping[str, list[tuple[float, float, float]]], rows: int) -> None:
    """Print a table of medians: what ways to write rows took."""
    print("| way | rows a second | client CPU a row | server CPU a row |")
    print("|---|---|---|---|")
    for way, runs in figures.items():
        wall, ours, theirs = (statistics.median(column) / rows for column in zip(*runs, strict=True))
        print(f"| {way} | {1 / wall:,.0f} | {ours * 1e6:.1f} µs | {theirs * 1e6:.1f} µs |")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
