"""Compiled loops work wherever the library is installed."""

from __future__ import annotations

from typing import Any

from fabric_beam.views import compiled


def test_a_loop_whose_code_cannot_be_kept_is_compiled_all_the_same() -> None:
    """A function without a source file has no place for its code, as one in a folder that may only be read."""
    names: dict[str, Any] = {}
    exec("def double(number): return 2 * number", names)
    assert compiled(names["double"])(21) == 42
