"""Access logs in the Common Log Format and Apache's and nginx's combined format."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from fabric_beam.kernel import Split, reject
from fabric_beam.views import Bytes, Positions, cut, pieces, unaligned

_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_COMMON = r"^(\S+) (\S+) (.+?) \[([^\]]+)\] " + _QUOTED + r" (\d{3}) (\d+|-)"
_REQUEST = r"^([A-Za-z]{3,16}) (.*) HTTP/(\d\.\d)$"
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
_DIGITS = 10
_MAX_METHOD = 7


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
        lengths = body.str.len_bytes().fill_null(0)
        usual = np.zeros(table.height, np.bool_)
        candidates = np.flatnonzero(lengths.to_numpy() > _TIME)
        fields = pl.DataFrame(schema=self._fields)
        if len(candidates):
            text = body if len(candidates) == table.height else body.gather(candidates)
            fields, fits = self._cut(*pieces(text))
            usual[candidates[fits]] = True
        if usual.all():
            return self._split(fields, table, table.clear())
        odd = ~pl.Series(usual)
        slow, parsed = self._match(table.filter(odd))
        rejected = table.filter(odd).filter(~parsed)
        order = np.concatenate([np.flatnonzero(usual), np.flatnonzero(~usual)[parsed.to_numpy()]])
        kept = np.sort(order)
        fields = pl.concat([fields, slow]).select(pl.all().gather(np.argsort(order)))
        return self._split(fields, table.select(pl.all().gather(kept)), rejected)

    def _split(self, fields: pl.DataFrame, kept: pl.DataFrame, rejected: pl.DataFrame) -> Split:
        rest = kept.drop("body", *self._fields, strict=False)
        original = kept["body"].alias("log.record.original")
        return Split(
            pl.DataFrame([*fields.get_columns(), original, *rest.get_columns()]),
            reject(rejected, self.format, self._reason()) if rejected.height else reject(rejected, self.format, ""),
        )

    def _cut(self, buffer: pa.Buffer, starts: Positions, lengths: Positions) -> tuple[pl.DataFrame, Positions]:
        """Fields of the lines of the usual shape, and which lines those are."""
        data = np.frombuffer(buffer, np.uint8)
        rows, quotes = _quotes(data, starts, lengths, self._quotes)
        ends = (starts + lengths)[rows]
        starts = starts[rows]
        first, second = quotes[:, 0], quotes[:, 1]
        fits = (data[second - 1] != _BACKSLASH) & (first - starts > _TIME + 8)
        fits &= (first - starts < 2**31) & (data[second + 1 - (second + 1 >= len(data))] == _SPACE)
        if self.format == "combined":
            third, fourth, fifth, sixth = (quotes[:, column] for column in range(2, 6))
            fits &= (data[fourth - 1] != _BACKSLASH) & (data[sixth - 1] != _BACKSLASH) & (sixth + 1 == ends)
            fits &= (fifth == fourth + 2) & (data[fourth + 1] == _SPACE) & (data[third - 1] == _SPACE)
            size_end = third - 1
        else:
            size_end = ends
        # What follows reads at fixed distances from the quotes, so lines where that would leave the line go first.
        fits &= size_end - second > len(" 200 ")
        rows, starts, first, second, size_end = (x[fits] for x in (rows, starts, first, second, size_end))
        quotes = quotes[fits]

        timestamp, ok = _times(buffer, data, first - _TIME - 2)
        ok &= (data[first - 1] == _SPACE) & (data[first - 2] == _CLOSE) & (data[first - _TIME - 3] == _OPEN)
        names = first - _TIME - 4
        ok &= (data[names] == _SPACE) & (data[names - 1] == _DASH) & (data[names - 2] == _SPACE)
        ok &= (data[names - 3] == _DASH) & (data[names - 4] == _SPACE) & (names - 4 > starts)
        status = np.zeros(len(rows), np.int32)
        for place in (2, 3, 4):
            digit = data[second + place] - _ZERO
            ok &= digit <= 9
            status = status * 10 + digit
        ok &= data[second + 5] == _SPACE
        size, sized, ok_size = _integers(data, second + 6, size_end)
        method, target, version, ok_request = _request(data, first + 1, second)
        ok &= ok_size & ok_request

        address = _lengths_to_space(data, starts, names - 4)
        ok &= address == names - 4 - starts
        if not ok.all():
            rows, starts, first, second = rows[ok], starts[ok], first[ok], second[ok]
            quotes, timestamp, status, size, sized = quotes[ok], timestamp[ok], status[ok], size[ok], sized[ok]
            method, target, version, address = method[ok], target[ok], version[ok], address[ok]
        columns = {
            "timestamp": pl.Series(timestamp).cast(_FIELDS["timestamp"]),
            "client.address": cut(buffer, starts, address, ~((address == 1) & (data[starts] == _DASH))),
            "user.name": pl.repeat(None, len(rows), dtype=pl.String, eager=True),
            "http.request.method": cut(buffer, first + 1, method),
            "url.original": cut(buffer, first + 2 + method, target),
            "network.protocol.version": cut(buffer, second - 3, version),
            "http.response.status_code": pl.Series(status),
            "http.response.body.size": pl.Series(size) if sized.all() else _nulls(size, sized),
        }
        if self.format == "combined":
            for name, start, end in (
                ("http.request.header.referer", quotes[:, 2] + 1, quotes[:, 3]),
                ("user_agent.original", quotes[:, 4] + 1, quotes[:, 5]),
            ):
                columns[name] = cut(buffer, start, end - start, ~((end - start == 1) & (data[start] == _DASH)))
        return pl.DataFrame(columns), rows

    def _match(self, table: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        """Fields of the lines that the regular expression takes apart, and which lines those are."""
        groups = table.select(pl.col("body").str.extract_groups(self._pattern).alias("groups"))["groups"].struct.unnest()
        names = ["client.address", "ident", "user.name", "time", "request", "status", "size", "referer", "agent"]
        groups.columns = names[: groups.width]
        request = pl.col("request").str.extract_groups(_REQUEST).struct
        fields = groups.with_columns(
            pl.col("time").str.to_datetime("%d/%b/%Y:%H:%M:%S %z", strict=False).dt.convert_time_zone("UTC").alias("timestamp"),
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
            .then(pl.format("{} quotes where the {} format has {}: a field is missing or cut off", quotes, pl.lit(self.format), self._quotes))
            .when(~body.str.contains(r'" \d{3} (\d+|-)'))
            .then(pl.lit("no status and size after the request"))
            .otherwise(pl.lit(f"the line does not have the fields of the {self.format} format"))
        )


_SPACE, _DASH, _OPEN, _CLOSE, _BACKSLASH, _QUOTE, _ZERO = (np.uint8(ord(c)) for c in ' -[]\\"0')


def _quotes(data: Bytes, starts: Positions, lengths: Positions, count: int) -> tuple[Positions, Positions]:
    """The lines with exactly `count` quotes, and where their quotes are: (rows, positions of shape rows × count)."""
    at = np.flatnonzero(data == _QUOTE)
    ends = starts + lengths
    if len(at) == count * len(starts):
        table = at.reshape(-1, count)
        if (table[:, 0] >= starts).all() and (table[:, -1] < ends).all():
            return np.arange(len(starts)), table
    before = np.searchsorted(at, starts)
    rows = np.flatnonzero(np.searchsorted(at, ends) - before == count)
    return rows, at[before[rows, None] + np.arange(count)]


def _integers(data: Bytes, starts: Positions, ends: Positions) -> tuple[Positions, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Decimal numbers or `-`: (values, which are numbers, which are one or the other)."""
    lengths = ends - starts
    values = np.zeros(len(starts), np.int64)
    ok = (lengths > 0) & (lengths <= 18)
    dash = (lengths == 1) & (data[starts] == _DASH)
    longest = int(lengths.max(initial=0, where=ok))
    inside = len(data) - 1
    for place in range(longest):
        digit = data[np.minimum(starts + place, inside)] - _ZERO
        here = place < lengths
        ok &= ~here | (digit <= 9) | dash
        values = np.where(here, values * 10 + digit, values)
    return values, ~dash, ok


def _request(data: Bytes, starts: Positions, ends: Positions) -> tuple[Positions, Positions, Positions, npt.NDArray[np.bool_]]:
    """Lengths of method, target and version of `METHOD target HTTP/x.y`, and which requests have that shape."""
    ok = ends - starts > 3 + len("  HTTP/1.1")
    method = np.zeros(len(starts), np.int64)
    inside = len(data) - 1
    letters = np.ones(len(starts), np.bool_)
    for length in range(_MAX_METHOD + 1):
        byte = data[np.minimum(starts + length, inside)]
        open_ = method == 0
        if not open_.any():
            break
        space = byte == _SPACE
        method = np.where(open_ & space & letters & (length >= 3), length, method)
        letters &= ((byte | 0x20) - np.uint8(ord("a"))) < 26
    ok &= (method > 0) & (ends - starts >= method + len("  HTTP/1.1"))
    ends = np.maximum(ends, 9)
    for back, byte in zip(range(9, 4, -1), b" HTTP/"[:5], strict=True):
        ok &= data[ends - back] == byte
    ok &= (data[ends - 4] == ord("/")) & (data[ends - 2] == ord(".")) & (data[ends - 3] - _ZERO <= 9) & (data[ends - 1] - _ZERO <= 9)
    target = ends - starts - method - len("  HTTP/1.1")
    return method, target, np.full(len(starts), 3), ok


def _lengths_to_space(data: Bytes, starts: Positions, limits: Positions) -> Positions:
    """How many bytes from each start to the first space, up to each limit."""
    lengths = limits - starts
    found = lengths.copy()
    inside = len(data) - 1
    for place in range(int(lengths.max(initial=0))):
        space = (data[np.minimum(starts + place, inside)] == _SPACE) & (place < found)
        if space.any():
            found = np.where(space, place, found)
    return found


def _nulls(values: Positions, valid: npt.NDArray[np.bool_]) -> pl.Series:
    return pl.select(pl.when(pl.Series(valid)).then(pl.Series(values))).to_series()


def _times(buffer: pa.Buffer, data: Bytes, starts: Positions) -> tuple[Positions, npt.NDArray[np.bool_]]:
    """Microseconds since the epoch of `17/May/2015:10:05:03 +0000`, and which texts are such a time."""
    ok = np.ones(len(starts), np.bool_)
    clock = np.zeros(len(starts), np.int64)
    for place, weight, limit in ((12, 36000, 2), (13, 3600, 9), (15, 600, 5), (16, 60, 9), (18, 10, 5), (19, 1, 9)):
        digit = data[starts + place] - _ZERO
        ok &= digit <= limit
        clock += digit.astype(np.int64) * weight
    ok &= clock < 86400
    for place, byte in ((14, ":"), (17, ":"), (20, " ")):
        ok &= data[starts + place] == ord(byte)
    # A log's date and zone change rarely: they are read once for each run of lines that share them.
    date, year, zone, zone_end = (
        unaligned(buffer, dtype, shift)[starts]
        for dtype, shift in ((np.uint64, 0), (np.uint32, 8), (np.uint32, 21), (np.uint8, 25))
    )
    changes = np.ones(len(starts), np.bool_)
    changes[1:] = (date[1:] != date[:-1]) | (year[1:] != year[:-1]) | (zone[1:] != zone[:-1]) | (zone_end[1:] != zone_end[:-1])
    heads = np.flatnonzero(changes)
    days = [_midnight(bytes(data[start : start + 12]), bytes(data[start + 21 : start + _TIME])) for start in starts[heads]]
    counts = np.diff(np.append(heads, len(starts)))
    ok &= np.repeat(np.array([day is not None for day in days], np.bool_), counts)
    return (np.repeat(np.array([day or 0 for day in days], np.int64), counts) + clock) * 1_000_000, ok


@lru_cache(maxsize=4096)
def _midnight(date: bytes, zone: bytes) -> int | None:
    """Seconds since the epoch at the start of `17/May/2015:` in a zone such as `+0200`."""
    try:
        return int(datetime.strptime((date + zone).decode(), "%d/%b/%Y:%z").astimezone(UTC).timestamp())
    except ValueError:
        return None
