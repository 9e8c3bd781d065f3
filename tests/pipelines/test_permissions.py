"""What may not be read or written is one clear message, and nothing is half-written."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINE = '::1 - - [17/May/2015:10:05:00 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8.0"\n'
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2


def _without_privileges() -> None:
    """Let permissions hold for root too, from the program on that is executed next."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "this root may not give its privileges up")


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("forbidden", "arguments", "code", "message"),
    [
        ("secret.log", ["--input", "{tmp}/secret.log"], 1, "No permission to read '{tmp}/secret.log'."),
        ("logs", ["--input", "{tmp}/logs"], 1, "No permission to read '{tmp}/logs'."),
        ("logs", ["--input", "{tmp}/logs/*.log"], 1, "No permission to read '{tmp}/logs'."),
        ("logs", ["--input", "{tmp}/logs/a.log"], 1, "No permission to read '{tmp}/logs/a.log'."),
        ("logs/old", ["--input", "{tmp}/logs"], 1, "No permission to read '{tmp}/logs/old'."),
        ("rules.yaml", ["--contract", "{tmp}/rules.yaml"], 2, "{tmp}/rules.yaml"),
        ("teams.csv", ["--enrich", "{tmp}/teams.csv=service.name"], 2, "{tmp}/teams.csv"),
        ("run.yaml", ["--runner_config", "{tmp}/run.yaml"], 2, "{tmp}/run.yaml"),
        ("out", [], 1, "Cannot write {tmp}/out/ledger.json"),
        ("out/events", [], 1, "Cannot write to '{tmp}/out/events'"),
        ("out/events/date=2015-05-17", [], 1, "Cannot put the files in place in {tmp}/out/events"),
        ("pages", ["--report", "{tmp}/pages/report.html"], 1, "Cannot write {tmp}/pages/report.html"),
        ("pages", ["--ledger", "{tmp}/pages/ledger.json"], 1, "Cannot write {tmp}/pages/ledger.json"),
    ],
)
def test_no_permission_is_one_clear_message(
    tmp_path: Path, forbidden: str, arguments: list[str], code: int, message: str
) -> None:
    """Files and folders that this user may not read or write: what, where, the exit code, and no traceback."""
    for name in ("access.log", "secret.log", "logs/a.log", "logs/old/b.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(LINE * 9)
    (tmp_path / "rules.yaml").write_bytes((ROOT / "contracts" / "access_log.yaml").read_bytes())
    (tmp_path / "teams.csv").write_text("service.name,team\nshop,blue\n")
    (tmp_path / "run.yaml").write_text("runner: DirectRunner\n")
    (tmp_path / "pages").mkdir()
    (tmp_path / "out" / "events" / "date=2015-05-17").mkdir(parents=True)
    given = [text.replace("{tmp}", str(tmp_path)) for text in arguments]
    given += [] if "--input" in given else ["--input", str(tmp_path / "access.log")]
    command = [sys.executable, "-m", "pipelines.logs", *given, "--sink", f"*=parquet:{tmp_path / 'out'}"]
    before = _files(tmp_path)
    written = forbidden.startswith(("out", "pages"))
    (tmp_path / forbidden).chmod(0o500 if written else 0)
    try:
        done = subprocess.run(
            command, cwd=ROOT, preexec_fn=_without_privileges, capture_output=True, text=True, check=False
        )
    finally:
        (tmp_path / forbidden).chmod(0o700)
    assert done.returncode == code, done.stderr
    assert message.replace("{tmp}", str(tmp_path)) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert _files(tmp_path) == before
