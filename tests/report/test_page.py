"""The report: one HTML file that shows a run, whatever the data holds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from fabric_beam.report import ReportTables
from tests.report.tables import (
    EVIL,
    EVIL_LEDGER,
    LEDGER,
    MINUTE,
    START,
    Elements,
    data,
    empty,
    evil_tables,
    full,
    letters,
    page,
    text,
    throughput,
)


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
    """Each sink is listed with its rows, and each step that takes rows with its own."""
    steps = {**LEDGER["steps"], "Read from": {"read": 1_000_000}, "Write to": {"written": 990_000}}
    shown = text(page(full(), {**LEDGER, "steps": steps}))
    assert "Read from" not in shown
    assert "Write to" not in shown
    assert "events redis://host/0 990,000" in shown
    assert "Filter 999,000 990,000 9,000 0" in shown


def test_top_sources_are_sorted_and_cut() -> None:
    """The sources with most events come first; those not shown are counted."""
    top = pl.DataFrame({"host.name": [f"host-{n:03}" for n in range(100)], "count": list(range(100)), "error": 0})
    shown = text(page(replace(full(), top_sources=top)))
    assert shown.index("host-099") < shown.index("host-098") < shown.index("host-080")
    assert "host-079" not in shown
    assert f"and 80 more with {sum(range(80)):,} events together" in shown
    many = full().throughput.with_columns(count=pl.lit(1_000_000))
    shown = text(page(replace(full(), top_sources=top.with_columns(error=1234), throughput=many)))
    assert "host-099 99 0.0 %" in shown, "a share is of all events, not of those that are counted"
    assert "up to 1,234 events more" in shown
    assert "more with" not in shown


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
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


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
