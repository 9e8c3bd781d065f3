"""The options that log pipelines share, grouped as `--help` shows them."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from fabric_beam.command_line import Parser, add_running, one_of
from fabric_beam.errors import InputError, UsageError, nearest
from fabric_beam.schemes import SINKS
from transforms.formats import FORMATS

DATASETS = ("events", "metrics", "alerts", "dead_letters")
DETECTORS = ("robust_zscore", "isolation_forest", "none")
#: Known here by name alone: their classes import what a command line need not wait for.
FILE_SCHEMES = ("parquet", "jsonl")

_EXAMPLES = """\
examples:
  python -m pipelines.logs --input '/var/log/nginx/access.log*' --format combined
  python -m pipelines.logs --input auth.log --format syslog --year 2024 --where "severity_number >= 13"
  python -m pipelines.logs --input app.jsonl --format json --by service.name --window 5m
  python -m pipelines.logs --input access.log --sink events=jsonl:out/events --sink alerts=-
  python -m pipelines.logs --input kafka://host:9092/raw --sink events=mongodb://host/logs/events
"""


def logs_parser() -> Parser:
    """The parser of the logs pipeline's command line."""
    parser = Parser(
        prog="python -m pipelines.logs",
        description="Parse, validate, normalise, enrich, filter, aggregate, score and write log files.",
        epilog=_EXAMPLES
        + "\nBeam's own options are taken too. Exit codes: 0 done and balanced, 1 failed, 2 usage, 3 the "
        "ledger does not balance.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("input and output").add_argument
    add(
        "--input",
        nargs="+",
        action="extend",
        metavar="PATTERN",
        required=True,
        help="paths, globs, folders, URLs, or -",
    )
    formats = (*FORMATS, "none")
    add(
        "--format",
        type=one_of("format", formats),
        default="combined",
        help=f"{', '.join(formats)} for rows that have their columns (%(default)s)",
    )
    add("--pattern", metavar="REGEX", help="for --format regex: named groups become columns, __ in a name stands for .")
    add("--year", type=int, metavar="YYYY", help="for syslog times without a year (the file's date)")
    add("--zone", default="UTC", metavar="ZONE", help="for times without a zone (UTC)")
    add("--limit", type=_count, metavar="N", help="read only the first N rows")
    add(
        "--sink",
        action="append",
        metavar="DATASET=URL",
        help=f"where a dataset goes ({', '.join(DATASETS)} or * for all), more than once for more (*=parquet:out)",
    )
    add("--ledger", metavar="FILE", help="where the account of rows goes (out/ledger.json)")
    add("--report", metavar="FILE", help="where the report goes, 'none' for no report (out/report.html)")

    add = parser.add_argument_group("processing").add_argument
    add("--contract", metavar="FILE", help="validate against a data contract in YAML")
    add("--service", metavar="NAME", help="service.name of rows that have none")
    add("--map", action="append", default=[], metavar="COLUMN=SQL", help="make a column by an expression")
    add(
        "--enrich",
        action="append",
        default=[],
        metavar="TABLE=COLUMN[,COLUMN]",
        help="add the columns of a CSV, JSON or Parquet file, or of a store by its URL (hosts.csv=host.name)",
    )
    add("--where", metavar="SQL", help="keep only rows for which this is true")
    add(
        "--window", default="1m", metavar="SIZE", help="windows of the metrics: 30s, 1m, or sliding 5m/1m (%(default)s)"
    )
    add("--by", nargs="+", default=["service.name"], metavar="COLUMN", help="series of the metrics (service.name)")
    add(
        "--measure",
        action="append",
        metavar="MEASURE",
        help="such as count or 'p99(http.response.body.size)' (by format)",
    )
    detectors = one_of("detector", DETECTORS)
    add("--detector", type=detectors, default=DETECTORS[0], help=f"{', '.join(DETECTORS)} (%(default)s)")
    add("--keep_original", action="store_true", help="write the original line with each event, as log.record.original")

    add_running(parser)
    return parser


def parse_logs(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse and check the logs pipeline's command line.

    Args:
        argv: the arguments.

    Returns:
        The options (`sinks`: dataset → URLs; `mapping`; `tables`: pairs of a file or URL and columns; `job`: what names
        the output files of runs on the same input) and the arguments for Beam.

    Raises:
        UsageError: an option or its value is wrong.
        InputError: an input file does not exist.
    """
    options, rest = logs_parser().parse(list(argv))
    options.sinks, folder = _sinks(options.sink or ["*=parquet:out"])
    options.ledger = options.ledger or str(folder / "ledger.json")
    options.report = "" if options.report == "none" else options.report or str(folder / "report.html")
    options.mapping = dict(_pair(text, "=", "--map COLUMN=SQL") for text in options.map)
    options.tables = [_table(text) for text in options.enrich]
    if (options.format == "regex") != (options.pattern is not None):
        raise UsageError("--format regex and --pattern REGEX go together.")
    for path in [
        *options.input,
        *(table for table, _ in options.tables),
        *([options.contract] if options.contract else []),
    ]:
        _exists(path)
    identity = json.dumps([sorted(options.input), options.format, options.pattern])
    options.job = hashlib.sha256(identity.encode()).hexdigest()[:10]
    return options, rest


def _sinks(texts: Sequence[str]) -> tuple[dict[str, list[str]], Path]:
    """Dataset → URLs, and the folder where the report and the ledger go: `out` unless the files' is of this machine."""
    sinks: dict[str, list[str]] = {dataset: [] for dataset in DATASETS}
    folder = Path("out")
    for text in texts:
        dataset, url = _pair(text, "=", "--sink DATASET=URL")
        if dataset not in (*DATASETS, "*"):
            raise UsageError(f"--sink {text}: there is no dataset {dataset!r}. {nearest(dataset, [*DATASETS, '*'])}")
        scheme, _, path = ("stdout:" if url == "-" else url).partition(":")
        if scheme not in SINKS:
            raise UsageError(f"--sink {dataset}=…: there is no sink scheme {scheme!r}. {nearest(scheme, SINKS)}")
        if dataset != "*":
            sinks[dataset].append(url.replace("{dataset}", dataset))
        elif scheme in FILE_SCHEMES:
            where, mark, query = path.partition("?")
            if "://" not in where:
                folder = Path(where)
            for each in DATASETS[:-1]:
                sinks[each].append(f"{scheme}:{where}/{each}{mark}{query}")
            # Dead letters are for people to read.
            sinks["dead_letters"].append(f"jsonl:{where}/dead_letters")
        elif scheme != "stdout" and "{dataset}" not in url:
            raise UsageError(
                f"--sink *={scheme}:…: put {{dataset}} where {', '.join(DATASETS)} are to be told apart, or name each."
            )
        else:
            for each in DATASETS:
                sinks[each].append(url.replace("{dataset}", each))
    # Rows may be rejected whatever is asked for, and none may be lost.
    if not sinks["dead_letters"]:
        sinks["dead_letters"] = [f"jsonl:{folder}/dead_letters"]
    return sinks, folder


def _pair(text: str, separator: str, form: str, *, last: bool = False) -> tuple[str, str]:
    left, found, right = text.rpartition(separator) if last else text.partition(separator)
    if not (left and found and right):
        raise UsageError(f"{form} expected, not {text!r}.")
    return left, right


def _table(text: str) -> tuple[str, list[str]]:
    """A table and its key columns: a URL may have the sign between them, too."""
    table, columns = _pair(text, "=", "--enrich TABLE=COLUMN", last=True)
    return table, columns.split(",")


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _exists(path: str) -> None:
    """Refuse a plain local path that is not there before Beam is imported; the rest is looked up with Beam."""
    if path == "-" or ":" in path or any(character in path for character in "*?["):
        return
    try:
        if Path(path).exists():
            return
    except PermissionError:
        raise InputError(f"No permission to read {path!r}. Give this user read access to it.") from None
    parent = Path(path).parent
    if not parent.is_dir():
        raise InputError(f"There is no file {path!r}: there is no folder {str(parent)!r}.")
    raise InputError(
        f"There is no file {path!r}. {nearest(path, [str(file) for file in sorted(parent.iterdir())[:20]])}"
    )
