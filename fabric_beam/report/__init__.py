"""The report of a run: one HTML file that needs no network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import polars as pl

from fabric_beam.report.account import account
from fabric_beam.report.charts import (
    Axis,
    Chart,
    quantile_charts,
    severity_chart,
    status_chart,
    throughput_chart,
    time_axis,
)
from fabric_beam.report.findings import findings, window_length
from fabric_beam.report.sections import MAX_RULES, finding_rows, letter_rows, source_rows
from fabric_beam.report.wording import duration, share, short, size

__all__ = ["ReportTables", "findings", "render"]


@dataclass(frozen=True)
class ReportTables:
    """What a report is made from; any table may be empty, with or without its columns.

    Attributes:
        throughput: `window_start` (Datetime, UTC), `severity_text` (String), optionally `http.response.status_code`
            (an integer), and `count` (Int64): one row a window, severity and status.
        quantiles: `window_start`, then numbers named like `http.response.body.size.p99`.
        top_sources: one key column (such as `client.address`), `count` and `error`, in any order.
        alerts: scored windows, as `findings` takes them.
        dead_letters: a sample of the rejected rows: `step`, `rule`, `message`, `payload`, `source`, `offset`.
        rejected: `step`, `rule`, `count`: exact counts.
    """

    throughput: pl.DataFrame
    quantiles: pl.DataFrame
    top_sources: pl.DataFrame
    alerts: pl.DataFrame
    dead_letters: pl.DataFrame
    rejected: pl.DataFrame


def render(tables: ReportTables, ledger: Mapping[str, object], *, title: str, subtitle: str) -> str:
    """Write the report of a run as one self-contained HTML page.

    Args:
        tables: what the run found.
        ledger: the JSON account of its rows; any key may be missing.
        title: the page's heading.
        subtitle: the line under it.

    Returns:
        The page. It loads nothing, works from disk, and every text that came with the data is escaped.

    Example:
        >>> none = pl.DataFrame()
        >>> page = render(ReportTables(none, none, none, none, none, none), {"read": 0}, title="Logs", subtitle="")
        >>> "No anomalies found" in page
        True
    """
    from jinja2 import Environment, FileSystemLoader
    from jinja2.utils import htmlsafe_json_dumps
    from markupsafe import Markup

    folder = Path(__file__).parent
    run = account(ledger)
    width = window_length(tables.throughput["window_start"]) if not tables.throughput.is_empty() else None
    found = findings(tables.alerts, width)
    axis = time_axis(tables.throughput, tables.quantiles)
    charts = _charts(tables, axis) if axis else []
    shown = finding_rows(found, axis)
    letters = letter_rows(tables.rejected, tables.dead_letters)
    events = int(tables.throughput["count"].sum()) if not tables.throughput.is_empty() else 0
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"short": short, "size": size, "share": share}
    script = (folder / "report.js").read_text(encoding="utf-8")
    data = {
        "axis": {"start": axis.start / 1000, "step": axis.step / 1000, "bins": axis.bins} if axis else None,
        "charts": [chart.data() for chart in charts],
        "marks": [one["mark"] for one in shown if one["mark"]],
    }
    return environment.get_template("report.html").render(
        title=title,
        subtitle=subtitle,
        run=run,
        speed=run.read / run.seconds if run.read is not None and run.seconds else None,
        took=duration(run.seconds * 1e6) if run.seconds else None,
        rejected=run.rejected if run.rejected is not None else sum(rule["count"] for rule in letters),
        axis=axis,
        charts=charts,
        anomalous=len(found),
        findings=shown,
        sources=source_rows(tables.top_sources, events),
        letters=letters[:MAX_RULES],
        more_rules=len(letters[MAX_RULES:]),
        data=htmlsafe_json_dumps(data, separators=(",", ":"), allow_nan=False),
        css=Markup((folder / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # The only script that a browser may run here, whatever else got into the page.
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )


def _charts(tables: ReportTables, axis: Axis) -> list[Chart]:
    counted = [throughput_chart, severity_chart, status_chart] if not tables.throughput.is_empty() else []
    charts = [chart for make in counted if (chart := make(tables.throughput, axis))]
    return charts + (quantile_charts(tables.quantiles, axis) if not tables.quantiles.is_empty() else [])
