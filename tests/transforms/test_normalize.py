"""Normalize: times, severities, names and types of OpenTelemetry, from what other systems write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_beam.errors import SchemaError, UsageError
from fabric_beam.kernel import Split
from fabric_beam.testing import batch, collect_with_dead_letters
from fabric_beam.testing.checks import check_transform
from transforms.formats.combined import AccessLog
from transforms.normalize import _NAMES, _NAMES_OF_HTTP, Normalize, NormalizeKernel, _key

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def normalize(table: pl.DataFrame, mapping: dict[str, str] | None = None, **options: Any) -> pl.DataFrame:
    """The rows of a table, none of which may be rejected."""
    result = NormalizeKernel(table.schema, mapping, **options)(table)
    assert isinstance(result, pl.DataFrame), result.rejected.select("rejected.rule", "rejected.message").rows()
    return result


def split(table: pl.DataFrame, mapping: dict[str, str] | None = None) -> Split:
    """The rows of a table, some of which must be rejected."""
    result = NormalizeKernel(table.schema, mapping)(table)
    assert isinstance(result, Split)
    return result


def events(**columns: Any) -> pl.DataFrame:
    """Events with a time."""
    table = batch(**columns)
    return table.with_columns(pl.lit(AT).dt.cast_time_unit("us").alias("timestamp")).select("timestamp", *table.columns)


# What appendix B of the logs data model says, and how else loggers spell it.
LEVELS = {
    1: ["TRACE", "trace", "FINEST", "Trace", "trc"],
    2: ["TRACE2"],
    5: ["DEBUG", "Debug", "FINER", "VERBOSE", "dbg", "D", "7", "20"],
    6: ["FINE", "DEBUG2"],
    7: ["CONFIG"],
    9: ["INFO", "info", "Information", "informational", "INF", "I", "6", "30", " INFO "],
    10: ["NOTICE", "notice", "INFO2"],
    13: ["WARN", "WARNING", "warning", "W", "4", "40", "[warn]"],
    16: ["WARN4"],
    17: ["ERROR", "err", "SEVERE", "E", "3", "50", "<Error>", "error:"],
    18: ["crit", "DPANIC", "2"],
    19: ["alert", "PANIC"],
    21: ["FATAL", "CRITICAL", "Critical", "emerg", "EMERGENCY", "F", "0", "60"],
    24: ["FATAL4"],
    0: ["OK", "unknown", "17"],
}
NUMBERS = {text: number for number, texts in LEVELS.items() for text in texts}


@pytest.mark.parametrize(("number", "texts"), LEVELS.items())
def test_levels_of_every_usual_logger_have_their_number(number: int, texts: list[str]) -> None:
    """A level in any spelling gets OpenTelemetry's number and keeps its own text; one that nobody knows gets 0."""
    table = normalize(events(level=texts))
    assert table["severity_number"].to_list() == [number] * len(texts)
    assert table["severity_text"].to_list() == texts


def severity(number: int | None, text: str | None, status: int | None) -> tuple[int, str | None]:
    """The severity of one event, by the rules."""
    said = text is not None and text.strip() not in ("", "-")
    if number:
        return number, text if said else None
    if said:
        return NUMBERS.get(text or "", 0), text
    if status is None:
        return 0, None
    return {4: (13, "WARN"), 5: (17, "ERROR")}.get(status // 100, (9, "INFO"))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(0, 24),
            st.none() | st.sampled_from([*NUMBERS, "", "-", " "]) | st.text("xyz", min_size=1),
            st.none() | st.integers(0, 999),
        )
    ),
    st.sets(st.sampled_from(["severity_number", "severity_text", "http.response.status_code"])),
)
def test_severity_is_the_number_the_level_or_the_status(
    rows: list[tuple[int | None, str | None, int | None]], present: set[str]
) -> None:
    """Each row's severity is that of its number, else of its level, else of its status, else unspecified."""
    types = {"severity_number": pl.Int64, "severity_text": pl.String, "http.response.status_code": pl.Int32}
    table = pl.DataFrame(rows, schema=types, orient="row").select(name for name in types if name in present)
    found = normalize(pl.DataFrame({"timestamp": pl.repeat(AT, len(rows), eager=True)}).hstack(table.get_columns()))
    expected = [
        severity(*(value if name in present else None for name, value in zip(types, row, strict=True)))  # type: ignore[arg-type]
        for row in rows
    ]
    assert found.select("severity_number", "severity_text").rows() == expected


NAMES = [
    *((name, "body") for name in ("message", "msg", "log", "MESSAGE")),
    *((name, "host.name") for name in ("host", "hostname", "_HOSTNAME")),
    *((name, "service.name") for name in ("service", "app", "appName", "SYSLOG_IDENTIFIER")),
    *((name, "severity_text") for name in ("level", "Level", "log.level", "loglevel", "lvl", "severity", "levelname")),
    *((name, "http.request.method") for name in ("method", "request_method", "http.method")),
    *((name, "url.original") for name in ("url", "uri", "request_uri", "http.target")),
    *((name, "client.address") for name in ("remote_addr", "clientip", "client_ip", "source.ip")),
    *((name, "user_agent.original") for name in ("user_agent", "agent", "http_user_agent")),
    ("path", "url.path"),
    ("referrer", "http.request.header.referer"),
    ("traceId", "trace_id"),
    ("span.id", "span_id"),
    ("thread", "thread.name"),
    ("logger", "otel.scope.name"),
]


@pytest.mark.parametrize(("name", "convention"), NAMES)
def test_other_names_become_the_convention(name: str, convention: str) -> None:
    """A column with another system's name is renamed, whatever its capitals and hyphens."""
    table = normalize(events(**{name: ["x"]}))
    assert table[convention].to_list() == ["x"]
    assert name not in table.columns


def test_a_column_that_is_there_is_never_overwritten() -> None:
    """With the convention's own column there, or a likelier one, the other stays as it is."""
    table = normalize(events(msg=["a"], message=["b"], host=["c"], host__name=["d"]))
    assert table.select("body", "msg", "host.name", "host").row(0) == ("b", "a", "d", "c")


def test_a_nested_column_is_left_alone() -> None:
    """An object or list that has a usual name is not what the name means, and stays."""
    table = events(agent=[{"type": "filebeat"}], host=[["a", "b"]], body=[{"text": "x"}])
    assert normalize(table).select(table.columns).equals(table)


def test_numbers_have_the_conventions_types() -> None:
    """Status, size, process and thread become integers, from text too; a dash or nothing is null."""
    table = events(
        **{
            "status_code": ["503", " 200 ", None],
            "bytes": ["12", "-", ""],
            "pid": [1.0, 2.0, None],
            "thread_id": ["7"] * 3,
        }
    )
    table = normalize(table).select("http.response.status_code", "http.response.body.size", "process.pid", "thread.id")
    assert table.rows() == [(503, 12, 1, 7), (200, None, 2, 7), (None, None, None, 7)]
    assert table.dtypes == [pl.Int32, pl.Int64, pl.Int64, pl.Int64]


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("duration", 2, 2.0),
        ("latency", "0.25", 0.25),
        ("latency_ms", 250, 0.25),
        ("durationMs", "250", 0.25),
        ("elapsed_us", 250, 0.00025),
        ("duration_ns", 250_000, 0.00025),
    ],
)
def test_durations_become_seconds(name: str, value: Any, seconds: float) -> None:
    """A request's duration is in seconds, by the unit that its name ends with."""
    table = normalize(events(**{"method": ["GET"], name: [value]}))
    assert table["http.server.request.duration"].to_list() == pytest.approx([seconds])
    assert name not in table.columns


def test_no_name_stands_for_two_things() -> None:
    """Each usual name has one meaning, and is written as names are looked up."""
    names = [key for keys in [*(keys.split() for keys in _NAMES.values()), *_NAMES_OF_HTTP.values()] for key in keys]
    assert len(names) == len(set(names))
    assert names == [_key(name) for name in names]


def test_what_is_no_request_keeps_its_own_size_and_status() -> None:
    """Without a method, URL, status or user agent, `size`, `status` and durations are not HTTP's."""
    table = normalize(events(status=["done"], size=["3 kB"], duration_ms=[12]))
    assert table.select("status", "size", "duration_ms").row(0) == ("done", "3 kB", 12)
    assert normalize(events(status=[404]))["severity_number"].to_list() == [13]


def test_a_value_of_the_wrong_type_is_rejected() -> None:
    """A row with a value that cannot become its column's type goes out whole, with the name it came under."""
    table = events(status_code=["200", "abc", "503"], pid=[1.0, 2.0, 2.5], severity_number=[9, 9, 9])
    result = split(table)
    assert result.kept["http.response.status_code"].to_list() == [200]
    assert result.rejected.drop("rejected.rule", "rejected.message").equals(table[1:])
    assert result.rejected.select("rejected.rule", "rejected.message").rows() == [
        ("type", "status_code: 'abc' is not a whole number"),
        ("type", "pid: '2.5' is not a whole number"),
    ]
    beyond = split(events(severityNumber=[25, 24]))
    assert beyond.rejected["rejected.message"].to_list() == ["severityNumber: '25' is not a whole number from 0 to 24"]


@pytest.mark.parametrize("name", ["timestamp", "time", "@timestamp", "ts", "eventTime", "date", "time_iso8601"])
def test_the_time_is_found_by_its_usual_names(name: str) -> None:
    """Text in a column of a usual name becomes `timestamp`."""
    table = normalize(pl.DataFrame({name: ["2026-01-02T03:04:05Z"]}))
    assert table["timestamp"].to_list() == [AT]
    assert table.columns == ["timestamp", "severity_number", "severity_text", "service.name"]


def test_times_are_numbers_or_without_a_zone_too() -> None:
    """Epoch seconds are read by their size; a time without a zone is in the zone that is given."""
    assert normalize(pl.DataFrame({"ts": [AT.timestamp()]}))["timestamp"].to_list() == [AT]
    local = normalize(pl.DataFrame({"time": ["2026-01-02 04:04:05"]}), zone="Europe/Berlin")
    assert local["timestamp"].to_list() == [AT]


def test_an_observed_time_stands_in_for_a_missing_one() -> None:
    """Where the event has no time of its own, it is the time at which it was seen."""
    seen = pl.Series("observed_timestamp", [AT, AT, None])
    table = normalize(pl.DataFrame([pl.Series("time", ["2026-01-01T00:00:00Z", None, "2026-01-01T00:00:00Z"]), seen]))
    assert table["timestamp"].dt.day().to_list() == [1, 2, 1]
    assert table.columns[:3] == ["timestamp", "observed_timestamp", "severity_number"]
    assert normalize(pl.DataFrame([seen[:1]]))["timestamp"].to_list() == [AT]


def test_a_row_without_a_time_is_rejected() -> None:
    """A time that is none, and none at all, are rejected by the rule `timestamp`; the other rows keep their order."""
    table = pl.DataFrame({"ts": ["2026-01-02T03:04:05Z", "soon", None, "1767323045"], "n": [1, 2, 3, 4]})
    result = split(table)
    assert result.kept["n"].to_list() == [1, 4]
    assert result.rejected.select("ts", "n", "rejected.rule", "rejected.message").rows() == [
        ("soon", 2, "timestamp", "ts: 'soon' is not a time in any known form"),
        (None, 3, "timestamp", "the event has no time"),
    ]


def test_columns_come_in_a_fixed_order() -> None:
    """The data model's own columns come first, the others follow as they came."""
    table = events(zone=["z"], msg=["m"], host=["h"], app=["a"], level=["info"], status=[200])
    first = ["timestamp", "severity_number", "severity_text", "service.name", "host.name", "body"]
    assert normalize(table.select(reversed(table.columns))).columns == [*first, "http.response.status_code", "zone"]


def test_a_service_is_named_where_the_event_names_none() -> None:
    """The given service fills nulls and a missing column; without it the column is there, null."""
    assert normalize(events(app=["a", None]), service="web")["service.name"].to_list() == ["a", "web"]
    assert normalize(events(n=[1]), service="web")["service.name"].to_list() == ["web"]
    assert normalize(events(n=[1]))["service.name"].to_list() == [None]
    assert normalize(events(n=[1])).schema["service.name"] == pl.String


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("ab/", max_size=8), st.none() | st.integers(-(10**6), 10**6))))
def test_mapped_columns_are_what_the_expressions_say(rows: list[tuple[str, int | None]]) -> None:
    """A mapping adds columns row by row, and replaces a column of its name; the columns it reads stay."""
    table = pl.DataFrame(rows, schema={"source": pl.String, "http.response.body.size": pl.Int64}, orient="row")
    table = table.with_columns(pl.lit(AT).dt.cast_time_unit("us").alias("timestamp"))
    mapping = {"service.name": "split_part(source, '/', 2)", "http.response.body.size": "http.response.body.size * 2"}
    found = normalize(table, mapping)
    parts = [[*source.split("/"), ""][1] for source, _ in rows]
    assert [name or "" for name in found["service.name"]] == parts
    assert found["http.response.body.size"].to_list() == [None if size is None else size * 2 for _, size in rows]
    assert found["source"].to_list() == [source for source, _ in rows]


def test_a_mapped_column_is_normalised_too() -> None:
    """A mapping may make the time, and what it names wins over the usual names."""
    table = pl.DataFrame({"day": ["2026-01-02"], "clock": ["03:04:05"], "level": ["error"], "grade": ["warn"]})
    found = normalize(table, {"timestamp": "day || ' ' || clock", "severity_text": "grade"})
    assert found.select("timestamp", "severity_number", "level").row(0) == (AT, 13, "error")


def test_a_row_on_which_a_mapping_fails_is_rejected() -> None:
    """A conversion that fails on one row costs that row alone."""
    result = split(events(code=["200", "x", "503"]), {"http.response.status_code": "CAST(code AS INTEGER)"})
    assert result.kept["severity_number"].to_list() == [9, 17]
    assert result.rejected.select("code", "rejected.rule").rows() == [("x", "expression")]


def test_what_does_not_fit_is_refused_before_the_run() -> None:
    """No time, an impossible type, a wrong expression or zone are errors that name what is wrong."""
    for table, mapping, message in (
        (batch(body=["x"]), None, "no column holds the time"),
        (events(http__response__status_code=[[200]]), None, "'http.response.status_code' is List"),
        (batch(timestamp=[[1]]), None, "not a time"),
        (events(body=["x"]), {"service.name": "bdy"}, "Did you mean 'body'"),
    ):
        with pytest.raises(UsageError, match=message):
            NormalizeKernel(table.schema, mapping)(table.clear())
    with pytest.raises(SchemaError, match="no column holds the time"):
        Normalize().bind(batch(body=["x"]).schema)
    with pytest.raises(UsageError, match="Europe/Berlin"):
        Normalize(zone="Europe/Berln")


def test_no_rows_give_the_same_columns() -> None:
    """The output schema does not depend on the rows."""
    table = events(level=["info"], status=["200"], bytes=["1"], method=["GET"], latency_ms=[1], app=[None])
    for columns in (table, table.drop("level"), table.select("timestamp")):
        kernel = NormalizeKernel(columns.schema)
        assert kernel(columns.clear()).schema == normalize(columns).schema  # type: ignore[union-attr]


def test_access_logs_become_events() -> None:
    """Parsed access-log lines keep their columns and gain a severity."""
    line = '::1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 503 12 "-" "curl/8.0"'
    parsed = AccessLog()(pl.DataFrame({"body": [line], "source": ["a.log"], "offset": [0]})).kept
    table = normalize(parsed, service="web")
    assert table.select("severity_number", "severity_text", "service.name").row(0) == (17, "ERROR", "web")
    assert set(table.columns) == {*parsed.columns, "severity_number", "severity_text", "service.name"}


def test_the_transform_keeps_the_rules() -> None:
    """Normalize passes the check of every transform, and its rejected rows reach the dead letters."""
    table = batch(
        time=["2026-01-02T03:04:05Z", "soon", "2026-01-02T03:04:06Z", None],
        level=["info", "warn", None, "x"],
        status=["200", "500", "bad", "404"],
        method=["GET"] * 4,
        source=["a", "b", "c", "d"],
        offset=[0, 1, 2, 3],
    )
    check_transform(lambda: Normalize({"http.route": "upper(source)"}, service="web"), table)
    kept, dead = collect_with_dead_letters(table, Normalize())
    assert kept["offset"].to_list() == [0]
    assert dead.select("rule", "source", "offset").rows() == [
        ("timestamp", "b", 1),
        ("type", "c", 2),
        ("timestamp", "d", 3),
    ]
