"""Normalize: events in the names, types and severities of OpenTelemetry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import polars as pl

from fabric_beam.errors import SchemaError, nearest
from fabric_beam.expressions import compile_expression, reject_failures
from fabric_beam.kernel import MESSAGE, RULE, Split
from fabric_beam.map_batches import MapBatches
from transforms.formats.timestamps import UTC_MICROSECONDS, parse_timestamps, parse_zone

_TIME, _OBSERVED, _NUMBER, _TEXT = "timestamp", "observed_timestamp", "severity_number", "severity_text"
_SERVICE, _STATUS, _DURATION = "service.name", "http.response.status_code", "http.server.request.duration"
#: The order of the columns that come first.
_FIRST = (_TIME, _OBSERVED, _NUMBER, _TEXT, _SERVICE, "host.name", "body")

#: Other systems' names by what they mean, the likeliest first, as `_key` gives them: of ECS and journald (the logs
#: data model, appendix A), OpenTelemetry's conventions before 1.21, GELF, W3C logs, and what nginx, Logback, log4j,
#: Serilog, zap, pino, structlog and Docker write by default.
_NAMES = {
    _TIME: "@timestamp timestamp time ts datetime date eventtime eventtimestamp logtime timelocal timeiso8601 "
    "timeunixnano realtimetimestamp asctime epoch",
    _OBSERVED: "observedtimestamp observedtimeunixnano ingesttime receivedat",
    _NUMBER: "severitynumber",
    _TEXT: "severitytext severity level lvl loglevel log.level levelname logseverity priority",
    _SERVICE: "service servicename app application appname applicationname syslogidentifier program programname",
    "host.name": "host hostname host.hostname machinename computername",
    "body": "message msg log logmessage textpayload shortmessage",
    "trace_id": "traceid trace.id",
    "span_id": "spanid span.id",
    "otel.scope.name": "logger loggername log.logger",
    "process.pid": "pid processid process.id",
    "thread.name": "thread threadname process.thread.name",
    "thread.id": "threadid tid process.thread.id",
    "http.request.method": "method httpmethod requestmethod http.method verb csmethod",
    _STATUS: "statuscode httpstatus httpstatuscode http.statuscode http.status responsecode responsestatus scstatus",
    "url.path": "path uripath urlpath requestpath csuristem",
    "url.query": "querystring uriquery csuriquery",
    "url.original": "url uri requesturi requesturl http.url http.target",
    "client.address": "remoteaddr clientip remoteip remotehost clientaddr clientaddress cip client.ip source.ip",
    "client.port": "remoteport clientport",
    "user_agent.original": "useragent agent httpuseragent http.useragent",
    "http.request.header.referer": "referer referrer httpreferer httpreferrer",
    "http.response.body.size": "bodybytessent bytessent responsesize http.response.body.bytes "
    "http.responsecontentlength scbytes",
}
#: A duration's name is a word and a unit; without a unit it is in seconds.
_UNITS = {"": 1, "s": 1, "sec": 1, "seconds": 1, "ms": 1e-3, "millis": 1e-3, "milliseconds": 1e-3, "us": 1e-6}
_UNITS |= {"micros": 1e-6, "microseconds": 1e-6, "ns": 1e-9, "nanos": 1e-9, "nanoseconds": 1e-9}
_DURATIONS = {
    word + unit: factor
    for word in ("duration", "latency", "elapsed", "responsetime", "requestduration")
    for unit, factor in _UNITS.items()
}
#: Names that mean this only if the event is an HTTP request, which one of `_HTTP` shows.
_NAMES_OF_HTTP = {
    _STATUS: ["status"],
    "http.response.body.size": ["bytes", "size", "contentlength"],
    _DURATION: list(_DURATIONS),
}
_HTTP = ("http.request.method", _STATUS, "url.original", "url.full", "user_agent.original")
_NUMBERS: dict[str, pl.DataType] = {
    _NUMBER: pl.Int32(),
    _STATUS: pl.Int32(),
    "http.response.body.size": pl.Int64(),
    "process.pid": pl.Int64(),
    "thread.id": pl.Int64(),
    "client.port": pl.Int64(),
    _DURATION: pl.Float64(),
}
_EXPECTED = {name: "a whole number" if dtype.is_integer() else "a number" for name, dtype in _NUMBERS.items()}
_EXPECTED |= dict.fromkeys((_TIME, _OBSERVED), "a time in any known form") | {_NUMBER: "a whole number from 0 to 24"}
_TEXTS = (pl.String, pl.Categorical, pl.Enum)

#: What loggers call their levels, by severity number (logs data model, appendix B; where systems differ, the one whose
#: word it is: `crit` is syslog's, `critical` Python's and .NET's). Digits are syslog's 0 to 7 and pino's 10 to 60.
_LEVELS = {
    1: "trc t finest trace1 10",
    5: "dbg dbug d verbose vrb v finer debug1 7 20",
    6: "fine",
    7: "config",
    9: "inf i information informational info1 log 6 30",
    10: "notice 5",
    13: "warning wrn w warn1 4 40",
    17: "err eror e severe fail error1 3 50",
    18: "crit dpanic 2",
    19: "alert panic 1",
    21: "ftl f critical emerg emergency fatal1 0 60",
}
_LEVEL_NUMBERS = {name: number for number, names in _LEVELS.items() for name in names.split()}
for _place, _name in enumerate(("trace", "debug", "info", "warn", "error", "fatal")):
    _LEVEL_NUMBERS |= {_name + suffix: 4 * _place + 1 + step for step, suffix in enumerate(("", "2", "3", "4"))}
#: What an HTTP status says of severity: the index is the status.
_STATUS_NUMBER = pl.Series([9] * 400 + [13] * 100 + [17] * 100 + [9], dtype=pl.Int32)
_STATUS_TEXT = pl.Series(["INFO"] * 400 + ["WARN"] * 100 + ["ERROR"] * 100 + ["INFO"])
#: Characters of a value that a message quotes at most.
_LONGEST = 200
#: Rows that are wrong (None: none), by which rule, and what is said of them.
_Fault: TypeAlias = tuple[pl.Series | None, str, pl.Expr]


class Normalize(MapBatches):
    """Bring events to OpenTelemetry's log data model: its names, types and severities.

    Columns out: `timestamp` (Datetime µs UTC), `observed_timestamp` if it was there, `severity_number` (Int32: 1 to 24,
    0 is unknown), `severity_text` (as the source has it), `service.name` (String), `host.name` and `body` if they are
    there, then the other columns in their order.

    - Columns with another system's name for what OpenTelemetry names are renamed and given the convention's type, such
      as `msg` to `body`, `remote_addr` to `client.address`, `latency_ms` to `http.server.request.duration` (seconds). A
      column that already has the convention's name wins; the other then stays as it is. `status`, `size`, `bytes` and
      durations are taken for HTTP's only where a method, URL, status or user agent is.
    - The time is `timestamp`, or the first column of a usual name (`time`, `@timestamp`, `ts`, …), of whatever form
      `parse_timestamps` knows. Where it is null, and where there is no such column, it is `observed_timestamp`.
    - Severity comes from the level of any usual logging system, whose own text is kept; without a level, from the HTTP
      status (5xx ERROR, 4xx WARN, else INFO).

    A row is rejected by the rule `timestamp` if its time is no time or it has none; by `type` if a value does not fit
    its column's type (text `-` or nothing counts as null); by `expression` if a mapping fails on it.

    Args:
        mapping: columns by SQL expressions over the columns that come in (`fabric_beam.expressions`), such as
            `{"service.name": "split_part(source, '/', 3)"}`. A column of that name is replaced. These come first: a
            mapped `timestamp` is read as any other.
        zone: the zone of times that name none, such as `Europe/Berlin` or `+02:00`.
        service: `service.name` where the event names no service.

    Raises:
        UsageError: the zone is unknown; while the pipeline is built, an expression does not fit the columns.
        SchemaError: while the pipeline is built, there is no time, or a column is of a type that cannot be converted.

    Source: https://opentelemetry.io/docs/specs/otel/logs/data-model/

    Example:
        >>> from fabric_beam.testing import batch, collect
        >>> events = batch(ts=[1431857103], level=["warning"], msg=["slow"], app=["api"])
        >>> collect(events, Normalize()).drop("timestamp").row(0, named=True)
        {'severity_number': 13, 'severity_text': 'warning', 'service.name': 'api', 'body': 'slow'}
    """

    def __init__(
        self, mapping: Mapping[str, str] | None = None, *, zone: str = "UTC", service: str | None = None
    ) -> None:
        super().__init__()
        parse_zone(zone)
        self.mapping = dict(mapping or {})
        self.zone = zone
        self.service = service

    def bind(self, schema: pl.Schema) -> NormalizeKernel:
        return NormalizeKernel(schema, self.mapping, zone=self.zone, service=self.service)


class NormalizeKernel:
    """Bring the rows of a table to OpenTelemetry's log data model; see `Normalize`.

    Args:
        schema: the columns of the tables to come.
        mapping: columns by SQL expressions.
        zone: the zone of times that name none.
        service: `service.name` where there is none.

    Example:
        >>> table = pl.DataFrame({"time": ["2015-05-17T10:05:03Z", "soon"], "status": [503, 200]})
        >>> result = NormalizeKernel(table.schema)(table)
        >>> result.kept.select("severity_text", "http.response.status_code").rows()
        [('ERROR', 503)]
        >>> result.rejected["rejected.message"][0]
        "time: 'soon' is not a time in any known form"
    """

    def __init__(
        self,
        schema: pl.Schema,
        mapping: Mapping[str, str] | None = None,
        *,
        zone: str = "UTC",
        service: str | None = None,
    ) -> None:
        self._mapping = [compile_expression(text, schema).alias(name) for name, text in (mapping or {}).items()]
        mapped = pl.DataFrame(schema=schema).with_columns(self._mapping).schema
        self._names = _names(mapped)
        self._old = {new: old for old, new in self._names.items()}
        self._zone = zone
        renamed = {self._names.get(name, name): dtype for name, dtype in mapped.items()}
        if _TIME not in renamed and _OBSERVED not in renamed:
            raise SchemaError(f"no column holds the time: name it `timestamp`, or map one. {nearest(_TIME, mapped)}")
        self._times = [name for name in (_TIME, _OBSERVED) if renamed.get(name, UTC_MICROSECONDS) != UTC_MICROSECONDS]
        casts = {name: _cast(name, dtype, self._old.get(name, "")) for name, dtype in renamed.items()}
        self._casts = {name: cast.alias(name) for name, cast in casts.items() if cast is not None}
        self._columns = set(renamed)
        default = pl.lit(service, pl.String)
        self._service = (pl.coalesce(_SERVICE, default) if _SERVICE in renamed else default).alias(_SERVICE)
        always = (_TIME, _NUMBER, _TEXT, _SERVICE)
        first = [name for name in _FIRST if name in renamed or name in always]
        self._order = [*first, *(name for name in renamed if name not in _FIRST)]

    def __call__(self, table: pl.DataFrame) -> pl.DataFrame | Split:
        return reject_failures(table, self._normalize)

    def _normalize(self, table: pl.DataFrame) -> pl.DataFrame | Split:
        raw = table.with_columns(self._mapping).rename(self._names)
        events, faults = self._read_times(raw)
        if self._casts:
            events = events.with_columns(self._casts.values())
            faults += [
                (_lost(raw[name], events[name]), "type", self._quote(name)) for name in self._casts if name in _NUMBERS
            ]
        events = events.with_columns(*self._severity(events), self._service).select(self._order)
        found = [(wrong, rule, message) for wrong, rule, message in faults if wrong is not None and wrong.any()]
        if not found:
            return events
        reasons = raw.select(
            pl.coalesce(pl.when(wrong).then(pl.lit(rule)) for wrong, rule, _ in found).alias(RULE),
            pl.coalesce(pl.when(wrong).then(message) for wrong, _, message in found).alias(MESSAGE),
        )
        bad = reasons[RULE].is_not_null()
        return Split(events.filter(~bad), table.with_columns(reasons.get_columns()).filter(bad))

    def _read_times(self, raw: pl.DataFrame) -> tuple[pl.DataFrame, list[_Fault]]:
        """The events with their times read, `timestamp` being `observed_timestamp` where it is null."""
        read = [parse_timestamps(raw[name], self._zone) for name in self._times]
        faults = [(_lost(raw[times.name], times), _TIME, self._quote(times.name)) for times in read]
        events = raw.with_columns(read)
        if _OBSERVED in self._columns:
            time = pl.coalesce(_TIME, _OBSERVED) if _TIME in self._columns else pl.col(_OBSERVED)
            events = events.with_columns(time.alias(_TIME))
        if events[_TIME].null_count():
            faults.append((events[_TIME].is_null(), _TIME, pl.lit("the event has no time")))
        return events, faults

    def _severity(self, events: pl.DataFrame) -> list[pl.Expr]:
        """The number and the text: as given, else by the text of the level, else by the HTTP status."""
        number, text, said = pl.lit(0, pl.Int32), pl.lit(None, pl.String), pl.lit(None, pl.String)
        if _STATUS in self._columns:
            status = pl.col(_STATUS).clip(0, len(_STATUS_NUMBER) - 1)
            number, text = pl.lit(_STATUS_NUMBER).gather(status).fill_null(0), pl.lit(_STATUS_TEXT).gather(status)
        if _TEXT in self._columns:
            level = pl.lit(_level_numbers(events[_TEXT]))
            said = pl.when(level.is_not_null()).then(_TEXT)
            number, text = pl.coalesce(level, number), pl.coalesce(said, text)
        if _NUMBER in self._columns:
            given = pl.col(_NUMBER) > 0
            number, text = pl.when(given).then(_NUMBER).otherwise(number), pl.when(given).then(said).otherwise(text)
        return [number.alias(_NUMBER), text.alias(_TEXT)]

    def _quote(self, name: str) -> pl.Expr:
        """What is wrong with the value of a column, by the name that it came under."""
        value = pl.col(name).cast(pl.String).str.head(_LONGEST)
        return pl.concat_str(pl.lit(f"{self._old.get(name, name)}: '"), value, pl.lit(f"' is not {_EXPECTED[name]}"))


def _key(name: str) -> str:
    """A name without its capitals, hyphens and underscores."""
    return re.sub("[-_]", "", name.lower())


def _names(schema: pl.Schema) -> dict[str, str]:
    """The columns to rename, and their new names."""
    columns = {_key(name): name for name in reversed(list(schema))}
    names: dict[str, str] = {}

    def take(target: str, keys: Iterable[str]) -> None:
        if target not in schema:
            found = [columns[key] for key in keys if key in columns and _fits(target, schema[columns[key]])]
            names.update(dict.fromkeys(found[:1], target))

    for target, keys in _NAMES.items():
        take(target, keys.split())
    if _STATUS not in names.values() and schema.get(columns.get("status", ""), pl.String()).is_integer():
        take(_STATUS, ["status"])
    if any(name in schema or name in names.values() for name in _HTTP):
        for target, weaker in _NAMES_OF_HTTP.items():
            if target not in names.values():
                take(target, weaker)
    return names


def _fits(name: str, dtype: pl.DataType) -> bool:
    """Whether a column of a type can become one of a name's type."""
    if name in (_TIME, _OBSERVED):
        return dtype.is_numeric() or dtype in (pl.String, pl.Datetime, pl.Null)
    return dtype.is_numeric() or dtype in (*_TEXTS, pl.Null) or (name not in _NUMBERS and dtype == pl.Boolean)


def _cast(name: str, dtype: pl.DataType, old: str) -> pl.Expr | None:
    """How a column becomes its name's type, with null for what does not fit; None where it has that type."""
    target = _NUMBERS.get(name) or (pl.String() if name in _NAMES else None)
    factor = _DURATIONS.get(_key(old), 1.0)
    if target is None or (dtype == target and factor == 1 and name != _NUMBER) or name in (_TIME, _OBSERVED):
        return None
    if not _fits(name, dtype):
        if name in _NUMBERS or name in (_TEXT, _SERVICE):
            raise SchemaError(f"column {name!r} is {dtype}, which cannot become {target}.")
        return None
    column = pl.col(name)
    if target == pl.String:
        return column.cast(target)
    number = column.cast(pl.String).str.strip_chars() if dtype in _TEXTS else column
    value = number.cast(target, strict=False)
    if target.is_float():
        return value * factor if factor != 1 else value
    if dtype.is_numeric() and not dtype.is_integer():
        value = pl.when(value == column).then(value)
    return pl.when(value.is_between(0, 24)).then(value) if name == _NUMBER else value


def _lost(raw: pl.Series, read: pl.Series) -> pl.Series | None:
    """Which values did not survive; None if all did. Text that says that there is nothing, `-` or blank, is no loss."""
    if read.null_count() == raw.null_count():
        return None
    lost = read.is_null() & raw.is_not_null()
    return lost & ~raw.str.strip_chars().is_in(["", "-"]) if raw.dtype == pl.String else lost


def _level_numbers(text: pl.Series) -> pl.Series:
    """OpenTelemetry's severity number of each level, 0 for an unknown one, null for none."""
    texts = text.unique()
    names = texts.str.strip_chars(" \t\r\n[]<>():").str.to_lowercase()
    numbers = names.replace_strict(_LEVEL_NUMBERS, default=0, return_dtype=pl.Int32)
    numbers = numbers.set(names.is_in(["", "-"]), None).set(names.is_null(), None)
    return text.replace_strict(texts, numbers, return_dtype=pl.Int32).cast(pl.Int32)
