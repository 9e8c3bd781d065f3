"""What the README shows works as it stands there."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl

ROOT = Path(__file__).parents[1]
LINE = '::1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" {} 12 "-" "curl/8.0"\n'


def test_the_pipeline_in_python_runs(tmp_path: Path) -> None:
    """The README's example, run as a script of its own, writes the server errors and the dead letters."""
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "example.py").write_text(code)
    (tmp_path / "logs").mkdir()
    lines = LINE.format(200) * 5 + LINE.format(503) * 2 + "what?\n"
    (tmp_path / "logs" / "a.log.gz").write_bytes(gzip.compress(lines.encode()))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [errors] = (tmp_path / "out" / "errors").glob("**/*.parquet")
    assert pl.read_parquet(errors)["http.response.status_code"].to_list() == [503, 503]
    [dead] = (tmp_path / "out" / "dead_letters").glob("*.jsonl")
    assert "what?" in dead.read_text()
