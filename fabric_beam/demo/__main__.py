"""The command line of the simulated logs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from fabric_beam.demo.truth import find


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line instead of the whole usage."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} up, not {text!r}")
        return number

    return parse


def main(argv: list[str] | None = None) -> int:
    """Write the simulated logs, or find that they are there already, and print what they hold.

    Args:
        argv: the arguments; those of the process by default.

    Returns:
        The exit code: 0, or 1 when a file could not be written.

    Raises:
        SystemExit: `--help` (0) or a usage error (2).
    """
    parser = _Parser(
        prog="python -m fabric_beam.demo",
        description="Write a simulated fleet's logs of one day: access logs in Apache combined format and application "
        "logs in JSON Lines, with a few malformed lines and some incidents. What is in them stands in DIR/truth.json.",
    )
    parser.add_argument(
        "--lines",
        type=_whole(10),
        default=1_000_000,
        metavar="N",
        help="access lines (1000000); a tenth as many application lines",
    )
    parser.add_argument(
        "--seed", type=_whole(0), default=1, metavar="S", help="the same seed and lines write the same bytes (1)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="where to; logs of another seed or size there are replaced",
    )
    options = parser.parse_args(argv)

    truth = find(options.out, options.lines, options.seed)
    if truth:
        print(f"{options.out} already holds the logs of {options.lines:,} lines and seed {options.seed}: nothing done.")
        return 0
    # Only here, so that everything that writes nothing answers at once.
    from fabric_beam.demo.write import write

    try:
        truth = write(options.out, options.lines, options.seed)
    except OSError as error:
        print(
            f"{parser.prog}: cannot write {error.filename or options.out}: {error.strerror or error}", file=sys.stderr
        )
        return 1
    print(_summary(options.out, truth))
    return 0


def _summary(out: Path, truth: dict[str, Any]) -> str:
    def megabytes(folder: str) -> str:
        return f"{sum(f['bytes'] for name, f in truth['files'].items() if name.startswith(folder)) / 1e6:,.1f} MB"

    return "\n".join(
        [
            f"{out}: {len(truth['files'])} files, seed {truth['seed']}",
            f"  access  {truth['lines']:>13,} lines  {megabytes('access'):>12}  ({truth['malformed']} malformed)",
            f"  app     {truth['application_lines']:>13,} lines  {megabytes('app'):>12}",
            *(
                f"  {i['start'][11:16]} to {i['end'][11:16]}  {i['kind']:<13}  {i['service']}: {i['description']}"
                for i in truth["incidents"]
            ),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
