"""The logs pipeline from its command line: real runs on DirectRunner."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fabric_beam.demo.__main__ import main as demo
from fabric_beam.demo.found import found
from fabric_beam.run import main
from pipelines.logs import build
from pipelines.parts.options import parse_logs

ROOT = Path(__file__).parents[2]
LINE = '::1 - - [17/May/2015:10:05:{:02d} +0000] "GET /{} HTTP/1.1" {} 12 "-" "curl/8.0"\n'
DEMO_SERVICE = "service.name=split_part(split_part(source, '/access/', 2), '-', 1)"


def logs(*arguments: str | Path) -> int:
    return main(parse_logs, build, [str(argument) for argument in arguments])


def read(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in sorted(folder.glob("**/*.parquet"))])


def account(out: Path) -> Any:
    return json.loads((out / "ledger.json").read_text())


@pytest.fixture
def access(tmp_path: Path) -> Path:
    """An access log of 60 lines: 10 server errors, and a malformed line."""
    path = tmp_path / "access.log"
    path.write_text("".join(LINE.format(n, n, 500 if n < 10 else 200) for n in range(59)) + "what?\n")
    return path


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Simulated logs, and the output of the pipeline on them."""
    folder = tmp_path_factory.mktemp("fleet")
    assert demo(["--lines", "300000", "--seed", "1", "--out", str(folder / "demo")]) == 0
    out = folder / "out"
    assert logs("--input", folder / "demo" / "access", "--map", DEMO_SERVICE, "--sink", f"*=parquet:{out}") == 0
    return folder / "demo", out


def test_every_row_of_the_fleet_is_accounted_for(fleet: tuple[Path, Path]) -> None:
    """Read = written + filtered + rejected; the malformed lines are the dead letters."""
    demo_folder, out = fleet
    truth = json.loads((demo_folder / "truth.json").read_text())
    ledger = account(out)
    assert ledger["balanced"]
    assert ledger["read"] == truth["lines"]
    assert ledger["rejected"] == truth["malformed"]
    assert read(out / "events").height == truth["lines"] - truth["malformed"]
    letters = [json.loads(line) for path in (out / "dead_letters").glob("*.jsonl") for line in path.open()]
    assert len(letters) == truth["malformed"]
    assert all(letter["message"] and letter["source"] and letter["offset"] >= 0 for letter in letters)


def test_every_incident_of_the_fleet_is_found(fleet: tuple[Path, Path]) -> None:
    """The alerts name each of the simulated incidents, and their windows are those of the metrics."""
    demo_folder, out = fleet
    truth = json.loads((demo_folder / "truth.json").read_text())
    assert [incident["kind"] for incident, alerts in found(truth, read(out / "alerts")) if not alerts] == []


def test_metrics_are_those_of_the_events(fleet: tuple[Path, Path]) -> None:
    """The counts of each service and minute are what the events themselves say."""
    _, out = fleet
    minute = pl.col("timestamp").dt.truncate("1m").alias("window_start")
    expected = read(out / "events").group_by(minute, "service.name").agg(pl.len().cast(pl.Int64).alias("count"))
    metrics = read(out / "metrics").select("window_start", "service.name", "count")
    assert expected.sort(pl.all()).equals(metrics.sort(pl.all()))


def test_the_report_is_one_file_that_tells_of_the_run(fleet: tuple[Path, Path]) -> None:
    """The report has the totals and the dead letters' reasons."""
    page = (fleet[1] / "report.html").read_text()
    assert "Every row read is accounted for" in page
    assert "the line is empty" in page


def test_a_repeated_run_replaces_and_never_duplicates(tmp_path: Path, access: Path) -> None:
    """The same command twice leaves what one run leaves, also with other options."""
    out = tmp_path / "out"
    for where in ("http.response.status_code < 900", "http.response.status_code >= 500"):
        for _ in range(2):
            assert logs("--input", access, "--where", where, "--sink", f"*=parquet:{out}") == 0
    assert read(out / "events").height == 10
    assert account(out)["filtered"] == 49


def test_the_whole_flow_in_one_run(tmp_path: Path, access: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Contract, mapping, enrichment, filter, own measures and several sinks together."""
    (tmp_path / "teams.csv").write_text("service.name,team\nshop,blue\n")
    out = tmp_path / "out"
    code = logs(
        *("--input", access, "--contract", ROOT / "contracts" / "access_log.yaml", "--service", "shop"),
        *("--map", "url.path=url.original", "--enrich", f"{tmp_path / 'teams.csv'}=service.name"),
        *("--where", "http.response.status_code >= 500", "--by", "team", "--window", "10s"),
        *("--measure", "count", "--measure", "max(http.response.body.size) AS largest"),
        *("--sink", f"*=parquet:{out}", "--sink", f"events=jsonl:{out}/json", "--sink", "alerts=-"),
    )
    assert code == 0
    events = read(out / "events")
    assert {"blue"} == set(events["team"])
    assert events["url.path"].str.starts_with("/").all()
    rows = [json.loads(line) for path in (out / "json").glob("**/*.jsonl") for line in path.open()]
    assert len(rows) == events.height == 10
    assert read(out / "metrics").select("team", "count", "largest").rows() == [("blue", 10, 12)]
    assert {dataset: len(urls) for dataset, urls in account(out)["written"].items()} == {
        "events": 2,
        "metrics": 1,
        "alerts": 2,
        "dead_letters": 1,
    }


@pytest.mark.parametrize("format", ["json", "syslog", "lines", "regex", "common"])
def test_every_format_runs(tmp_path: Path, format: str) -> None:
    """Each format goes through to a balanced ledger."""
    lines = {
        "json": '{"timestamp": "2026-01-01T00:00:00Z", "level": "warn", "message": "hot", "cpu": {"load": 0.9}}\n',
        "syslog": "<34>1 2026-01-01T00:00:00Z host app 7 ID - hot\n",
        "lines": "anything\n",
        "regex": "2026-01-01T00:00:00Z WARN hot\n",
        "common": LINE.format(1, "a", 200).partition(' "-"')[0] + "\n",
    }
    path = tmp_path / "in.log"
    path.write_text(lines[format] * 3)
    pattern = ["--pattern", r"(?P<time>\S+) (?P<level>\S+) (?P<body>.*)"] if format == "regex" else []
    assert logs("--input", path, "--format", format, *pattern, "--sink", f"*=parquet:{tmp_path / 'out'}") == 0
    events = read(tmp_path / "out" / "events")
    assert events.height == 3
    if format in ("json", "regex"):
        assert events["severity_number"].unique().to_list() == [13]


def test_limit_reads_only_so_many_rows(tmp_path: Path, access: Path) -> None:
    """A limit bounds the rows read."""
    assert logs("--input", access, "--limit", "7", "--sink", f"*=parquet:{tmp_path / 'out'}") == 0
    assert account(tmp_path / "out")["read"] == 7


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    tmp_path: Path, access: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each step with the schema after it, and no output folder."""
    assert logs("--input", access, "--dry_run", "--sink", f"*=parquet:{tmp_path / 'out'}") == 0
    printed = capsys.readouterr().out
    assert "Parse" in printed
    assert "http.response.status_code: int32" in printed
    assert not (tmp_path / "out").exists()


BAD = [
    (["--input", "{tmp}/no.log"], 1, "There is no file"),
    (["--input", "{tmp}/*.nothing"], 1, "No file matches"),
    (["--input", "{log}", "--format", "combind"], 2, "Did you mean 'combined'"),
    (["--input", "{log}", "--sink", "events=parket:out"], 2, "Did you mean 'parquet'"),
    (["--input", "{log}", "--sink", "event=parquet:out"], 2, "Did you mean 'events'"),
    (["--input", "{log}", "--runner", "FlinkRuner"], 2, "Did you mean 'FlinkRunner'"),
    (["--input", "{log}", "--wher", "1"], 2, "Did you mean '--where'"),
    (["--input", "{log}", "--where", "http.response.status_cod > 1"], 2, "http.response.status_code"),
    (["--input", "{log}", "--where", "http.response.status_code >"], 2, "Filter"),
    (["--input", "{log}", "--by", "servce.name"], 2, "Aggregate: no column 'servce.name'. Did you mean 'service.name'"),
    (["--input", "{log}", "--measure", "p99(severity_text)"], 2, "severity_text"),
    (["--input", "{log}", "--window", "1 minute"], 2, "1m"),
    (["--input", "{log}", "--contract", "{log}"], 2, "access.log"),
    (["--input", "{log}", "--enrich", "{tmp}/twice.csv=service.name"], 2, "twice.csv"),
    (["--input", "{tmp}/cut.log.gz"], 1, "damaged or cut short"),
    (["--input", "{tmp}/binary.log"], 1, "is not text"),
    (["--input", "{log}", "--sink", "*=parquet:{log}/out"], 1, "access.log' is not a folder that you may write to"),
    (["--input", "{log}", "--format", "regex"], 2, "--pattern"),
    (["--input", "{log}", "--format", "regex", "--pattern", "(?P<a>"], 2, "(?P<a>"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD, ids=[" ".join(bad[0][1:])[:60] for bad in BAD])
def test_a_mistake_is_one_clear_message(
    tmp_path: Path, access: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    """What, where and what to do; the exit code; no traceback; nothing half-written."""
    (tmp_path / "cut.log.gz").write_bytes(gzip.compress(b"".join(b"line %d\n" % n for n in range(99_999)))[:5000])
    (tmp_path / "binary.log").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "twice.csv").write_text("service.name,team\nshop,blue\nshop,red\n")
    given = [text.replace("{tmp}", str(tmp_path)).replace("{log}", str(access)) for text in arguments]
    if not any(text.startswith("*=") for text in given):
        given += ["--sink", f"*=parquet:{tmp_path / 'out'}"]
    assert logs(*given) == code
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors
    assert errors.startswith("error: ")
    assert [path for path in (tmp_path / "out").glob("**/*") if path.is_file()] == []


def test_a_full_disk_is_one_clear_message(tmp_path: Path) -> None:
    """When the system refuses to store more, the run fails with the path and leaves nothing."""
    path = tmp_path / "access.log"
    path.write_text("".join(LINE.format(n % 60, n, 200) for n in range(50_000)))
    # A limit on the size of files stands for the disk that is full: both are refusals to write.
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); sys.dont_write_bytecode = True;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000));"
        "from fabric_beam.run import main; from pipelines.logs import build;"
        "from pipelines.parts.options import parse_logs; sys.exit(main(parse_logs, build))"
    )
    command = [sys.executable, "-c", script, "--input", str(path), "--sink", f"*=parquet:{tmp_path / 'out'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path for path in (tmp_path / "out").glob("**/*") if path.is_file()] == []


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C ends the process at once, puts no file in place, and removes the temporary ones wherever they are."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    path = tmp_path / "access.log"
    path.write_text("".join(LINE.format(n % 60, n, 200) for n in range(50_000)) * 40)
    command = [sys.executable, "-m", "pipelines.logs", "--input", str(path), "--sink", f"*=parquet:{tmp_path / 'out'}"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "out" / "events").glob(".tmp-*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert [path for path in (tmp_path / "out").glob("**/*") if path.is_file()] == []
    assert list(temporary.iterdir()) == []


def test_a_pipe_of_lines_is_read_from_standard_input(tmp_path: Path) -> None:
    """`-` reads standard input to its end."""
    command = [sys.executable, "-m", "pipelines.logs", "--input", "-", "--sink", f"*=parquet:{tmp_path / 'out'}"]
    lines = "".join(LINE.format(n, n, 200) for n in range(60))
    subprocess.run(command, cwd=ROOT, input=lines, text=True, check=True, capture_output=True)
    assert read(tmp_path / "out" / "events").height == 60


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "arguments", "rows", "rejected"),
    [
        ("web/apache_combined.log", ["--format", "combined"], 10_000, 1),
        ("web/auth.log", ["--format", "syslog", "--year", "2015"], 7_121, 0),
        ("loghub/Linux/Linux_2k.log", ["--format", "syslog", "--year", "2005"], 2_000, 0),
        ("loghub/OpenSSH/OpenSSH_2k.log", ["--format", "syslog", "--year", "2017"], 2_000, 0),
        ("kafka_broker/*", ["--format", "lines"], None, 0),
    ],
)
def test_real_logs_run_through(
    tmp_path: Path, real_data: Path, name: str, arguments: list[str], rows: int | None, rejected: int
) -> None:
    """Logs that others recorded: the ledger balances, and every malformed line is a dead letter."""
    out = tmp_path / "out"
    assert logs("--input", real_data / name, *arguments, "--sink", f"*=parquet:{out}") == 0
    ledger = account(out)
    assert ledger["balanced"]
    assert rows is None or ledger["read"] == rows
    assert ledger["rejected"] == rejected
