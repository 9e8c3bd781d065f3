"""Time whole processes: CPU and wall seconds, and the most memory they held."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
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
