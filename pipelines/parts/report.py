"""The report of the logs pipeline: what it gathers while the pipeline runs, and how it becomes a page."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import polars as pl
from apache_beam.transforms.error_handling import ErrorHandler

from fabric_beam import MapBatches, WriteTo
from fabric_beam.endpoints import masked
from fabric_beam.report import ReportTables, findings, render
from fabric_beam.run import check_text, write_text
from transforms.aggregate import Aggregate
from transforms.measures import Window
from transforms.most_frequent import MostFrequent

if TYPE_CHECKING:
    from fabric_beam.ledger import Ledger

#: What tells where traffic comes from: the first of these that the events have.
_SOURCES = ("client.address", "host.name", "source")
_QUANTILES = ("http.server.request.duration", "http.response.body.size")
_SAMPLE = 20
_TOP_FINDINGS = 5


class Report:
    """Gathers small tables beside the pipeline's own datasets and renders them when the run is over.

    Args:
        options: `report` (a path, empty for none), `window`, `input`, `job` and `format`.
    """

    def __init__(self, options: Namespace) -> None:
        self._options = options
        if options.report:
            check_text(options.report)
        # Gone with the process at the latest: a dry run or a failed one never comes to `write`.
        self._temporary = tempfile.TemporaryDirectory(prefix="fabric-beam-report-", ignore_cleanup_errors=True)
        self._folder = Path(self._temporary.name)

    def _keep(self, pcoll: beam.PCollection, name: str) -> None:
        pcoll | f"Report/{name}" >> WriteTo(f"parquet:{self._folder / name}")

    def describe(self, events: beam.PCollection, dead_letters: ErrorHandler) -> None:
        """Gather traffic, quantiles and top sources."""
        if not self._options.report:
            return
        columns = events.element_type.schema.names
        status = [name for name in ("http.response.status_code",) if name in columns]
        measured = [name for name in _QUANTILES if name in columns]
        source = next((name for name in _SOURCES if name in columns), "service.name")
        branches = {
            "throughput": Aggregate(self._options.window, ["severity_text", *status]),
            "quantiles": Aggregate(
                self._options.window, [], [f"p{q}({name})" for name in measured for q in (50, 90, 99)] or ["count"]
            ),
        }
        for name, aggregate in branches.items():
            self._keep(events | f"Report {name}" >> aggregate.with_error_handler(dead_letters), name)
        self._keep(events | "Report top_sources" >> MostFrequent(source), "top_sources")

    def find(self, alerts: beam.PCollection) -> None:
        """Gather the anomalies."""
        self._keep(alerts, "alerts")

    def explain(self, letters: beam.PCollection) -> None:
        """Gather a sample of the dead letters, and how many there are for each step and rule."""
        if not self._options.report:
            return
        sample = letters | "Report sample" >> MapBatches(lambda table: table.head(_SAMPLE), filters=True)
        self._keep(sample, "dead_letters")
        counts = letters | "Report counts" >> MapBatches(
            lambda table: table.group_by("step", "rule").agg(pl.len().cast(pl.Int64).alias("count")), filters=True
        )
        self._keep(counts, "rejected")

    def write(self, ledger: Ledger, seconds: float) -> list[str]:
        """Render the report.

        Args:
            ledger: the account of the run.
            seconds: how long it took.

        Returns:
            What to say at the end: the top findings, and where the report is.
        """
        try:
            return self._write(ledger, seconds)
        finally:
            self._temporary.cleanup()

    def _table(self, name: str) -> pl.DataFrame:
        files = sorted((self._folder / name).glob("**/*.parquet"))
        return (
            pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files]) if files else pl.DataFrame()
        )

    def _write(self, ledger: Ledger, seconds: float) -> list[str]:
        alerts = self._table("alerts")
        found = findings(alerts, timedelta(microseconds=Window.parse(self._options.window).size))
        lines = [
            f"{found.height} finding(s) in {alerts.height:,} anomalous window(s)"
            if alerts.height
            else "No anomalies found."
        ]
        for row in found.head(_TOP_FINDINGS).iter_rows(named=True):
            when = f"{row['start']:%Y-%m-%d %H:%M} to {row['end']:%H:%M}"
            lines.append(f"  {when}  {_series(row, self._options.by)}{row['reason']}")
        if not self._options.report:
            return lines
        tables = ReportTables(
            self._table("throughput"),
            self._table("quantiles").drop("window_end", "count", strict=False),
            self._table("top_sources"),
            alerts,
            self._table("dead_letters").head(1000),
            self._table("rejected"),
        )
        rejected = tables.rejected
        if rejected.height:
            rejected = rejected.group_by("step", "rule", maintain_order=True).agg(pl.col("count").sum())
        inputs = [masked(url) for url in self._options.input]
        account: dict[str, Any] = {
            **ledger.as_dict(),
            "seconds": seconds,
            "inputs": inputs,
            "job": self._options.job,
        }
        page = render(
            ReportTables(
                tables.throughput, tables.quantiles, tables.top_sources, alerts, tables.dead_letters, rejected
            ),
            account,
            title="Logs",
            subtitle=", ".join(inputs),
        )
        write_text(self._options.report, page)
        return [*lines, f"report: {self._options.report}"]


def _series(row: dict[str, Any], by: list[str]) -> str:
    named = [str(row[name]) for name in by if row.get(name) is not None]
    return f"{', '.join(named)}: " if named else ""
