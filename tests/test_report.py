"""The report: one HTML file that shows a run, whatever the data holds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.report import ReportTables, findings, render
from fabric_beam.report.charts import MAX_BINS, quantile_charts, severity_chart, throughput_chart, time_axis

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
        top_sources=pl.DataFrame({"client.address": ["10.0.0.1", "10.0.0.2"], "count": [3, 5]}),
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
        top_sources=pl.DataFrame({EVIL: [EVIL], "count": [1]}),
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


def test_user_text_never_becomes_markup() -> None:
    """Whatever column holds markup, the page has the same elements and attributes as one without it."""
    html = page(evil_tables(), EVIL_LEDGER, title=EVIL, subtitle=EVIL)
    elements = Elements(html).found
    assert not [tag for tag, _ in elements if tag == "img"]
    assert not [names for _, names in elements if any(name.startswith("on") for name in names)]
    assert [tag for tag, _ in elements].count("script") == 2
    assert html.count("</script>") == 2
    assert text(html).count("alert('x')") >= 15


def test_page_loads_nothing() -> None:
    """No element refers to anything outside of the file, and the browser is told to refuse it."""
    html = page(full())
    for tag, names in Elements(html).found:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert "src" not in names
        assert (names.get("href") or "#").startswith("#")
    assert not re.search(r"url\(['\"]?http|@import|\bfetch\(|XMLHttpRequest", html)
    assert "default-src 'none'" in html


def test_links_lead_to_elements_of_the_page() -> None:
    """Every link's target exists, and no id is used twice."""
    elements = Elements(page(full())).found
    ids = Counter(names["id"] for _, names in elements if "id" in names)
    assert max(ids.values()) == 1
    assert {names["href"] for tag, names in elements if tag == "a"} <= {f"#{one}" for one in ids}


def test_headline_numbers() -> None:
    """Rows, speed, bytes, dead letters, findings and the balance stand at the top in words."""
    shown = text(page(full()))
    for words in (
        "Rows read 1 M of 2 inputs, 1,000,000",
        "250 k rows/s",
        "250 MB 62.5 MB/s",
        "Dead letters 1,000 0.1 % of rows",
    ):
        assert words in shown
    assert "Anomalies 1 finding" in shown
    assert (
        "Balanced. Every row read is accounted for: 1,000,000 read = 990,000 written + 9,000 filtered + 1,000" in shown
    )


def test_unbalanced_run_says_what_and_where() -> None:
    """A run that does not balance says so, by how many rows, and which step differs."""
    steps = {"Parse": {"in": 1_000_000, "out": 998_988, "filtered": 0, "rejected": 1_000}}
    ledger = {**LEDGER, "balanced": False, "steps": steps, "written": {"events": {"parquet:out": 989_988}}}
    html = page(full(), ledger)
    assert "Not balanced. 12 rows read are not accounted for" in text(html)
    assert "Parse 1,000,000 998,988 0 1,000 -12" in text(html)
    assert 'class="state bad"' in html


def test_every_ledger_key_may_be_missing() -> None:
    """A page is made from a ledger without any one of its keys, and from an empty one."""
    for key in LEDGER:
        assert "Logs" in page(full(), {name: value for name, value in LEDGER.items() if name != key})
    shown = text(page(full(), {}))
    assert "Balance not known" in shown
    assert "Dead letters 1,000" in shown
    assert "Rows read" not in shown


@pytest.mark.parametrize("tables", [empty(), ReportTables(**{k: v.clear() for k, v in vars(full()).items()})])
def test_empty_tables_make_a_sensible_page(tables: ReportTables) -> None:
    """Tables without rows, with or without columns, are said in words; nothing is drawn."""
    html = page(tables, {"read": 0, "rejected": 0, "balanced": True})
    for words in ("No anomalies found", "No row was rejected", "nothing to draw", "Nothing was written"):
        assert words in text(html)
    assert "<figure" not in html
    assert "Top sources" not in html


def test_sections_follow_the_data() -> None:
    """Statuses, quantiles, severities and top sources appear only where there is data for them."""
    tables = full()
    ids = {'id="statuses"', 'id="quantiles-0"', 'id="severities"', 'id="sources"', 'id="throughput"'}
    assert {one for one in ids if one in page(tables)} == ids
    assert 'id="statuses"' not in page(replace(tables, throughput=throughput([1])))
    assert 'id="statuses"' not in page(
        replace(
            tables, throughput=tables.throughput.with_columns(pl.lit(None, pl.Int64).alias("http.response.status_code"))
        )
    )
    assert 'id="severities"' not in page(replace(tables, throughput=throughput([1, 2], severity=None)))
    assert 'id="quantiles-0"' not in page(replace(tables, quantiles=tables.quantiles.select("window_start")))
    assert 'id="sources"' not in page(replace(tables, top_sources=tables.top_sources.clear()))


def test_quantiles_alone_are_drawn() -> None:
    """Without any throughput the quantiles still have their time axis."""
    html = page(replace(empty(), quantiles=full().quantiles))
    assert data(html)["axis"]["bins"] == 60
    assert 'id="throughput"' not in html


def test_output_and_steps_are_listed() -> None:
    """Each sink is listed with its rows, and each step with its own."""
    shown = text(page(full()))
    assert "events redis://host/0 990,000" in shown
    assert "Filter 999,000 990,000 9,000 0" in shown


def test_top_sources_are_sorted_and_cut() -> None:
    """The sources with most events come first; those not shown are counted."""
    top = pl.DataFrame({"host.name": [f"host-{n:03}" for n in range(100)], "count": list(range(100))})
    shown = text(page(replace(full(), top_sources=top)))
    assert shown.index("host-099") < shown.index("host-098") < shown.index("host-080")
    assert "host-079" not in shown
    assert f"and 80 more with {sum(range(80)):,} events together" in shown


def test_dead_letter_payload_is_cut_and_printable() -> None:
    """A payload is shown up to 300 characters, control characters made visible, with its place in the input."""
    html = page(replace(full(), dead_letters=letters("\x16\x00\u202e" + "ab" * 1000)))
    assert "\\x16\\x00\\u202eabab" in html
    assert "\x00" not in html
    assert "1,703 more characters" in text(html)
    assert "ab" * 160 not in html
    assert "logs/a.log:4711" in text(html)


def test_binary_payload_is_shown() -> None:
    """A payload of bytes that are not UTF-8 is shown with its bad bytes spelt out."""
    assert "\\xffbad" in text(page(replace(full(), dead_letters=letters(b"\xffbad"))))


def test_dead_letter_counts_are_exact_where_known() -> None:
    """Counts come from the exact table, added up by step and rule; a rule that only the sample has says so."""
    rejected = pl.DataFrame({"step": ["Validate", "Validate"], "rule": ["range", "range"], "count": [5, 7]})
    shown = text(page(replace(full(), rejected=rejected, dead_letters=pl.concat([letters("x")] * 9))))
    assert "Validate range 12 rows The sample has no row of this rule" in shown
    assert "Parse combined at least 9 rows" in shown
    assert "5 of 9 shown" in shown


def test_different_messages_are_sampled_first() -> None:
    """A frequent message does not crowd the other ones out of the samples."""
    sample = pl.concat([letters("x", "frequent")] * 50 + [letters("y", "rare")])
    assert "rare" in text(page(replace(full(), dead_letters=sample)))


def test_rebinning_keeps_totals() -> None:
    """A range of more windows than fit is added up into wider bins without losing an event."""
    counts = [number % 97 for number in range(30 * 1440)]
    shown = data(page(replace(full(), throughput=throughput(counts))))
    values = shown["charts"][0]["series"][0]["values"]
    assert shown["axis"] == {"start": START.replace(tzinfo=UTC).timestamp() * 1000, "step": 30 * 60_000, "bins": 1440}
    assert values == [sum(counts[first : first + 30]) for first in range(0, len(counts), 30)]


def test_rebinning_takes_the_greatest_quantile() -> None:
    """Where windows fall into one bin the greatest quantile is drawn."""
    times = [START + MINUTE * number for number in range(4000)]
    quantiles = pl.DataFrame({"window_start": times, "size.p99": [float(number) for number in range(4000)]})
    axis = time_axis(pl.DataFrame(), quantiles)
    assert axis
    assert (axis.step, axis.bins) == (120_000_000, 2000)
    assert quantile_charts(quantiles, axis)[0].series[0].values == [float(number) for number in range(1, 4000, 2)]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 400_000), st.integers(1, 1000), min_size=1, max_size=40),
    st.sampled_from([1, 7, 60, 300, 86_400]),
)
def test_no_event_is_lost_on_the_axis(windows: dict[int, int], seconds: int) -> None:
    """At any width and spread of windows, events drawn and events said not to be drawn are all events."""
    table = pl.DataFrame(
        {"window_start": [START + timedelta(seconds=seconds * n) for n in windows], "count": list(windows.values())}
    )
    axis = time_axis(table, pl.DataFrame())
    assert axis
    assert axis.bins <= MAX_BINS
    assert axis.step % (seconds * 1_000_000) == 0 or len(windows) == 1
    drawn = throughput_chart(table, axis).series[0].values
    assert sum(value or 0 for value in drawn) + axis.outside == sum(windows.values())


def test_a_wrong_clock_does_not_squeeze_the_chart() -> None:
    """A few events of 1970 are named, not drawn, and the others keep their minutes."""
    table = pl.concat([throughput([3], start=datetime(1970, 1, 1)), throughput([10_000] * 60)])
    html = page(replace(full(), throughput=table))
    assert data(html)["axis"]["bins"] == 60
    assert "Not drawn: 3 events with a time far from all others" in text(html)


def test_times_beyond_the_calendar_are_shown() -> None:
    """Milliseconds read as seconds give years of five digits: the page is still made."""
    far = pl.Series([55_000 * 31_557_600 * 1_000_000]).cast(pl.Datetime("us"))
    late = alerts([(1, "api", "count", 7.0, True)]).with_columns(far.alias("window_start"))
    table = throughput([5]).with_columns(far.alias("window_start"))
    assert "9999" in text(page(replace(full(), throughput=table, alerts=late)))


def test_severities_are_merged_by_level() -> None:
    """Other systems' severity names count towards OpenTelemetry's levels, the worst at the bottom of the stack."""
    names = ["err", "CRITICAL", "Warning", "notice", "INFO", "EMERG", "Debug", "TRACE2", "banana", None]
    table = pl.concat([throughput([1], severity=name) for name in names])
    axis = time_axis(table, pl.DataFrame())
    assert axis
    chart = severity_chart(table, axis)
    assert chart
    assert [(one.name, one.values) for one in chart.series] == [
        ("FATAL", [1]), ("ERROR", [2]), ("WARN", [1]), ("INFO", [2]), ("DEBUG", [1]), ("TRACE", [1]), ("OTHER", [2]),
    ]  # fmt: skip


def test_quantile_gaps_and_not_a_number_are_null() -> None:
    """A window without a quantile, or with an infinite one, is a gap in the line."""
    quantiles = pl.DataFrame(
        {"window_start": [START, START + MINUTE, START + 3 * MINUTE], "size.p50": [1.0, float("nan"), float("inf")]}
    )
    html = page(replace(empty(), quantiles=quantiles))
    assert data(html)["charts"][0]["series"][0]["values"] == [1.0, None, None, None]


def test_findings_merge_neighbouring_windows() -> None:
    """Adjacent anomalous windows of one series and measure are one finding, told by its highest score."""
    found = findings(
        alerts(
            [
                (3, "api", "count", 6.0, True),
                (1, "api", "count", 5.0, True),
                (2, "api", "count", 8.0, True),
                (2, "web", "count", 4.0, True),
                (3, "api", "size", 3.5, True),
                (4, "api", "count", 2.0, False),
                (5, "api", "count", 3.2, True),
            ]
        )
    )
    assert found.select("service.name", "measure", "windows", "score", "reason").rows() == [
        ("api", "count", 3, 8.0, "high 8.0"),
        ("web", "count", 1, 4.0, "high 4.0"),
        ("api", "size", 1, 3.5, "high 3.5"),
        ("api", "count", 1, 3.2, "high 3.2"),
    ]
    assert found.row(0)[:2] == (START + MINUTE, START + 4 * MINUTE)


def test_findings_know_the_window_they_are_told() -> None:
    """Two anomalies an hour apart are one finding in hourly windows and two in windows of a minute."""
    rows = alerts([(0, "api", "count", 5.0, True), (60, "api", "count", 4.0, True)])
    assert len(findings(rows, timedelta(hours=1))) == 1
    assert len(findings(rows, MINUTE)) == 2


def test_findings_accept_null_series_and_scores() -> None:
    """A series without a name is a series; a score that is not a number is never the peak."""
    rows = alerts([(0, "api", "count", float("nan"), True), (1, "api", "count", 4.0, True)])
    rows = pl.concat([rows, rows.with_columns(pl.lit(None, pl.String).alias("service.name"))])
    assert findings(rows, MINUTE).select("service.name", "windows", "score").rows() == [(None, 2, 4.0), ("api", 2, 4.0)]
    assert "count" in page(replace(full(), alerts=rows))


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 30), st.sampled_from(["a", "b"]))))
def test_findings_equal_a_plain_scan(anomalous: set[tuple[int, str]]) -> None:
    """For any set of anomalous windows, findings are the runs that a loop over each series finds."""

    def runs() -> Iterator[tuple[str, int, int]]:
        for minute, service in anomalous:
            if (minute - 1, service) not in anomalous:
                length = 1
                while (minute + length, service) in anomalous:
                    length += 1
                yield service, minute, length

    found = findings(alerts([(minute, service, "count", 5.0, True) for minute, service in sorted(anomalous)]), MINUTE)
    rows = found.select("service.name", "start", "windows").rows() if anomalous else []
    assert sorted(rows) == sorted((service, START + MINUTE * minute, length) for service, minute, length in runs())


def test_only_the_highest_findings_are_shown() -> None:
    """Fifty findings are listed, highest score first, and the page says how many there are."""
    html = page(replace(full(), alerts=alerts([(2 * n, "api", "count", 10.0 + n, True) for n in range(60)])))
    assert html.count('<li id="finding-') == 50
    assert "60 findings" in text(html)
    assert "The 50 highest are shown" in text(html)
    assert text(html).index("high 69.0") < text(html).index("high 68.0")


def test_anomalies_are_marked_on_the_charts() -> None:
    """A finding's place on the axis, from its first window to the end of its last, goes to the charts."""
    assert data(page(full()))["marks"] == [{"number": 1, "label": "api count", "from": 50, "to": 52}]


def test_page_stays_small() -> None:
    """A month of minutes with everything in it is below half a megabyte."""
    size = 30 * 1440
    times = [START + MINUTE * number for number in range(size)]
    quantiles = pl.DataFrame(
        {"window_start": times} | {f"m{m}.p{q}": [1.234567 * m * q] * size for m in (1, 2) for q in (50, 99)}
    )
    assert len(page(replace(full(), throughput=throughput([12_345] * size), quantiles=quantiles))) < 500_000


def test_import_does_not_load_the_template_engine() -> None:
    """Importing the package leaves Jinja out, so that start-up stays quick."""
    code = "import sys, fabric_beam.report; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


def test_page_works_in_a_browser(tmp_path: Path) -> None:
    """A browser draws every chart, shows values, zooms, hides a series, and runs and loads nothing of the data."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs the chromium browser")
    file = tmp_path / "report.html"
    tables = evil_tables()
    several = pl.concat([throughput([10] * 60), throughput([2] * 60, severity="ERROR")])
    file.write_text(page(replace(tables, throughput=several), EVIL_LEDGER), encoding="utf-8")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1280, "height": 1000})
        wrong: list[str] = []
        loaded: list[str] = []
        tab.on("dialog", lambda dialog: wrong.append(dialog.message))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("request", lambda request: loaded.append(request.url))
        tab.goto(file.as_uri())
        tab.wait_for_selector("#severities svg path")
        assert tab.locator("figure.chart").count() == tab.locator(".plot > svg").count() == 4
        plot = tab.locator("#severities .plot")
        for chart in tab.locator(".plot").all():  # over the anomaly, so that every text of the data is shown
            box = chart.bounding_box()
            assert box
            chart.hover(position={"x": box["width"] * 0.85, "y": box["height"] / 2})
            assert EVIL in chart.locator(".tip").inner_text()
        plot.hover()
        assert re.search(r"INFO\s+10\s+ERROR\s+2\s+all\s+12", plot.locator(".tip").inner_text())
        tab.click("#severities button >> text=INFO")
        plot.focus()
        tab.keyboard.press("ArrowRight")
        assert "INFO" not in plot.locator(".tip").inner_text()
        tab.click("a.number")
        assert tab.locator("#reset").is_visible()
        tab.click("#reset")
        assert not tab.locator("#reset").is_visible()
        tab.set_viewport_size({"width": 375, "height": 700})
        assert tab.evaluate("document.documentElement.scrollWidth") == 375
        browser.close()
    assert wrong == []
    assert loaded == [file.as_uri()]
