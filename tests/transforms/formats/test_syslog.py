"""Syslog: what daemons write, field by field, and nothing lost whatever they write."""

from __future__ import annotations

import pickle
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.formats.syslog_lines import COLUMNS, OBSERVED, check_nothing_is_lost, parse, reason, table
from transforms.formats.syslog import Syslog

DATA = Path(__file__).parents[3] / "../shared/data"
AT = datetime(2015, 3, 7, 13, 6, 56, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (
            "<38>Mar  7 13:06:56 web1 sshd[1291]: Server listening: port 22.",
            {
                "severity_number": 9,
                "severity_text": "info",
                "syslog.facility.code": 4,
                "syslog.severity.code": 6,
                "service.name": "sshd",
                "process.pid": 1291,
                "body": "Server listening: port 22.",
            },
        ),
        ("Mar  7 13:06:56 web1 kernel: [ 12.5] up", {"service.name": "kernel", "body": "[ 12.5] up"}),
        ("Mar 7 13:06:56 web1 kernel: up", {"service.name": "kernel", "body": "up"}),
        (
            "Mar  7 13:06:56 web1 sshd(pam_unix)[19939]: failure",
            {"service.name": "sshd", "process.pid": 19939, "body": "failure"},
        ),
        ("Mar  7 13:06:56 web1 postfix/smtpd[5]: x", {"service.name": "postfix/smtpd", "process.pid": 5, "body": "x"}),
        ("Mar  7 13:06:56 web1 app[main]: x", {"service.name": "app", "body": "x"}),
        ("Mar  7 13:06:56 web1 app[7] x", {"service.name": "app", "process.pid": 7, "body": "x"}),
        ("Mar  7 13:06:56 web1 app:", {"service.name": "app", "body": ""}),
        ("Mar  7 13:06:56 web1 -- MARK --", {"body": "-- MARK --"}),
        ("Mar  7 13:06:56 web1 last message repeated 3 times", {"body": "last message repeated 3 times"}),
        ("Mar  7 13:06:56 web1 10.0.0.1:22 closed", {"body": "10.0.0.1:22 closed"}),
        ("Mar  7 13:06:56 web1  -- root[2421]: login", {"body": " -- root[2421]: login"}),
        ("Mar  7 13:06:56 web1", {"body": ""}),
        ("Mar  7 13:06:56 web1 größe: 5 €", {"body": "größe: 5 €"}),
        ("<13>2015-03-07T14:06:56.000000+01:00 web1 app: x", {"service.name": "app", "body": "x"}),
        ("<13>1 2015-03-07T13:06:56Z web1 app 8 - - x", {"service.name": "app", "process.pid": 8, "body": "x"}),
        ("1 2015-03-07T13:06:56Z web1 - - - -", {"body": ""}),
        (
            '<165>1 2015-03-07T13:06:56.000Z web1 app - ID47 [a@1 k="v\\"]\\\\" e=""][b] \ufeffA "message" [1]',
            {
                "service.name": "app",
                "syslog.msg.id": "ID47",
                "syslog.structured_data": '[a@1 k="v\\"]\\\\" e=""][b]',
                "body": 'A "message" [1]',
            },
        ),
    ],
)
def test_a_line_gives_its_fields(line: str, fields: dict[str, Any]) -> None:
    """Each variant of a line gives the fields that it names and no others."""
    found = parse(line)
    if not line.startswith("<38>"):
        found = {name: value for name, value in found.items() if "severity" not in name and "facility" not in name}
    assert found == {"timestamp": AT, "host.name": "web1", **fields}


def test_a_line_without_a_host_gives_its_tag() -> None:
    """`su:` straight after the time is a tag, not a host."""
    line = "<34>Oct 11 22:14:15 su[7]: 'su root' failed on /dev/pts/8"
    found = parse(line, year=2003)
    assert (found.get("host.name"), found["service.name"], found["process.pid"]) == (None, "su", 7)
    assert found["body"] == "'su root' failed on /dev/pts/8"


@pytest.mark.parametrize(
    ("code", "number", "text"),
    [
        (0, 21, "emerg"),
        (1, 19, "alert"),
        (2, 18, "crit"),
        (3, 17, "err"),
        (4, 13, "warning"),
        (5, 10, "notice"),
        (6, 9, "info"),
        (7, 5, "debug"),
    ],
)
def test_severities_follow_opentelemetry(code: int, number: int, text: str) -> None:
    """A priority splits into facility and severity, numbered as OpenTelemetry maps syslog."""
    found = parse(f"<{23 * 8 + code}>Mar  7 13:06:56 web1 x")
    assert (found["severity_number"], found["severity_text"]) == (number, text)
    assert (found["syslog.facility.code"], found["syslog.severity.code"]) == (23, code)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the line is empty"),
        (" \t", "the line is empty"),
        (None, "the line is empty"),
        ("<192>Mar  7 13:06:56 web1 x", "priority 192 is over 191"),
        ("Feb 30 13:06:56 web1 x", "'Feb 30 13:06:56' is not a time"),
        ("Mar  7 25:06:56 web1 x", "'Mar  7 25:06:56' is not a time"),
        ("<1>1 yesterday web1 - - - - x", "'yesterday' is not a time"),
        ("<1>1 2015-03-07T13:06:56Z web1 - - - [open x", "not RFC 5424"),
        ("java.io.IOException: broken pipe", "begins neither like RFC 3164"),
        ("Mar  7 13:06:56", "begins neither like RFC 3164"),
    ],
)
def test_a_line_that_does_not_fit_says_why(line: str | None, message: str) -> None:
    """A rejected row keeps its columns and says what was wrong."""
    assert reason(line).startswith(message)


VISIBLE = st.characters(min_codepoint=33, max_codepoint=126)
WORD = st.text(VISIBLE, min_size=1, max_size=9)
TAG = st.text("abcXYZ019/_.%", min_size=1, max_size=9)
HOST = WORD.filter(lambda host: not host.endswith(":"))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUE = st.text(max_size=5).map(lambda value: re.sub(r'(["\\\]])', r"\\\1", value))
NAME = st.text("abcXYZ019@", min_size=1, max_size=5)
PARAMETER = st.tuples(NAME, VALUE).map(lambda pair: f' {pair[0]}="{pair[1]}"')
ELEMENT = st.tuples(NAME, st.lists(PARAMETER, max_size=2)).map(lambda parts: f"[{parts[0]}{''.join(parts[1])}]")


@st.composite
def lines_with_fields(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A line, and the fields it was made of."""
    moment = draw(st.datetimes(datetime(2014, 6, 3), datetime(2015, 5, 31))).replace(tzinfo=UTC)
    priority = draw(st.none() | st.integers(0, 191))
    head = "" if priority is None else f"<{priority}>"
    host, text = draw(HOST), draw(TEXT)
    pid = draw(st.none() | st.integers(0, 2**62))
    fields: dict[str, Any] = {"host.name": None if host == "-" else host, "process.pid": pid, "body": text}
    fields |= {"syslog.facility.code": None, "syslog.severity.code": None}
    if priority is not None:
        fields |= {"syslog.facility.code": priority // 8, "syslog.severity.code": priority % 8}
    if draw(st.booleans()):
        tag, message_id = draw(WORD), draw(WORD)
        data = draw(st.just("-") | st.lists(ELEMENT, min_size=1, max_size=2).map("".join))
        fields |= {"service.name": None if tag == "-" else tag, "timestamp": moment}
        fields |= {"syslog.msg.id": None if message_id == "-" else message_id}
        fields |= {"syslog.structured_data": None if data == "-" else data}
        time = moment.isoformat().replace("+00:00", "Z")
        line = f"{head}1 {time} {host} {tag} {'-' if pid is None else pid} {message_id} {data} "
        return line + draw(st.sampled_from(["", "\ufeff"])) + text.lstrip("\ufeff"), fields | {
            "body": text.lstrip("\ufeff")
        }
    tag = draw(TAG)
    fields |= {"service.name": tag, "syslog.msg.id": None, "syslog.structured_data": None}
    number = draw(st.sampled_from(["", "(pam_unix)"])) + ("" if pid is None else f"[{pid}]")
    if draw(st.booleans()):
        return f"{head}{moment.isoformat()} {host} {tag}{number}: {text}", fields | {"timestamp": moment}
    moment = moment.replace(microsecond=0)
    return f"{head}{moment:%b %e %H:%M:%S} {host} {tag}{number}: {text}", fields | {"timestamp": moment}


@settings(deadline=None)
@given(st.lists(lines_with_fields() | TEXT.map(lambda text: (text, None)), max_size=8))
def test_fields_survive_the_round_trip(rows: list[tuple[str, dict[str, Any] | None]]) -> None:
    """Lines made of known fields give those fields back, whatever lines stand between them."""
    given = table([line for line, _ in rows])
    split = Syslog()(given)
    check_nothing_is_lost(given, split)
    kept = {row["offset"]: row for row in split.kept.iter_rows(named=True)}
    for number, (_, fields) in enumerate(rows):
        if fields is not None:
            assert {name: kept[number][name] for name in fields} == fields


def test_a_line_means_the_same_in_any_company() -> None:
    """What stands first in a batch changes speed, never fields."""
    lines: list[str | None] = [
        "Mar  7 13:06:56 web1[5] app: x",
        "Mar  7 13:06:56 app[5]: x",
        "<13>1 2015-03-07T13:06:56Z web1 app 8 - - x",
        "2015-03-07T13:06:56Z web1 app: x",
        "none of these",
    ]
    alone = pl.concat([Syslog()(table([line])).kept.drop("offset") for line in lines])
    for shift in range(len(lines)):
        order = lines[shift:] + lines[:shift]
        kept = Syslog()(table(order)).kept.drop("offset")
        assert kept.sort("log.record.original").equals(alone.sort("log.record.original"), null_equal=True)


def test_hostile_lines_are_kept_or_rejected_whole() -> None:
    """Empty, huge and binary lines neither stop the kernel nor change."""
    head = "Mar  7 13:06:56 h app: "
    lines: list[str | None] = [
        "",
        None,
        "\x00",
        "<",
        "<1>",
        "1 ",
        head + "x" * 1_000_000,
        head + "\x00\x07\u2028é😀\n!",
    ]
    given = table([*lines, "y" * 1_000_000, "<9999999999>Mar  7 13:06:56 h x"])
    split = Syslog()(given)
    check_nothing_is_lost(given, split)
    assert split.kept["body"].to_list() == ["x" * 1_000_000, "\x00\x07\u2028é😀\n!"]


def test_an_empty_table_has_the_schema_of_a_full_one() -> None:
    """What is known before the run is what comes out of it, other columns included."""
    given = table([None]).with_columns(partition=pl.lit(1)).clear()
    split = Syslog()(given)
    assert split.kept.schema == {**COLUMNS, **given.drop("body").schema}
    assert split.rejected.schema == {**given.schema, "rejected.rule": pl.String, "rejected.message": pl.String}


def test_the_kernel_survives_pickling() -> None:
    """The kernel travels to workers."""
    line = table(["Mar  7 13:06:56 h app: x"])
    kernel = pickle.loads(pickle.dumps(Syslog(zone="Europe/Berlin")))
    assert kernel(line).kept.equals(Syslog(zone="Europe/Berlin")(line).kept)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("file", "tagged"),
    [("web/auth.log", 7121), ("loghub/Linux/Linux_2k.log", 1992), ("loghub/OpenSSH/OpenSSH_2k.log", 2000)],
)
def test_real_files_are_read_in_full(file: str, tagged: int) -> None:
    """Every line of real files is kept, with the host, service, process and message that a plain reading gives."""
    lines: list[str | None] = [*(DATA / file).read_text().splitlines()]
    given = table(lines)
    split = Syslog()(given)
    check_nothing_is_lost(given, split)
    assert split.rejected.height == 0
    assert split.kept["service.name"].count() == tagged
    for line, row in zip(lines, split.kept.iter_rows(named=True), strict=True):
        assert line is not None
        moment = datetime.strptime(line[:15] + " 2015", "%b %d %H:%M:%S %Y").replace(tzinfo=UTC)
        expected = moment if moment <= OBSERVED + timedelta(days=1) else moment.replace(year=2014)
        host, _, rest = line[16:].partition(" ")
        assert (row["timestamp"], row["host.name"]) == (expected, host)
        tag, colon, message = (rest + " ").partition(": ")
        if colon and " " not in tag:
            name, _, pid = tag.removesuffix("]").partition("[")
            assert row["service.name"] == name.partition("(")[0]
            assert row["process.pid"] == (int(pid) if pid else None)
            assert row["body"] == message[:-1]
        else:
            assert (row["service.name"], row["body"]) == (None, rest)
