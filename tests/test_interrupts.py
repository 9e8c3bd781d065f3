"""Ctrl-C while modules are imported, callbacks run, and things are cleaned up."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fabric_beam.interrupts import Interrupts

_BLOCK = """
import signal, sys, time
from fabric_beam.interrupts import Interrupts

{}
try:
    with Interrupts():
        {}
        time.sleep(30)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
_SLOW = """
import time

print("begun", flush=True)
try:
    {}
except BaseException:
    print("lost", flush=True)
print("imported", flush=True)
"""
_SEND = "signal.raise_signal(signal.SIGINT)"


def _run(before: str, within: str, *folders: Path) -> subprocess.Popen[str]:
    path = ":".join(map(str, (Path(__file__).parents[1], *folders)))
    return subprocess.Popen(
        [sys.executable, "-c", _BLOCK.format(before, within)],
        env={"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("within", ["time.sleep(1)", "pass"], ids=["import", "after"])
def test_an_interrupt_comes_when_the_import_is_over(tmp_path: Path, within: str) -> None:
    """The module that is being imported does not see it; what imports it does."""
    (tmp_path / "slow.py").write_text(_SLOW.format(within))
    process = _run("", "import slow", tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.read().split() == ["imported", "interrupted"]
    assert process.wait() == 0


def test_an_interrupt_that_is_lost_comes_again() -> None:
    """Python drops what is raised in a destructor."""
    lost = f"class Lost:\n    def __del__(self): {_SEND}"
    output, errors = _run(lost, "Lost()").communicate(timeout=20)
    assert output == "interrupted\n"
    assert "Exception ignored" in errors


def test_what_cleans_up_is_not_interrupted_by_repeats() -> None:
    """The same interrupt is raised once only, if nobody loses it."""
    clean_up = (
        f"def work():\n    try: {_SEND}\n    finally:\n        time.sleep(1)\n        print('cleaned', flush=True)"
    )
    output, _ = _run(clean_up, "work()").communicate(timeout=20)
    assert output.split() == ["cleaned", "interrupted"]


def test_after_the_block_nothing_is_repeated() -> None:
    """And Python's own handler is back."""
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGINT)
    time.sleep(0.5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_interrupts_stay_ignored() -> None:
    """Those of a job in the background, say."""
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    output, _ = _run(ignored, f"{_SEND}; print('ignored'); sys.exit()").communicate(timeout=20)
    assert output == "ignored\n"
