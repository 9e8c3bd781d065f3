"""Access logs in the Common Log Format and Apache's and nginx's combined format."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from fabric_beam.kernel import Split, reject
from fabric_beam.views import LOW_BYTES, Mask, Positions, Text, Words, are_digits, eight_digits, first_byte, pieces

_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_COMMON = (
    r"^(\S+) (\S+) (.+?) \[([0-9]{2}/[A-Z][a-z]{2}/[12][0-9]{3}(?::[0-9]{2}){3} [+-][0-9]{4})\] "
    + _QUOTED
    + r" ([0-9]{3}) ([0-9]+|-)"
)
_REQUEST = r"^([A-Za-z]{3,16}) (.*) HTTP/([0-9]\.[0-9])$"
_FIELDS = {
    "timestamp": pl.Datetime("us", "UTC"),
    "client.address": pl.String(),
    "user.name": pl.String(),
    "http.request.method": pl.String(),
    "url.original": pl.String(),
    "network.protocol.version": pl.String(),
    "http.response.status_code": pl.Int32(),
    "http.response.body.size": pl.Int64(),
    "http.request.header.referer": pl.String(),
    "user_agent.original": pl.String(),
}
_TIME = len("17/May/2015:10:05:03 +0000")


class AccessLog:
    """Take access-log lines apart.

    A line of the usual shape is cut at its quotes by numpy, a block of lines at a time; what does not fit that shape
    exactly (escaped quotes, odd requests) goes through a regular expression, and what does not fit that is rejected.
    Both ways give the same fields.

    Args:
        format: `combined` (with referer and user agent) or `common` (without).

    Columns in: `body`, one line each. Columns out: `timestamp`, `client.address`, `user.name`, `http.request.method`,
    `url.original`, `network.protocol.version`, `http.response.status_code`, `http.response.body.size` (bytes),
    `http.request.header.referer`, `user_agent.original`, `log.record.original` (the line), and the other columns as
    they came. `-` is null. A request that is not `METHOD target HTTP/x.y` is kept whole in `url.original`.

    Source: https://httpd.apache.org/docs/2.4/mod/mod_log_config.html#examples

    Example:
        >>> line = '::1 - ann [17/May/2015:10:05:03 +0200] "GET /a?b=1 HTTP/1.1" 200 12 "-" "curl/8.0"'
        >>> AccessLog()(pl.DataFrame({"body": [line]})).kept.select("timestamp", "url.original").row(0)[1]
        '/a?b=1'
    """

    def __init__(self, format: Literal["combined", "common"] = "combined") -> None:
        self.format = format
        self._quotes = 6 if format == "combined" else 2
        tail = rf" {_QUOTED} {_QUOTED}\s*$" if format == "combined" else r"\s*$"
        self._pattern = _COMMON + tail
        self._fields = dict(list(_FIELDS.items())[: None if format == "combined" else 8])

    def __call__(self, table: pl.DataFrame) -> Split:
        body = table["body"]
        lengths = body.str.len_bytes()
        if lengths.null_count():
            lengths = lengths.fill_null(0)
        usual = np.zeros(table.height, np.bool_)
        candidates = np.flatnonzero(lengths.to_numpy() > _TIME)
        fields = pl.DataFrame(schema=self._fields)
        if len(candidates):
            text = body if len(candidates) == table.height else body.gather(candidates)
            fields, fits = self._cut(*pieces(text))
            usual[candidates[fits]] = True
        if usual.all():
            return Split(self._join(fields, table), reject(table.clear(), self.format, ""))
        odd = table.filter(~usual)
        slow, parsed = self._match(odd)
        if not slow.height:
            return self._split(fields, table.filter(usual), odd)
        order = np.concatenate([np.flatnonzero(usual), np.flatnonzero(~usual)[parsed.to_numpy()]])
        fields = pl.concat([fields, slow])[np.argsort(order)]
        return self._split(fields, table[np.sort(order)], odd.filter(~parsed))

    def _split(self, fields: pl.DataFrame, kept: pl.DataFrame, rejected: pl.DataFrame) -> Split:
        return Split(self._join(fields, kept), reject(rejected, self.format, self._reason()))

    def _join(self, fields: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
        """The fields, the line they come from, and the other columns."""
        others = [column for column in table.get_columns() if column.name not in ("body", *self._fields)]
        return pl.DataFrame([*fields.get_columns(), table["body"].alias("log.record.original"), *others])

    def _cut(self, text: Text, starts: Positions, lengths: Positions) -> tuple[pl.DataFrame, Positions]:
        """Fields of the lines of the usual shape, and which lines those are."""
        rows, quotes = _quotes(text, starts, starts + lengths, self._quotes)
        starts, ends = starts[rows], (starts + lengths)[rows]
        first, second = quotes[:2]
        stamp = first - len("[17/May/2015:10:05:03 +0000] ")
        size = second + len('" 200 ')
        size_ends = quotes[2] - 1 if self.format == "combined" else ends
        # What follows reads at fixed distances from the quotes: lines that are too short for it are left out first.
        fits = (
            (stamp - starts > len("- - - "))
            & (second - first >= len('"GET / HTTP/1.1'))
            & (size_ends > size)
            & (size_ends - size <= 8)
        )
        if not fits.all():
            rows, quotes = rows[fits], quotes[:, fits]
            starts, ends, stamp, size, size_ends = (x[fits] for x in (starts, ends, stamp, size, size_ends))
            first, second = quotes[:2]

        address = _to_space(text, starts, stamp - starts)
        user = starts + address + len(" - ")
        ok = (text.load(starts + address) & LOW_BYTES[3]) == _word(" - ")
        ok &= (address > 0) & (user < stamp - 1) & (text.bytes[stamp - 1] == _SPACE)
        timestamp, is_time = _times(text, stamp)
        method, version, is_request = _request(text, first + 1, second)
        status, is_status = _status(text.load(second + 1))
        sizes, is_number, is_size = _sizes(text.load(size_ends - 8), size_ends - size)
        ok &= is_time & is_request & is_status & is_size
        if self.format == "combined":
            _, _, third, fourth, fifth, sixth = quotes
            byte = text.bytes
            ok &= (
                (byte[third - 1] == _SPACE) & (byte[fourth + 1] == _SPACE) & (fifth == fourth + 2) & (sixth + 1 == ends)
            )
            ok &= (byte[fourth - 1] != _BACKSLASH) & (byte[sixth - 1] != _BACKSLASH)
        if not ok.all():
            rows, quotes, starts, stamp = rows[ok], quotes[:, ok], starts[ok], stamp[ok]
            address, user = address[ok], user[ok]
            timestamp, method, version = timestamp[ok], method[ok], version[ok]
            status, sizes, is_number = status[ok], sizes[ok], is_number[ok]
            first, second = quotes[:2]

        target = first + _METHOD_LENGTHS[method] + 2
        columns = {
            "timestamp": pl.Series(timestamp).cast(_FIELDS["timestamp"]),
            "client.address": _or_dash(text, starts, address),
            "user.name": _or_dash(text, user, stamp - 1 - user),
            "http.request.method": _METHOD_NAMES.gather(method),
            "url.original": text.cut(target, second - len(" HTTP/1.1") - target),
            "network.protocol.version": _VERSIONS.gather(version),
            "http.response.status_code": pl.Series(status),
            "http.response.body.size": pl.Series(sizes),
        }
        if not is_number.all():
            number = pl.when(pl.Series(is_number)).then(columns["http.response.body.size"])
            columns["http.response.body.size"] = pl.select(number).to_series()
        if self.format == "combined":
            _, _, third, fourth, fifth, sixth = quotes
            columns["http.request.header.referer"] = _or_dash(text, third + 1, fourth - third - 1)
            columns["user_agent.original"] = _or_dash(text, fifth + 1, sixth - fifth - 1)
        return pl.DataFrame(columns), rows

    def _match(self, table: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        """Fields of the lines that the regular expression takes apart, and which lines those are."""
        groups = table.select(pl.col("body").str.extract_groups(self._pattern).alias("groups"))[
            "groups"
        ].struct.unnest()
        names = ["client.address", "ident", "user.name", "time", "request", "status", "size", "referer", "agent"]
        groups.columns = names[: groups.width]
        request = pl.col("request").str.extract_groups(_REQUEST).struct
        fields = groups.with_columns(
            pl.col("time")
            .str.to_datetime("%d/%b/%Y:%H:%M:%S %z", strict=False)
            .dt.convert_time_zone("UTC")
            .alias("timestamp"),
            request.field("1").alias("http.request.method"),
            pl.coalesce(request.field("2"), "request").alias("url.original"),
            request.field("3").alias("network.protocol.version"),
            pl.col("status").cast(pl.Int32).alias("http.response.status_code"),
            pl.col("size").cast(pl.Int64, strict=False).alias("http.response.body.size"),
        ).rename({"referer": "http.request.header.referer", "agent": "user_agent.original"}, strict=False)
        dashes = [name for name, dtype in self._fields.items() if dtype == pl.String()]
        fields = fields.with_columns(pl.when(pl.col(dashes) != "-").then(pl.col(dashes)))
        parsed = fields["timestamp"].is_not_null()
        return fields.select(pl.col(name).cast(dtype) for name, dtype in self._fields.items()).filter(parsed), parsed

    def _reason(self) -> pl.Expr:
        """Why a line was rejected, as far as a cheap look tells."""
        body = pl.col("body")
        quotes = body.str.count_matches('"', literal=True)
        return (
            pl.when(body.is_null() | (body.str.strip_chars() == ""))
            .then(pl.lit("the line is empty"))
            .when(~body.str.contains(r"\[\d{1,2}/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"))
            .then(pl.lit("no time stamp of the form [17/May/2015:10:05:03 +0000]"))
            .when(quotes < self._quotes)
            .then(
                pl.format(
                    "{} quotes where the {} format has {}: a field is missing or cut off",
                    quotes,
                    pl.lit(self.format),
                    self._quotes,
                )
            )
            .when(~body.str.contains(r'" \d{3} (\d+|-)'))
            .then(pl.lit("no status and size after the request"))
            .otherwise(pl.lit(f"the line does not have the fields of the {self.format} format"))
        )


_SPACE, _DASH, _BACKSLASH = (np.uint8(ord(character)) for character in " -\\")


def _word(text: str) -> np.uint64:
    """Up to eight ASCII characters as `Text.load` reads them."""
    return np.uint64(int.from_bytes(text.encode(), "little"))


_METHOD_NAMES = pl.Series(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"])
_METHOD_LENGTHS = np.array([len(name) for name in _METHOD_NAMES])
#: Each method and the space behind it: the word, and which bytes of a word to compare with it.
_METHODS = [(_word(f"{name} "), LOW_BYTES[len(name) + 1]) for name in _METHOD_NAMES]
_VERSIONS = pl.Series([f"{major}.{minor}" for major in range(10) for minor in range(10)])


def _quotes(text: Text, starts: Positions, ends: Positions, count: int) -> tuple[Positions, Positions]:
    """The lines with exactly `count` quotes, and where their quotes are, a row for each quote of a line."""
    at = text.positions('"')
    if len(at) == count * len(starts):
        table = np.ascontiguousarray(at.reshape(-1, count).T)
        if (table[0] >= starts).all() and (table[-1] < ends).all():
            return np.arange(len(starts)), table
    before = np.searchsorted(at, starts)
    rows = np.flatnonzero(np.searchsorted(at, ends) - before == count)
    return rows, at[before[rows] + np.arange(count)[:, None]]


def _or_dash(text: Text, starts: Positions, lengths: Positions) -> pl.Series:
    """Pieces of text, null where they are `-`."""
    given = (lengths != 1) | (text.bytes[starts] != _DASH)
    if not given.any():
        return pl.Series([None], dtype=pl.String).new_from_index(0, len(starts))
    return text.cut(starts, lengths, given)


def _to_space(text: Text, starts: Positions, limits: Positions) -> Positions:
    """How many bytes it is from each start to the next space, at most its limit."""
    lengths = np.zeros(len(starts), np.int64)
    open_ = np.ones(len(starts), np.bool_)
    for place in range(0, int(limits.max(initial=0)), 8):
        step = first_byte(text.load(starts + place), " ")
        lengths += step * open_
        open_ &= step == 8
        if not open_.any():
            break
    return np.minimum(lengths, limits)


def _status(words: Words) -> tuple[npt.NDArray[np.int32], Mask]:
    """The number in ` 200 …`, and which words have that shape."""
    ok = (words & np.uint64(0xFF000000FF)) == _word(" \0\0\0 ")
    ok &= are_digits(words, 0xFFFFFF00)
    digits = words & np.uint64(0x0F0F0F00)
    number = ((digits >> np.uint64(8)) & np.uint64(15)) * np.uint64(100)
    number += ((digits >> np.uint64(16)) & np.uint64(15)) * np.uint64(10) + (digits >> np.uint64(24))
    return number.astype(np.int32), ok


def _sizes(words: Words, lengths: Positions) -> tuple[Positions, Mask, Mask]:
    """The numbers of 1 to 8 digits at the end of words, which of them are not `-`, and which are one or the other."""
    outside = LOW_BYTES[8 - lengths]
    digits = (words & ~outside) | (outside & np.uint64(0x3030303030303030))
    number = are_digits(digits)
    dash = (lengths == 1) & (words >> np.uint64(56) == _DASH)
    return eight_digits(digits), ~dash, number | dash


def _request(text: Text, starts: Positions, ends: Positions) -> tuple[Positions, Positions, Mask]:
    """`METHOD target HTTP/x.y`: places in `_METHODS` and `_VERSIONS`, and which requests have that shape."""
    head = text.load(starts)
    method = np.zeros(len(starts), np.int64)
    ok = (head & _METHODS[0][1]) == _METHODS[0][0]
    for place, (word, mask) in enumerate(_METHODS[1:], 1):
        if ok.all():
            break
        found = (head & mask) == word
        method[found] = place
        ok |= found
    tail = text.load(ends - len("HTTP/1.1"))
    ok &= (tail & np.uint64(0x00FF00FFFFFFFFFF)) == _word("HTTP/\0.")
    ok &= are_digits(tail, 0xFF00FF0000000000)
    ok &= text.bytes[ends - len(" HTTP/1.1")] == _SPACE
    ok &= ends - starts >= _METHOD_LENGTHS[method] + len("  HTTP/1.1")
    version = ((tail >> np.uint64(40)) & np.uint64(15)) * np.uint64(10) + ((tail >> np.uint64(56)) & np.uint64(15))
    return method, np.where(ok, version, 0).astype(np.int64), ok


def _times(text: Text, starts: Positions) -> tuple[Positions, Mask]:
    """Microseconds since the epoch of `[17/May/2015:10:05:03 +0000] "`, and which places have such a time."""
    date, year, clock, zone = (text.load(starts + place) for place in (0, 8, 16, 22))
    # The clock's digits and colons, `10:05:03 `, as one word of `10` and one of `05:03 `.
    ok = (year >> np.uint64(56)) == ord(":")
    ok &= (clock & np.uint64(0x0000FF0000FF0000)) == _word("\0\0:\0\0 ")
    ok &= are_digits(year, 0x00FFFF0000000000) & are_digits(clock, 0x000000FFFF00FFFF)
    hours, minutes, seconds = (
        _two_digits(year >> np.uint64(40)),
        _two_digits(clock),
        _two_digits(clock >> np.uint64(24)),
    )
    ok &= (hours < 24) & (minutes < 60) & (seconds < 60)
    # A log's date and zone change rarely: they are read once for each run of lines that share them.
    year = year & LOW_BYTES[5]
    changes = np.ones(len(starts), np.bool_)
    changes[1:] = (date[1:] != date[:-1]) | (year[1:] != year[:-1]) | (zone[1:] != zone[:-1])
    heads = np.flatnonzero(changes)
    days = [
        _midnight(*words)
        for words in zip(date[heads].tolist(), year[heads].tolist(), zone[heads].tolist(), strict=True)
    ]
    counts = np.diff(np.append(heads, len(starts)))
    ok &= np.repeat(np.array([day is not None for day in days], np.bool_), counts)
    midnight = np.repeat(np.array([day or 0 for day in days], np.int64), counts)
    return (midnight + hours * 3600 + minutes * 60 + seconds) * 1_000_000, ok


def _two_digits(words: Words) -> Positions:
    tens, ones = words & np.uint64(15), (words >> np.uint64(8)) & np.uint64(15)
    return (tens * np.uint64(10) + ones).astype(np.int64)


@lru_cache(maxsize=4096)
def _midnight(date: int, year: int, zone: int) -> int | None:
    """Seconds since the epoch at the start of a day: words of `[17/May/`, `2015:` and `+0200] "`."""
    raw = date.to_bytes(8, "little") + year.to_bytes(5, "little") + zone.to_bytes(8, "little")
    if not re.fullmatch(rb'\[\d\d/[A-Z][a-z]{2}/[12]\d{3}:[+-]\d{4}\] "', raw):
        return None
    try:
        return int(datetime.strptime(raw.decode(), '[%d/%b/%Y:%z] "').astimezone(UTC).timestamp())
    except (ValueError, OverflowError):
        return None
