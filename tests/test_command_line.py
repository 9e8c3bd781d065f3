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


@pytest.mark.parametrize("config", sorted((ROOT / "runner_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_runner_configuration_has_known_options(config: Path) -> None:
    """Every file in runner_configs names a runner and options that exist."""
    options, _ = parse_logs(["--input", "setup.py", f"--runner_config={config}"])
    assert options.runner.endswith("Runner")


def test_the_command_line_wins_over_the_runner_configuration() -> None:
    """An option of the file holds unless the command line gives it too."""
    config = ROOT / "runner_configs" / "spark-cluster.yaml"
    options, rest = parse_logs(["--input", "setup.py", "--runner_config", str(config), "--runner", "DirectRunner"])
    assert options.runner == "DirectRunner"
    assert rest == ["--spark_master=spark://localhost:7077"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runner: SparkRuner", "There is no runner 'SparkRuner'. Did you mean 'SparkRunner'"),
        ("spark_mastr: local", "There is no option --spark_mastr. Did you mean '--spark_master'"),
        ("- SparkRunner", "a mapping of options to values expected"),
        ("runner: [", "is not readable as YAML"),
        ("runner: {name: SparkRunner}", "runner: one value or a list of values expected"),
        (None, "Cannot read the runner configuration"),
    ],
)
def test_a_wrong_runner_configuration_says_what_is_wrong(tmp_path: Path, text: str | None, message: str) -> None:
    """A file that is missing, malformed or misspelt is refused before anything runs."""
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        parse_logs(["--input", "setup.py", "--runner_config", str(path)])
