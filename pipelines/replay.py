"""Replay: rows that a sink did not take, from the dead letters to where they belong.

python -m pipelines.replay --ledger out/ledger.json --dataset events --sink redis://host/0
"""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from fabric_beam.run import main
from pipelines.parts.replay_options import parse_replay


def build(p: Any, options: Namespace) -> None:
    """Assemble the pipeline.

    Args:
        p: a Beam pipeline.
        options: what `pipelines.parts.replay_options.parse_replay` returns.
    """
    # Imported here because `--help` must not wait for Beam.
    from apache_beam.transforms.error_handling import ErrorHandler

    from fabric_beam import Read
    from fabric_beam.batches import schema_from_text
    from pipelines.parts.write import WriteDataset
    from transforms import FromDeadLetters

    rows = FromDeadLetters(schema_from_text(options.schema), step=f"Write({options.dataset})/")
    with ErrorHandler(WriteDataset("dead_letters", options)) as dead_letters:
        events = p | Read(*options.dead_letters) | rows.with_error_handler(dead_letters)
        events | WriteDataset("events", options, dead_letters)


if __name__ == "__main__":
    sys.exit(main(parse_replay, build))
