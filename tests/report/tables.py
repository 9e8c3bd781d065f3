"""A run's tables, and its report as text and data, for the tests of the report."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from typing import Any

import polars as pl

from fabric_beam.report import ReportTables, render

START = datetime(2026, 11, 20)
MINUTE = timedelta(minutes=1)
EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
LEDGER: dict[str, object] = {
    "read": 1_000_000,
    "written": {"events": {"parquet:out/events": 990_000, "redis://host/0": 990_000}, "metrics": {"parquet:out/m": 60}},
    "filtered": 9_000,
    "rejected": 1_000,
    "balanced": True,
    "steps": {
        "Parse": {"in": 1_000_000, "out": 999_000, "filtered": 0, "rejected": 1_000},
        "Filter": {"in": 999_000, "out": 990_000, "filtered": 9_000, "rejected": 0},
    },
    "seconds": 4.0,
    "bytes": 250_000_000,
    "inputs": ["logs/a.log", "logs/b.log"],
    "job": "logs",
}


def throughput(counts: list[int], severity: str | None = "INFO", start: datetime = START) -> pl.DataFrame:
    times = [start + MINUTE * number for number in range(len(counts))]
    return pl.DataFrame(
        {"window_start": times, "severity_text": [severity] * len(counts), "count": counts},
        schema={"window_start": pl.Datetime("us"), "severity_text": pl.String, "count": pl.Int64},
    )


def alerts(rows: list[tuple[int, str, str, float, bool]], reason: str = "high") -> pl.DataFrame:
    """Rows of (minute, service, measure, score, anomalous)."""
    return pl.DataFrame(
        [
            (START + MINUTE * minute, service, measure, 9.0, score, 3.0, anomalous, f"{reason} {score}")
            for minute, service, measure, score, anomalous in rows
        ],
        schema={
            "window_start": pl.Datetime("us"),
            "service.name": pl.String,
            "measure": pl.String,
            "value": pl.Float64,
            "score": pl.Float64,
            "threshold": pl.Float64,
            "is_anomaly": pl.Boolean,
            "reason": pl.String,
        },
        orient="row",
    )


def letters(payload: str | bytes, message: str = "no match") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "step": ["Parse"],
            "rule": ["combined"],
            "message": [message],
            "payload": [payload],
            "source": ["logs/a.log"],
            "offset": [4711],
        }
    )


def full() -> ReportTables:
    times = [START + MINUTE * number for number in range(60)]
    statuses = pl.Series([200] * 50 + [503] * 10, dtype=pl.Int64)
    return ReportTables(
        throughput=throughput([100] * 60).with_columns(statuses.alias("http.response.status_code")),
        quantiles=pl.DataFrame(
            {
                "window_start": times,
                "http.response.body.size.p50": [10.0] * 60,
                "http.response.body.size.p99": [900.0] * 60,
            }
        ),
        top_sources=pl.DataFrame({"client.address": ["10.0.0.1", "10.0.0.2"], "count": [3, 5], "error": [0, 0]}),
        alerts=alerts(
            [(50, "api", "count", 7.5, True), (51, "api", "count", 6.5, True), (9, "api", "count", 0.1, False)]
        ),
        dead_letters=letters("a bad line"),
        rejected=pl.DataFrame({"step": ["Parse"], "rule": ["combined"], "count": [1000]}),
    )


def empty() -> ReportTables:
    none = pl.DataFrame()
    return ReportTables(none, none, none, none, none, none)


def page(tables: ReportTables, ledger: dict[str, object] | None = None, **texts: str) -> str:
    return render(tables, LEDGER if ledger is None else ledger, **{"title": "Logs", "subtitle": "a run", **texts})


def data(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


def text(html: str) -> str:
    body = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


class Elements(HTMLParser):
    """Every start tag of a page with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def evil_tables() -> ReportTables:
    tables = full()
    return ReportTables(
        throughput=tables.throughput.with_columns(pl.lit(EVIL).alias("severity_text")),
        quantiles=tables.quantiles.rename(
            {"http.response.body.size.p50": f"{EVIL}.p50", "http.response.body.size.p99": f"size.{EVIL}"}
        ),
        top_sources=pl.DataFrame({EVIL: [EVIL], "count": [1], "error": [0]}),
        alerts=alerts([(minute, EVIL, EVIL, 7.5, True) for minute in range(48, 56)], reason=EVIL).rename(
            {"service.name": EVIL}
        ),
        dead_letters=letters(EVIL, EVIL).with_columns(source=pl.lit(EVIL), step=pl.lit(EVIL), rule=pl.lit(EVIL)),
        rejected=pl.DataFrame({"step": [EVIL], "rule": [EVIL], "count": [1]}),
    )


EVIL_LEDGER: dict[str, object] = {
    **LEDGER,
    "job": EVIL,
    "inputs": [EVIL],
    "steps": {EVIL: {"in": 1, "out": 1}},
    "written": {EVIL: {EVIL: 1}},
}
