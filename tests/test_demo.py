"""The simulated logs: what is in them, that the truth file tells it, and that they are written whole or not at all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fabric_beam.demo import write as writing
from fabric_beam.demo.__main__ import main
from fabric_beam.demo.day import SCANNER
from fabric_beam.demo.truth import find
from fabric_beam.demo.write import write

LINES = 100_000
COMBINED = re.compile(
    rb"(?P<client>[0-9a-f.:]+) - (?P<user>\S+) \[(?P<time>\d\d/Mar/2026:\d\d:\d\d:\d\d \+0000)\] "
    rb'"(?P<method>[A-Z]+) (?P<target>\S+) HTTP/(?:1\.1|2\.0)" (?P<status>[1-5]\d\d) (?P<size>-|[1-9]\d*) '
    rb'"(?P<referer>[^"]+)" "(?P<agent>[^"]+)"'
)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The logs of one day, written in many chunks."""
    out = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_CHUNK", 7_000)
        write(out, LINES, seed=7)
    return out


@pytest.fixture(scope="module")
def truth(logs: Path) -> dict[str, Any]:
    """What the truth file says."""
    return dict(json.loads((logs / "truth.json").read_text()))


def access_lines(out: Path) -> dict[str, list[bytes]]:
    """Read the access lines of each host."""
    return {file.stem: file.read_bytes().split(b"\n")[:-1] for file in sorted((out / "access").glob("*.log"))}


@pytest.fixture(scope="module")
def good(logs: Path) -> pl.DataFrame:
    """The lines that the plain-Python format accepts, in the order of the files."""
    rows = [
        {"host": host, **{name: value.decode() for name, value in match.groupdict().items()}}
        for host, lines in access_lines(logs).items()
        for match in map(COMBINED.fullmatch, lines)
        if match
    ]
    return pl.DataFrame(rows).with_columns(
        pl.col("host").str.extract(r"^(\w+)-").alias("service"),
        pl.col("time").str.to_datetime("%d/%b/%Y:%H:%M:%S %z"),
        pl.col("status").cast(pl.Int64),
        pl.col("size").replace("-", "0").cast(pl.Int64),
    )


def content(out: Path) -> dict[str, bytes]:
    """Read every file of a directory."""
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


def test_every_line_is_accounted_for(logs: Path, truth: dict[str, Any], good: pl.DataFrame) -> None:
    """The lines asked for are written, and those that are not combined format are as many as the truth says."""
    lines = [line for lines in access_lines(logs).values() for line in lines]
    assert len(lines) == truth["lines"] == LINES
    assert LINES - len(good) == truth["malformed"] == sum(truth["malformed_kinds"].values()) == 5


def test_the_truth_tells_the_lines_and_bytes_of_each_file(logs: Path, truth: dict[str, Any]) -> None:
    """Each file has the lines and bytes that the truth file gives it, and there are no others."""
    files = {name: data for name, data in content(logs).items() if name != "truth.json"}
    expected = {name: {"lines": data.count(b"\n"), "bytes": len(data)} for name, data in files.items()}
    assert truth["files"] == expected


def test_malformed_lines_are_of_every_kind(logs: Path) -> None:
    """Among the malformed lines there is an empty one, one that is not UTF-8, and cut and garbled ones."""
    bad = [line for lines in access_lines(logs).values() for line in lines if not COMBINED.fullmatch(line)]
    not_utf8 = [line for line in bad if line.decode(errors="replace").encode() != line]
    assert len(not_utf8) == 1
    assert bad.count(b"") == 1
    assert len({line.count(b'"') for line in bad}) > 2


def test_lines_have_the_mean_length_of_real_ones(logs: Path, truth: dict[str, Any]) -> None:
    """The mean access line has 140 to 160 bytes."""
    size = sum(file["bytes"] for name, file in truth["files"].items() if name.startswith("access/"))
    assert 140 < size / LINES < 160


def test_times_never_go_back_and_span_the_day(logs: Path, good: pl.DataFrame) -> None:
    """In each file times do not decrease, and together they reach from the first to the last hour of one day."""
    assert good.group_by("host").agg(pl.col("time").is_sorted())["time"].all()
    assert (good["time"].min().hour, good["time"].max().hour) == (0, 23)  # type: ignore[union-attr]
    assert good["time"].dt.date().n_unique() == 1
    for file in (logs / "app").glob("*.jsonl"):
        assert pl.read_ndjson(file)["timestamp"].is_sorted()


def test_the_path_tells_the_service(good: pl.DataFrame) -> None:
    """The service in the file's name and the prefix of the path agree on every line."""
    prefix = good["target"].str.extract(r"^/(api|checkout)/").fill_null("web")
    assert prefix.to_list() == good["service"].to_list()
    assert good.group_by("service").agg(pl.col("host").n_unique())["host"].min() >= 2  # type: ignore[operator]


def test_the_mix_is_realistic(good: pl.DataFrame) -> None:
    """Statuses, clients, referers and methods are spread as in real logs."""
    classes = (good["status"] // 100).value_counts(normalize=True).sort("status")["proportion"].to_list()
    assert classes == pytest.approx([0.88, 0.07, 0.04, 0.01], abs=0.02)
    clients = good["client"].value_counts(sort=True)
    assert clients["count"].head(100).sum() > 0.15 * len(good)
    assert 0.05 < good["client"].str.contains(":").mean() < 0.12  # type: ignore[operator]
    assert good["target"].n_unique() > 10_000
    assert 0.7 < (good["referer"] == "-").mean() < 0.95  # type: ignore[operator]
    assert set(good["method"]) == {"GET", "HEAD", "POST", "PUT", "DELETE"}
    hours = good.group_by(pl.col("time").dt.hour()).len()["len"]
    assert hours.max() > 2.5 * hours.min()  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["scan", "error_spike", "size_shift", "traffic_drop", "traffic_surge"])
def test_incidents_show_in_plain_counts_per_minute(kind: str, truth: dict[str, Any], good: pl.DataFrame) -> None:
    """Nearly every minute of an incident stands out from the service's other minutes of the same hours."""
    (incident,) = [incident for incident in truth["incidents"] if incident["kind"] == kind]
    start, end = (datetime.fromisoformat(incident[name]) for name in ("start", "end"))
    minutes = pl.datetime_range(start.replace(minute=0), end.replace(hour=end.hour + 1), "1m", eager=True)
    measured = good.filter(pl.col("service") == incident["service"]).group_by(pl.col("time").dt.truncate("1m"))
    table = (
        minutes.alias("time")
        .to_frame()
        .join(
            measured.agg(
                pl.len().alias("request_count"),
                (pl.col("status") >= 500).mean().alias("error_ratio"),
                (pl.col("status") == 404).mean().alias("not_found_ratio"),
                pl.col("size").mean().alias("response_size"),
            ).with_columns(pl.col("time").cast(minutes.dtype)),
            on="time",
            how="left",
        )
        .fill_null(0)
    )
    during = pl.col("time").is_between(start, end, closed="left")
    inside, outside = (table.filter(where)[incident["metric"]].cast(pl.Float64) for where in (during, ~during))
    sign = -1 if kind == "traffic_drop" else 1
    beyond = (inside * sign > (outside * sign).quantile(0.99)).mean()
    assert beyond > 0.8
    assert inside.mean() < 0.2 * outside.mean() if sign < 0 else inside.mean() > 2.5 * outside.mean()


def test_the_scan_comes_from_one_address(truth: dict[str, Any], good: pl.DataFrame) -> None:
    """All of the scanner's requests are answered 404 or fail, and lie within the incident."""
    scan = good.filter(pl.col("client") == SCANNER)
    incident = truth["incidents"][0]
    assert set(scan["status"]) == {404}
    assert scan["time"].min() >= datetime.fromisoformat(incident["start"])  # type: ignore[operator]
    assert scan["time"].max() < datetime.fromisoformat(incident["end"])  # type: ignore[operator]


def test_application_records_are_a_tenth_and_agree_with_their_file(logs: Path, truth: dict[str, Any]) -> None:
    """A tenth as many application records: OpenTelemetry fields, the file's own host, severity that fits the status."""
    tables = {file.stem: pl.read_ndjson(file) for file in (logs / "app").glob("*.jsonl")}
    assert sum(map(len, tables.values())) == truth["application_lines"] == LINES // 10
    severities = {2: ("INFO", 9), 3: ("DEBUG", 5), 4: ("WARN", 13), 5: ("ERROR", 17)}
    for host, table in tables.items():
        assert set(table["host.name"]) == {host}
        assert set(table["service.name"]) == {host.rsplit("-", 1)[0]}
        kind = table["http.response.status_code"] // 100
        seen = zip(kind, table["severity_text"], table["severity_number"], strict=True)
        assert all(severities[k] == (text, number) for k, text, number in seen)
        assert table["http.server.request.duration"].min() > 0  # type: ignore[operator]


def test_application_records_are_of_requests_in_the_access_log(logs: Path, good: pl.DataFrame) -> None:
    """Each application record is of a request that the host's access log has at that second."""
    records = pl.concat([pl.read_ndjson(file) for file in (logs / "app").glob("*.jsonl")]).select(
        pl.col("host.name").alias("host"),
        pl.col("timestamp").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ").dt.truncate("1s").dt.replace_time_zone("UTC"),
        pl.col("client.address").alias("client"),
        (pl.col("url.path") + ("?" + pl.col("url.query")).fill_null("")).alias("target"),
        pl.col("http.response.status_code").alias("status"),
    )
    requests = good.select("host", pl.col("time").alias("timestamp"), "client", "target", "status")
    unmatched = records.join(
        requests.with_columns(pl.col("timestamp").cast(records.schema["timestamp"])), on=requests.columns, how="anti"
    )
    assert len(unmatched) <= 5, "only the requests whose access lines are malformed may be missing"


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    """Two runs of one seed agree in every byte; another seed gives other lines and incidents."""
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        write(tmp_path / name, 2_000, seed)
    one, same, other = (content(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one.keys() == other.keys()
    assert not [name for name in one if one[name] == other[name]]
    assert json.loads(one["truth.json"])["incidents"] != json.loads(other["truth.json"])["incidents"]


@pytest.mark.parametrize(("lines", "malformed"), [(10, 0), (19, 0), (999, 0), (1_000, 5), (20_000, 5), (120_001, 6)])
def test_any_number_of_lines_is_exact(lines: int, malformed: int, tmp_path: Path) -> None:
    """From 10 lines up the numbers of access, malformed and application lines are exactly those promised."""
    write(tmp_path, lines, seed=1)
    written = [line for lines in access_lines(tmp_path).values() for line in lines]
    assert len(written) == lines
    assert sum(not COMBINED.fullmatch(line) for line in written) == malformed
    assert sum(file.read_bytes().count(b"\n") for file in (tmp_path / "app").glob("*.jsonl")) == lines // 10


def test_a_second_run_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the same logs are already, a run says so and touches no file."""
    arguments = ["--lines", "500", "--seed", "2", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "500 lines" in capsys.readouterr().out
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    assert main(arguments) == 0
    assert "already holds" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_other_or_damaged_logs_are_replaced(tmp_path: Path) -> None:
    """Logs of another seed, logs with a file cut short, and an unreadable truth file do not count as the same."""
    truth = write(tmp_path, 500, seed=2)
    assert find(tmp_path, 500, seed=2) == truth
    assert find(tmp_path, 500, seed=3) is None
    whole = content(tmp_path)
    with (tmp_path / "app/web-1.jsonl").open("r+b") as file:
        file.truncate(10)
    assert find(tmp_path, 500, seed=2) is None
    assert main(["--lines", "500", "--seed", "2", "--out", str(tmp_path)]) == 0
    assert content(tmp_path) == whole
    (tmp_path / "truth.json").write_text("[]")
    assert find(tmp_path, 500, seed=2) is None


def test_a_failed_run_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """When the disk takes no more, the earlier logs stay, nothing half-written does, and one line says why."""
    write(tmp_path, 500, seed=2)
    before = content(tmp_path)
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000,) * 2); "
        "from fabric_beam.demo.__main__ import main; "
        f"sys.exit(main(['--lines', '50000', '--out', {str(tmp_path)!r}]))"
    )
    run = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False)
    assert (run.returncode, len(run.stderr.splitlines())) == (1, 1), run.stderr
    assert "cannot write" in run.stderr
    assert content(tmp_path) == before
    assert not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--lines", "9", "--out", "x"], "from 10 up, not '9'"),
        (["--lines", "many", "--out", "x"], "from 10 up, not 'many'"),
        (["--seed", "-1", "--out", "x"], "from 0 up, not '-1'"),
        ([], "--out"),
    ],
)
def test_a_usage_error_is_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong argument ends the run with exit code 2 and one line that says what was expected."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert expected in line


def test_help_loads_nothing_heavy() -> None:
    """Help is printed before numpy, Polars or Beam are imported, so that it comes at once."""
    code = (
        "import sys\nfrom fabric_beam.demo.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n"
        "    print(sorted({'numpy', 'polars', 'pyarrow', 'apache_beam'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
    assert "--lines" in run.stdout
