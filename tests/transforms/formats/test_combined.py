"""Access logs: the fast way and the regular expression give what a plain-Python reader gives."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.testing import check_transform
from transforms.formats.combined import AccessLog
from transforms.parse import Parse

LINE = '83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a?b=1 HTTP/1.1" 200 203023 "http://x.org/" "Mozilla/5.0"'
QUOTED = r'"((?:[^"\\]|\\.)*)"'
REFERENCE = re.compile(
    r"(\S+) (\S+) (?>(.+?) \[([0-9]{2}/[A-Z][a-z]{2}/[12][0-9]{3}(?::[0-9]{2}){3} [+-][0-9]{4})\] (?=\"))"
    rf"{QUOTED} ([0-9]{{3}}) ([0-9]+|-) {QUOTED} {QUOTED}[ \t\r\f\v\n]*"
)
REQUEST = re.compile(r"([A-Za-z]{3,16}) (.*) HTTP/([0-9]\.[0-9])")


def reference(line: str) -> dict[str, Any] | None:
    """What a line says, by Python's `re` and `datetime`; None where it does not fit."""
    match = REFERENCE.fullmatch(line)
    if match is None:
        return None
    try:
        timestamp = datetime.strptime(match[4], "%d/%b/%Y:%H:%M:%S %z").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    request = REQUEST.fullmatch(match[5])
    fields = {
        "timestamp": timestamp,
        "client.address": match[1],
        "user.name": match[3],
        "http.request.method": request[1] if request else None,
        "url.original": request[2] if request else match[5],
        "network.protocol.version": request[3] if request else None,
        "http.response.status_code": int(match[6]),
        "http.response.body.size": int(match[7]) if match[7] != "-" else None,
        "http.request.header.referer": match[8],
        "user_agent.original": match[9],
    }
    return {name: None if value == "-" else value for name, value in fields.items()}


TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters='"\\\n\r', exclude_categories=("Cc", "Zl", "Zp")), max_size=40
)
SPACELESS = st.text(st.sampled_from("0123456789abcdef.:-é"), min_size=1, max_size=45)
ESCAPED = st.one_of(TEXT, TEXT.map(lambda text: text + '\\"x'), st.just("-"), st.just(""))
TIMES = st.builds(
    lambda when, zone: when.strftime("%d/%b/%Y:%H:%M:%S ") + zone,
    st.datetimes(datetime(1900, 1, 2), datetime(2200, 1, 1)),
    st.sampled_from(["+0000", "-0730", "+1400"]),
)
REQUESTS = st.one_of(
    st.builds(
        "{} {} HTTP/{}".format,
        st.sampled_from(["GET", "POST", "PROPFIND", "DELETE", "get"]),
        TEXT,
        st.sampled_from(["1.0", "1.1", "2.0"]),
    ),
    ESCAPED,
)
SIZES = st.one_of(st.integers(0, 10**12).map(str), st.just("-"))
GOOD = st.builds(
    '{} {} {} [{}] "{}" {} {} "{}" "{}"'.format,
    SPACELESS, st.sampled_from(["-", "ident"]), st.sampled_from(["-", "ann", "ann b"]), TIMES,
    REQUESTS, st.integers(100, 599), SIZES, ESCAPED, ESCAPED,
)  # fmt: skip


@st.composite
def spoiled(draw: st.DrawFn) -> str:
    """A good line with a piece cut out, doubled or replaced."""
    line = draw(GOOD)
    at = draw(st.integers(0, len(line)))
    until = draw(st.integers(at, min(len(line), at + 6)))
    return line[:at] + draw(st.sampled_from(["", '"', " ", "-", "x", "\\", "]"])) + line[until:]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.just(LINE), GOOD, spoiled(), TEXT), min_size=1, max_size=12))
def test_lines_are_read_as_the_reference_reads_them(lines: list[str]) -> None:
    """Good, odd and broken lines, in any mix and order, give the reference's fields or are rejected."""
    table = pl.DataFrame({"body": lines, "offset": list(range(len(lines)))})
    result = AccessLog()(table)
    expected = [reference(line) for line in lines]
    assert [n for n, fields in enumerate(expected) if fields is not None] == result.kept["offset"].to_list()
    assert [fields for fields in expected if fields is not None] == result.kept.drop(
        "log.record.original", "offset"
    ).to_dicts()
    assert [n for n, fields in enumerate(expected) if fields is None] == result.rejected["offset"].to_list()
    assert [lines[n] for n in result.kept["offset"]] == result.kept["log.record.original"].to_list()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the line is empty"),
        ("hello", "no time stamp of the form"),
        (LINE.rpartition('"')[0], "5 quotes where the combined format has 6"),
        (LINE.replace("200 203023", "OK"), "no status and size"),
        (LINE.replace("17/May", "32/May"), "does not have the fields"),
    ],
)
def test_a_rejected_line_says_why(line: str, message: str) -> None:
    """The message names what is wrong with the line."""
    rejected = AccessLog()(pl.DataFrame({"body": [LINE, line]})).rejected
    assert [line] == rejected["body"].to_list()
    assert message in rejected["rejected.message"][0]


@pytest.mark.parametrize("format", ["common", "combined"])
def test_both_formats_keep_the_rules_of_transforms(format: Literal["common", "combined"]) -> None:
    """Schema known before the run, rows independent of batches, none lost."""
    line = LINE if format == "combined" else LINE.partition(' "http')[0]
    check_transform(lambda: Parse(format), pl.DataFrame({"body": [line, "no", line.replace(" - -", " - ann"), ""]}))


@pytest.mark.real_data
def test_a_real_log_is_read_but_for_its_malformed_line(real_data: Path) -> None:
    """10,000 lines of a real site: one is cut off, the others are read as the reference reads them."""
    lines = (real_data / "web" / "apache_combined.log").read_text().splitlines()
    result = AccessLog()(pl.DataFrame({"body": lines}))
    expected = [reference(line) for line in lines]
    assert [fields for fields in expected if fields] == result.kept.drop("log.record.original").to_dicts()
    assert result.rejected.height == 1
