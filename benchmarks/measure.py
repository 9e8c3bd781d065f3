"""Time whole processes: CPU and wall seconds, and the most memory they held."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
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


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
