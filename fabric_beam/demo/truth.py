"""The truth file, read without loading what writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TRUTH = "truth.json"


def find(out: Path, lines: int, seed: int) -> dict[str, Any] | None:
    """Find out whether a directory already holds the whole output of `write(out, lines, seed)`.

    Args:
        out: the directory.
        lines: access lines.
        seed: what the day is drawn from.

    Returns:
        The truth, if it is of these lines and this seed and every file that it names has its size; otherwise None.
    """
    try:
        truth: dict[str, Any] = json.loads((out / TRUTH).read_text(encoding="utf-8"))
        whole = all((out / name).stat().st_size == file["bytes"] for name, file in truth["files"].items())
        return truth if whole and (truth["lines"], truth["seed"]) == (lines, seed) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
