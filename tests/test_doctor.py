"""The doctor says what is there, what is not, and what to do about it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fabric_beam.__main__ import main
from fabric_beam.doctor import examine, reach


def test_what_is_needed_is_found_here() -> None:
    """Where these tests run, nothing that everybody needs is missing."""
    states = {finding.what: finding.state for finding in examine()}
    assert [states[name] for name in ("Python", "apache-beam", "pyarrow", "polars", "numba")] == ["ok"] * 5


def test_a_server_that_listens_is_reached() -> None:
    """A port that takes connections is ok, and a closed one is a problem with advice."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reach(f"redis://127.0.0.1:{port}/0").state == "ok"
    finding = reach(f"redis://127.0.0.1:{port}/0")
    assert finding.state == "problem"
    assert "is it running" in finding.text


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("kafka://no-such-host.invalid:1", "there is no host no-such-host.invalid"),
        ("kafka", "not a server's URL"),
        ("gopher://host", "not a server's URL"),
        ("kafka://host:port", "not a server's URL"),
    ],
)
def test_a_url_that_leads_nowhere_says_why(url: str, message: str) -> None:
    """The host, the port or the form of the URL is named."""
    assert message in reach(url, seconds=1).text


def test_passwords_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A URL's user and password stay out of the table; a server that is not there makes the exit code 1."""
    assert main(["doctor", "mongodb://ann:secret@127.0.0.1:1/db"]) == 1
    printed = capsys.readouterr().out
    assert "mongodb://127.0.0.1:1" in printed
    assert "secret" not in printed
    assert "ann" not in printed


def test_a_missing_java_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Java only two runners are out of reach: the line says which, and how to get it."""
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    [java] = [finding for finding in examine() if finding.what == "Java"]
    assert java.state == "note"
    assert "SparkRunner and FlinkRunner: Java" in java.text
    assert "JAVA_HOME" in java.text
