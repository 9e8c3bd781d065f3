"""What the command line of the logs pipeline comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.parts.options import parse_logs


@pytest.mark.parametrize(
    ("sink", "folder"),
    [("*=parquet:there", "there"), ("*=parquet:gs://bucket/there", "out"), ("events=parquet:there", "out")],
)
def test_the_report_and_the_ledger_lie_beside_the_files_on_this_machine(tmp_path: Path, sink: str, folder: str) -> None:
    """In `out` where the files go to another one, or each where it likes."""
    (tmp_path / "a.log").touch()
    options, _ = parse_logs(["--input", str(tmp_path / "a.log"), "--sink", sink])
    assert (options.ledger, options.report) == (f"{folder}/ledger.json", f"{folder}/report.html")
