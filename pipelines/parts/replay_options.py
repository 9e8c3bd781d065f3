"""The options of the replay pipeline."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from fabric_beam.command_line import Parser, add_running, one_of
from fabric_beam.errors import InputError, UsageError
from pipelines.parts.options import DATASETS

_EXAMPLE = """\
example:
  A sink was down during a run. Once it is back:
  python -m pipelines.replay --ledger out/ledger.json --dataset events --sink 'redis://host/0?prefix=events'
"""


def parse_replay(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse and check the replay pipeline's command line.

    Args:
        argv: the arguments.

    Returns:
        The options (`schema`: the rows' schema as text; `sinks`: dataset → URLs, the rows being `events` whatever they
        were) and the arguments for Beam.

    Raises:
        UsageError: an option or its value is wrong.
        InputError: the ledger cannot be read.
    """
    parser = Parser(
        prog="python -m pipelines.replay",
        description="Write rows that a sink did not take once more, from the dead letters of a run.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("input and output").add_argument
    add("--ledger", metavar="FILE", required=True, help="the account of the run, which knows the rows' types")
    add("--dead_letters", nargs="+", metavar="PATTERN", help="its dead letters, JSON Lines (dead_letters beside it)")
    add("--dataset", type=one_of("dataset", DATASETS[:-1]), default="events", help="whose rows (%(default)s)")
    add("--sink", action="append", metavar="URL", required=True, help="where they belong; more than once for more")
    add("--rejected", metavar="FOLDER", help="where rows go that are refused again (replay/dead_letters beside it)")
    add_running(parser)
    options, rest = parser.parse(list(argv))
    options.schema = _schema(options.ledger, options.dataset)
    folder = Path(options.ledger).parent
    options.dead_letters = options.dead_letters or [str(folder / "dead_letters")]
    options.sinks = {
        "events": options.sink,
        "dead_letters": [f"jsonl:{options.rejected or folder / 'replay' / 'dead_letters'}"],
    }
    options.job = "replay"
    options.ledger = str(folder / "replay" / "ledger.json")
    return options, rest


def _schema(path: str, dataset: str) -> str:
    try:
        account = json.loads(Path(path).read_text(encoding="utf-8"))
        return str(account["schemas"][dataset])
    except OSError as error:
        raise InputError(f"Cannot read the ledger {path}: {error.strerror}. A run writes it by --ledger.") from error
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path} is not the ledger of a run that wrote {dataset}.") from None
