"""Run Beam's own runner tests on every runner and write their account: python -m tests.integration.conformance."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import apache_beam

from fabric_beam.runners.capabilities import NOT_SUPPORTED

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "runners.md"
RUNNERS = list(NOT_SUPPORTED)
SUITES = ("test_fn_runner", "test_validates_runner")

HEAD = """\
# What each runner does of the Beam model

Beam has a suite of tests for its own runners (`fn_runner_test`), and marks those tests of its transforms that validate
runners. This is how each runner of Fabric Beam does on those of Beam {version}, each test being a pipeline that is
really run: DirectRunner and Prism in this process, Spark with `local[2]`, Flink on its mini-cluster. `make conformance`
runs them again and writes this page.

| runner | passed | skipped by Beam itself | not supported | failed |
|---|---|---|---|---|
"""

MEMORY = """
## What has to fit in memory
Values that are grouped go to disk on Spark and on Flink ([scaling.md](scaling.md#more-than-memory)): 1,887 MB of
values of one key went through a Spark worker twice whose address space was limited to 1,087 MB, by default settings;
it had 439 MB resident at most. What Beam lets a transform ask for does not go to disk: a worker holds each side input
of its stage whole, and the state and timers of all keys of a partition until it is through with that partition;
Spark's driver holds a side input, too, to send it. The limit is the memory that one core has. More partitions
(`--spark_parallelism`, `--parallelism`) leave fewer keys to each; what is too large for a side input is better joined
by `CoGroupByKey`, whose values go to disk. A worker that has no memory left ends the run, and says in which transform.
"""

FLINK = """
## What Flink does again
An error of a transform, such as a mistake in a function or a sink whose own retries are used up, ends the job at once:
Flink does not try again. What dies on a session cluster, a Python worker or a TaskManager, makes Flink run the job
again from its start, five times at most, after 1, 3, 9, 27 and 30 s, so that a TaskManager can be replaced; then one
message says what was lost, in which stage and how often. `--flink_config` sets that otherwise
(`restart-strategy.exponential-delay.attempts-before-reset-backoff`). The mini-cluster does nothing again.

1,887 MB of values of one key went through a worker of the mini-cluster twice, by default settings; driver and workers,
one process there, had 581 MB resident at most, and their address space was limited to 420 MB more than at the start. A
value of 315 MB crosses TaskManagers that have less memory than it. What a stage puts out waits on the worker's disk
until the stage is through, but TaskManagers hold in their heap what is then on its way: one with 384 MB ran out of it
when a stage put out 1.7 GB faster than the next took it.
"""


def run(report: Path) -> None:
    """Run the tests and write their results as JUnit XML."""
    command = [sys.executable, "-m", "pytest", "-q", *(f"tests/integration/{suite}.py" for suite in SUITES)]
    subprocess.run([*command, f"--junit-xml={report}"], cwd=ROOT, check=False)


def results(report: Path) -> dict[str, dict[str, str]]:
    """Test → runner → `passed`, `skipped`, `failed`, or why it is not supported."""
    table: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        suite, _, runner = case.attrib["classname"].rpartition("On")
        if not any(name in suite for name in SUITES):
            continue
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcome = "failed"
        elif skipped is not None and skipped.attrib["type"] == "pytest.xfail":
            outcome = skipped.attrib["message"]
        else:
            outcome = "passed" if skipped is None else "skipped"
        table.setdefault(case.attrib["name"].partition("@")[0], {})[runner] = outcome
    return table


def page(table: dict[str, dict[str, str]]) -> str:
    """The account in Markdown."""
    lines = [HEAD.format(version=apache_beam.__version__)]
    for runner in RUNNERS:
        counts = Counter(outcomes.get(runner, "skipped") for outcomes in table.values())
        passed, skipped, failed = (counts.pop(outcome, 0) for outcome in ("passed", "skipped", "failed"))
        lines.append(f"| {runner} | {passed} | {skipped} | {counts.total()} | {failed} |\n")
    lines += [MEMORY, FLINK]
    lines.append("\n## Not supported, and why\n| runner | test | reason |\n|---|---|---|\n")
    for runner in RUNNERS:
        for test, outcomes in sorted(table.items()):
            outcome = outcomes.get(runner, "skipped")
            if outcome not in ("passed", "skipped", "failed"):
                lines.append(f"| {runner} | `{test}` | {outcome} |\n")
    lines.append(f"\n## Every test\n| test | {' | '.join(RUNNERS)} |\n|---|{'---|' * len(RUNNERS)}\n")
    short = {"passed": "yes", "skipped": "–", "failed": "FAILED"}
    for test, outcomes in sorted(table.items()):
        cells = (short.get(outcomes.get(runner, "skipped"), "no") for runner in RUNNERS)
        lines.append(f"| `{test}` | {' | '.join(cells)} |\n")
    return "".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder) / "report.xml")
        PAGE.write_text(page(results(Path(folder) / "report.xml")), encoding="utf-8")
    print(f"written: {PAGE}")
