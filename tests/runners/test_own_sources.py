"""The code that workers elsewhere get."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from fabric_beam.runners.own_sources import own_files

_ROOT = Path(__file__).parents[2]
_LOOP = "import polars as pl; from fabric_beam.views import pieces; print(pieces(pl.Series(['longer than a view'])))"


def test_compiled_loops_go_with_their_sources(tmp_path: Path) -> None:
    """What was compiled here is loaded from the copy, and not compiled again."""
    assert "_places" in _run(_ROOT)
    for file, name in own_files():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / name)
    printed = _run(tmp_path)
    assert f"data loaded from '{tmp_path}" in printed
    assert "saved to" not in printed


def _run(folder: Path) -> str:
    """What numba says of its cache in a process that imports from a folder and runs a compiled loop."""
    return subprocess.run(
        [sys.executable, "-c", _LOOP],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "NUMBA_DEBUG_CACHE": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
