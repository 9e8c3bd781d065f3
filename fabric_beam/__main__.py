"""python -m fabric_beam doctor [URL ...]: what this machine has and lacks to run pipelines."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of the library itself.

    Returns:
        0 if nothing is wrong, 1 if something is.
    """
    parser = argparse.ArgumentParser(prog="python -m fabric_beam", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser("doctor", help="look at Python, Java, memory, packages, engines, ports and servers")
    doctor.add_argument("url", nargs="*", help="servers to reach, such as kafka://host:9092 or spark://host:7077")
    options = parser.parse_args(argv)

    warnings.filterwarnings("ignore")
    from rich.console import Console
    from rich.table import Table

    from fabric_beam.doctor import examine

    styles = {"ok": "green", "note": "yellow", "problem": "bold red"}
    table = Table(show_header=False, box=None)
    problems = 0
    for finding in examine(options.url):
        problems += finding.state == "problem"
        table.add_row(finding.what, f"[{styles[finding.state]}]{finding.state}[/]", finding.text.replace("[", r"\["))
    Console().print(table)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
