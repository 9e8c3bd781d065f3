"""Write the page of the account that the killing tests keep: python -m tests.integration.soak ACCOUNT."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "soak.md"

HEAD = """\
# Processes killed in the middle of runs

`make soak` ends what does the work with `kill -9`, again and again, at random moments between the first sign of work (a
Python worker is there) and the time that a run in peace takes from there. Each run is the logs pipeline on simulated
access logs, on a cluster of processes of this machine. Its events, metrics, alerts and dead letters are compared with
DirectRunner's, row for row, its ledger is read, and it must leave no temporary file, no worker and no job.

{date} · {cores} cores · Apache Beam {beam} · Spark {spark} · Flink {flink} · Python {python} · {rows} lines a run

| engine | killed | times | moments (s) | in the middle of work | all rows, each once | ledger balanced |
|---|---|---|---|---|---|---|
"""

TAIL = """
*In the middle of work*: the engine had to do something again. Else the process that was killed happened to be idle, or
no longer needed, and the test killed again in another run.

## Every one
| engine | killed | after (s) | done again |
|---|---|---|---|
"""


def page(kills: list[dict[str, Any]]) -> str:
    """The account in Markdown."""
    lines = [
        HEAD.format(
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            cores=len(os.sched_getaffinity(0)),
            beam=version("apache-beam"),
            spark=version("pyspark"),
            flink=version("apache-flink"),
            python=platform.python_version(),
            rows=" or ".join(f"{rows:,}" for rows in sorted({kill["rows"] for kill in kills})),
        )
    ]
    kills = sorted(kills, key=lambda kill: (kill["engine"], kill["killed"], kill["seconds"]))
    for (engine, killed), times in Counter((kill["engine"], kill["killed"]) for kill in kills).items():
        these = [kill for kill in kills if (kill["engine"], kill["killed"]) == (engine, killed)]
        working, same, balanced = (sum(bool(kill[key]) for kill in these) for key in ("again", "same", "balanced"))
        moments = f"{these[0]['seconds']:.1f}–{these[-1]['seconds']:.1f}"
        lines.append(f"| {engine} | {killed} | {times} | {moments} | {working} | {same} | {balanced} |\n")
    lines.append(TAIL)
    for kill in kills:
        again = ", ".join(f"{count} {what}" for what, count in kill["again"].items()) or "nothing"
        lines.append(f"| {kill['engine']} | {kill['killed']} | {kill['seconds']:.2f} | {again} |\n")
    return "".join(lines)


if __name__ == "__main__":
    account = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    PAGE.write_text(page([json.loads(line) for line in account]), encoding="utf-8")
    print(f"written: {PAGE}")
