"""The account that tests with faults keep for `make soak`; python -m tests.integration.soak ACCOUNT makes it a page."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "soak.md"

HEAD = """\
# Killed in the middle of runs

`make soak` ends what does the work, or holds the data, with `kill -9`, or stops it for a while, again and again, at
random moments.

{date} · {cores} cores · Apache Beam {beam} · Spark {spark} · Flink {flink} · Python {python}
"""

ENGINES = """
## What does the work
Each run is the logs pipeline on {rows} simulated access-log lines, on a cluster of processes of this machine; what is
killed is killed between the first sign of work (a Python worker is there) and the time that a run in peace takes from
there. Its events, metrics, alerts and dead letters are compared with DirectRunner's, row for row, its ledger is read,
and it must leave no temporary file, no worker and no job.

| engine | killed | times | moments (s) | in the middle of work | all rows, each once | ledger balanced |
|---|---|---|---|---|---|---|
"""

ENGINES_END = """
*In the middle of work*: the engine had to do something again. Else the process that was killed happened to be idle, or
no longer needed, and the test killed again in another run.
"""

STORES = """
## Stores
Each run writes {rows} rows by way of `WriteTo` while the server is killed, or stopped for a while, or a Python worker
of Spark is killed. Then the store is read and compared.

| store | fault | times | rows there by then | all rows, each once, no dead letter |
|---|---|---|---|---|
"""

EVERY_ONE = """
## Every kill of what does the work
| engine | killed | after (s) | done again |
|---|---|---|---|
"""


def record(**fault: Any) -> None:
    """Add a fault and its outcome to the account, if one is kept: the file that `FABRIC_BEAM_SOAK` names."""
    if account := os.environ.get("FABRIC_BEAM_SOAK"):
        with Path(account).open("a", encoding="utf-8") as lines:
            lines.write(f"{json.dumps(fault)}\n")


def page(faults: list[dict[str, Any]]) -> str:
    """The account in Markdown."""
    head = HEAD.format(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        cores=len(os.sched_getaffinity(0)),
        beam=version("apache-beam"),
        spark=version("pyspark"),
        flink=version("apache-flink"),
        python=platform.python_version(),
    )
    kills = sorted(
        (fault for fault in faults if "engine" in fault),
        key=lambda kill: (kill["engine"], kill["killed"], kill["seconds"]),
    )
    stores = sorted((fault for fault in faults if "store" in fault), key=lambda fault: (fault["store"], fault["fault"]))
    return "".join([head, *_engines(kills), *_stores(stores), *_every_one(kills)])


def _engines(kills: list[dict[str, Any]]) -> Iterator[str]:
    yield ENGINES.format(rows=_rows(kills))
    for (engine, killed), times in Counter((kill["engine"], kill["killed"]) for kill in kills).items():
        these = [kill for kill in kills if (kill["engine"], kill["killed"]) == (engine, killed)]
        working, same, balanced = (sum(bool(kill[key]) for kill in these) for key in ("again", "same", "balanced"))
        moments = f"{these[0]['seconds']:.1f}–{these[-1]['seconds']:.1f}"
        yield f"| {engine} | {killed} | {times} | {moments} | {working} | {same} | {balanced} |\n"
    yield ENGINES_END


def _stores(faults: list[dict[str, Any]]) -> Iterator[str]:
    yield STORES.format(rows=_rows(faults))
    for (store, fault), times in Counter((each["store"], each["fault"]) for each in faults).items():
        these = [each for each in faults if (each["store"], each["fault"]) == (store, fault)]
        there = [each["there"] for each in these]
        same = sum(each["same"] for each in these)
        yield f"| {store} | {fault} | {times} | {min(there):,}–{max(there):,} | {same} |\n"


def _every_one(kills: list[dict[str, Any]]) -> Iterator[str]:
    yield EVERY_ONE
    for kill in kills:
        again = ", ".join(f"{count} {what}" for what, count in kill["again"].items()) or "nothing"
        yield f"| {kill['engine']} | {kill['killed']} | {kill['seconds']:.2f} | {again} |\n"


def _rows(faults: list[dict[str, Any]]) -> str:
    return " or ".join(f"{rows:,}" for rows in sorted({fault["rows"] for fault in faults}))


if __name__ == "__main__":
    account = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    PAGE.write_text(page([json.loads(line) for line in account]), encoding="utf-8")
    print(f"written: {PAGE}")
