"""Syslog lines: RFC 3164 as it is really written, and RFC 5424."""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from fabric_beam.errors import UsageError
from fabric_beam.kernel import Split, reject
from transforms.formats.timestamps import UTC_MICROSECONDS, parse_timestamps, parse_zone, to_utc

#: By syslog severity code: the keyword that syslog.conf uses, and OpenTelemetry's number (logs data model, appendix B).
_SEVERITY_TEXT = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_SEVERITY_NUMBER = (21, 19, 18, 17, 13, 10, 9, 5)
_MAX_PRIORITY = 191

# Only ASCII classes, and at every character one way to go on: the regex engine then needs a single pass. `header` is
# all that stands before the message.
_PRIORITY = "(?:<(?P<priority>[0-9]{1,3})>)?"
_TIME = r"(?P<time>[A-Z][a-z]{2} {1,2}[0-9]{1,2} [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?|[0-9]{4}-[0-9TZtz:.,+-]+)"
_TAG = r"(?P<tag>[!-'*-9;-Z\\^-~]+)(?:\([^) ]*\))?(?:\[(?P<pid>[^\] ]*)\]:? ?|:(?: |$))"
_HOST = r"(?P<host>[!-~]+)"
_RFC_3164 = rf"^(?P<header>{_PRIORITY}{_TIME} {_HOST}(?: (?:{_TAG})?|$))"
_WITHOUT_HOST = rf"^(?P<header>{_PRIORITY}{_TIME} {_TAG})"
_RFC_5424 = (
    rf"^(?P<header>{_PRIORITY}1 (?P<time>[!-~]+) {_HOST} (?P<tag>[!-~]+) (?P<pid>[!-~]+) (?P<message_id>[!-~]+) "
    r'(?P<structured_data>-|(?:\[[^\]" ]+(?: [^=\]" ]+="(?:[^"\\]|\\.)*")*\])+)(?: \x{FEFF}?|$))'
)
_GROUPS = ("header", "priority", "time", "host", "tag", "pid", "message_id", "structured_data")

_DAY = 86_400_000_000
_YEAR_2000 = 946_684_800_000_000
_29_FEBRUARY = 59 * _DAY


class Syslog:
    """Take syslog lines apart, RFC 3164 and RFC 5424 mixed, with or without `<PRI>`.

    Of RFC 3164 it reads what daemons really write: ISO 8601 times, no priority, no host before the tag, no tag, no
    process id, a module after the tag (`sshd(pam_unix)[1]:` is the service `sshd`).

    Args:
        year: the year of times that name none. Without it, it is the latest one that puts the time no later than a day
            after the row's `observed_timestamp`, so a file that runs over New Year is read right.
        zone: the zone of times that name none: an IANA name, or an offset such as `+02:00`.

    Columns in: `body`, one line each; `observed_timestamp` if `year` is not given. Columns out, null where the line
    does not say: `timestamp`, `severity_number` (OpenTelemetry's), `severity_text` (`emerg` to `debug`), `host.name`,
    `service.name` (the tag or APP-NAME), `process.pid` (if it is a number), `syslog.facility.code`,
    `syslog.severity.code`, `syslog.msg.id`, `syslog.structured_data` (as written), `body` (the message),
    `log.record.original` (the line), and the other columns as they came.

    Raises:
        UsageError: the zone is unknown, or the year is not 1 to 9999.

    Example:
        >>> line = "<38>Mar  7 13:06:56 web1 sshd(pam_unix)[1291]: session opened"
        >>> Syslog(2015)(pl.DataFrame({"body": [line]})).kept.select("service.name", "process.pid", "body").row(0)
        ('sshd', 1291, 'session opened')

    Sources: RFC 3164, RFC 5424; https://opentelemetry.io/docs/specs/otel/logs/data-model-appendix/
    """

    def __init__(self, year: int | None = None, zone: str = "UTC") -> None:
        if year is not None and not 1 <= year <= 9999:
            raise UsageError(f"syslog: year is {year}, expected 1 to 9999")
        self.year = year
        self.zone = zone
        self._local = parse_zone(zone)

    def __call__(self, table: pl.DataFrame) -> Split:
        body = table["body"]
        header = _headers(body)
        nothing = pl.repeat(None, table.height, dtype=UTC_MICROSECONDS, eager=True).alias("observed_timestamp")
        observed = table["observed_timestamp"] if "observed_timestamp" in table.columns else nothing
        header = header.with_columns(
            self._timestamps(header["time"], observed).alias("timestamp"),
            pl.col("priority").cast(pl.Int32),
            observed,
            body.alias("log.record.original"),
            # Cut, not captured: a cut shares the line's memory.
            body.str.slice(header["header"].str.len_chars()).alias("body"),
        )
        severity = pl.col("priority") % 8
        fields = header.select(
            "timestamp",
            pl.lit(pl.Series(_SEVERITY_NUMBER, dtype=pl.Int32)).gather(severity).alias("severity_number"),
            pl.lit(pl.Series(_SEVERITY_TEXT)).gather(severity).alias("severity_text"),
            _unless_nil("host").alias("host.name"),
            _unless_nil("tag").alias("service.name"),
            pl.col("pid").cast(pl.Int64, strict=False).alias("process.pid"),
            (pl.col("priority") // 8).alias("syslog.facility.code"),
            severity.alias("syslog.severity.code"),
            _unless_nil("message_id").alias("syslog.msg.id"),
            _unless_nil("structured_data").alias("syslog.structured_data"),
            "body",
            "log.record.original",
        )
        good = header.select(
            pl.col("header").is_not_null()
            & (pl.col("timestamp").is_not_null() | (pl.col("time") == "-"))
            & (pl.col("priority") <= _MAX_PRIORITY).fill_null(True)
        ).to_series()
        kept = fields.hstack(table.drop("body", *fields.columns, strict=False).get_columns())
        if good.all():
            return Split(kept, reject(table.clear(), "syslog", ""))
        reasons = header.filter(~good).select(self._reason()).to_series()
        return Split(kept.filter(good), reject(table.filter(~good), "syslog", pl.lit(reasons)))

    def _timestamps(self, times: pl.Series, observed: pl.Series) -> pl.Series:
        """Times to UTC; null where a time is none or its year cannot be known."""
        dated = times.str.contains("^[0-9]").fill_null(False)
        if dated.all():
            return parse_timestamps(times, self.zone)
        yearless = pl.when(~pl.lit(dated)).then(pl.concat_str(pl.lit(times), pl.lit(f" {self.year or 2000:04}")))
        undated = parse_timestamps(pl.select(yearless).to_series(), self.zone if self.year else "UTC")
        if self.year is None:
            undated = to_utc(self._with_year(undated, observed), self._local)
        if not dated.any():
            return undated
        return parse_timestamps(pl.select(pl.when(dated).then(times)).to_series(), self.zone).zip_with(dated, undated)

    def _with_year(self, times: pl.Series, observed: pl.Series) -> pl.Series:
        """Wall-clock times of the year 2000, moved to the latest year that is not after the time of observation."""
        latest = observed.cast(UTC_MICROSECONDS).dt.offset_by("1d")
        if isinstance(self._local, str):
            latest = latest.dt.convert_time_zone(self._local).dt.replace_time_zone(None).to_physical()
        else:
            latest = latest.to_physical() + self._local * 1_000_000
        last = latest.fill_null(0).to_numpy()
        if len(last) and last[0] == last.min() == last.max():
            last = last[:1]
        into_year = times.to_physical().fill_null(_YEAR_2000).to_numpy() - _YEAR_2000
        moved = np.full(len(times), np.iinfo(np.int64).min)
        year = last.astype("datetime64[us]").astype("datetime64[Y]")
        # 29 February can be eight years back (1896 to 1904), any other day only one.
        for back in range(9):
            start = (year - back).astype("datetime64[us]").astype(np.int64)
            days = ((year - back + 1).astype("datetime64[us]").astype(np.int64) - start) // _DAY
            micros = start + into_year - _DAY * ((days == 365) & (into_year >= _29_FEBRUARY + _DAY))
            exists = (days == 366) | (into_year // _DAY * _DAY != _29_FEBRUARY)
            moved = np.where((moved == np.iinfo(np.int64).min) & exists & (micros <= last), micros, moved)
            if (moved != np.iinfo(np.int64).min).all():
                break
        return pl.Series(moved).set(times.is_null() | latest.is_null(), None).cast(pl.Datetime("us"))

    def _reason(self) -> pl.Expr:
        """Why a row's header does not do."""
        original, time = pl.col("log.record.original"), pl.col("time")
        quoted = pl.concat_str(pl.lit("'"), time.str.slice(0, 40), pl.lit("'"))
        unknown_year = time.str.contains("^[A-Z]") & pl.col("observed_timestamp").is_null() & (self.year is None)
        return (
            pl.when(original.str.strip_chars().fill_null("") == "")
            .then(pl.lit("the line is empty"))
            .when(pl.col("header").is_null() & original.str.contains("^(<[0-9]{1,3}>)?1 "))
            .then(pl.lit("not RFC 5424: <PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG"))
            .when(pl.col("header").is_null())
            .then(pl.lit("begins neither like RFC 3164 (Mmm dd hh:mm:ss HOSTNAME TAG:) nor like RFC 5424 (<PRI>1 ...)"))
            .when(pl.col("priority") > _MAX_PRIORITY)
            .then(pl.concat_str(pl.lit("priority "), "priority", pl.lit(f" is over {_MAX_PRIORITY}")))
            .when(unknown_year)
            .then(pl.concat_str(quoted, pl.lit(" names no year and there is no observed_timestamp: give `year`")))
            .otherwise(pl.concat_str(quoted, pl.lit(" is not a time")))
        )


def _headers(body: pl.Series) -> pl.DataFrame:
    """The groups of whichever pattern fits each line, all null where none does."""
    likely = len(body) > 0 and re.match("(?:<[0-9]{1,3}>)?1 ", body[0] or "")
    patterns = (_RFC_5424, _RFC_3164, _WITHOUT_HOST) if likely else (_RFC_3164, _WITHOUT_HOST, _RFC_5424)
    rest = pl.DataFrame({"row": pl.int_range(len(body), dtype=pl.UInt32, eager=True), "body": body})
    parts = []
    for pattern in patterns:
        groups = rest["body"].str.extract_groups(pattern).struct.unnest()
        groups = groups.select(
            rest["row"], *(name if name in groups.columns else pl.lit(None, pl.String).alias(name) for name in _GROUPS)
        )
        fits = groups["header"].is_not_null()
        if pattern == _RFC_3164:
            # `su:` where the host should stand is the tag of a line without a host.
            fits &= ~groups["host"].str.ends_with(":").fill_null(False)
        parts.append(groups.filter(fits))
        rest = rest.filter(~fits)
        if not rest.height:
            break
    unfit = rest.select("row", *(pl.lit(None, pl.String).alias(name) for name in _GROUPS))
    return pl.concat([*parts, unfit]).sort("row") if len(parts) > 1 or unfit.height else parts[0]


def _unless_nil(name: str) -> pl.Expr:
    return pl.when(pl.col(name) != "-").then(pl.col(name))
