"""Command lines answer at once, in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fabric_beam.command_line import beam_options
from fabric_beam.errors import UsageError
from pipelines.parts.options import parse_logs

ROOT = Path(__file__).parents[1]


def test_help_is_grouped_and_has_examples() -> None:
    """`--help` shows the groups, an example, and does not import Beam."""
    code = "import sys; from pipelines.parts.options import logs_parser; logs_parser().print_help()"
    code += "; assert 'apache_beam' not in sys.modules and 'polars' not in sys.modules"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for part in ("input and output:", "processing:", "running:", "examples:", "Exit codes"):
        assert part in printed


def test_pipelines_are_listed() -> None:
    """`python -m pipelines` names each pipeline and what it does."""
    command = [sys.executable, "-m", "pipelines"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "logs" in printed
    assert "__init__" not in printed


def test_beams_own_options_are_known() -> None:
    """What Beam itself declares is let through to it; its names are read without importing it."""
    from apache_beam.options.pipeline_options import PipelineOptions

    declared = {f"--{name}" for name in PipelineOptions([]).get_all_options()}
    assert {"--direct_num_workers", "--job_endpoint", "--runner", "--save_main_session"} <= beam_options()
    assert len(declared - beam_options()) < len(declared) / 4
    _, rest = parse_logs(["--input", "setup.py", "--direct_num_workers", "3"])
    assert rest == ["--direct_num_workers", "3"]


def test_the_default_sinks_are_folders_under_out() -> None:
    """Without --sink everything goes to `out`, dead letters as JSON Lines."""
    options, _ = parse_logs(["--input", "setup.py"])
    assert options.sinks == {
        "events": ["parquet:out/events"],
        "metrics": ["parquet:out/metrics"],
        "alerts": ["parquet:out/alerts"],
        "dead_letters": ["jsonl:out/dead_letters"],
    }
    assert (options.report, options.ledger) == ("out/report.html", "out/ledger.json")


def test_the_job_is_named_by_the_input() -> None:
    """The same input gives the same names of files, whatever else is asked; another input does not."""
    jobs = [
        parse_logs(["--input", *paths, *more])[0].job
        for paths, more in ((["setup.py"], []), (["setup.py"], ["--window", "5m"]), (["README.md"], []))
    ]
    assert jobs[0] == jobs[1] != jobs[2]


@pytest.mark.parametrize("text", ["events", "=parquet:x", "events="])
def test_a_sink_needs_a_dataset_and_a_url(text: str) -> None:
    """A half sink says what form is expected."""
    with pytest.raises(UsageError, match="DATASET=URL expected"):
        parse_logs(["--input", "setup.py", "--sink", text])
