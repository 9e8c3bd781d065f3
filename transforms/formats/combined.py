"""Access logs in the Common Log Format and Apache's and nginx's combined format."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa

from fabric_beam.kernel import Split, reject
from fabric_beam.memory import empty
from fabric_beam.views import Positions, Text, numbers, pieces
from transforms.formats.access_log_lines import TEXTS, cut_lines

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


class AccessLog:
    r"""Take access-log lines apart, by a compiled loop over the bytes of a block.

    A line is `address ident user [time] "request" status size`, and in the combined format ` "referer" "user agent"`
    behind it. Text in quotes may have quotes and backslashes escaped by a backslash; it stays as it is written.

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
        self._fields = dict(list(_FIELDS.items())[: None if format == "combined" else 8])
        self._reason = self._explain()

    def __call__(self, table: pl.DataFrame) -> Split:
        body = table["body"]
        if body.null_count():
            body = body.fill_null("")
        fields, rows = self._cut(*pieces(body))
        rejected = table.clear()
        if len(rows) < table.height:
            misfits = np.ones(table.height, np.bool_)
            misfits[rows] = False
            rejected, table = table[np.flatnonzero(misfits)], table[rows]
        others = [column for column in table.get_columns() if column.name not in ("body", *self._fields)]
        kept = pl.DataFrame([*fields.get_columns(), table["body"].alias("log.record.original"), *others])
        return Split(kept, reject(rejected, self.format, self._reason))

    def _cut(self, text: Text, starts: Positions, lengths: Positions) -> tuple[pl.DataFrame, Positions]:
        """The fields of the lines that fit, and which lines those are."""
        rows, times, sizes = (empty(len(starts), np.int64) for _ in range(3))
        status = empty(len(starts), np.int32)
        views = empty((len(TEXTS), len(starts), 2), np.uint64)
        valid = empty((len(TEXTS) + 1, len(starts)), np.bool_)
        combined = self.format == "combined"
        count = cut_lines(text.bytes, starts, lengths, combined, rows, times, status, sizes, views, valid)
        columns = {
            "timestamp": numbers(pa.timestamp("us", "UTC"), times[:count]),
            "http.response.status_code": numbers(pa.int32(), status[:count]),
            "http.response.body.size": numbers(pa.int64(), sizes[:count], valid[-1, :count]),
            **{
                name: text.column(views[place, :count], valid[place, :count])
                for place, name in enumerate(TEXTS)
                if name in self._fields
            },
        }
        return pl.DataFrame({name: columns[name] for name in self._fields}), rows[:count]

    def _explain(self) -> pl.Expr:
        """Why a line was rejected, as far as a cheap look tells."""
        body = pl.col("body")
        quotes = body.str.count_matches('"', literal=True)
        return (
            pl.when(body.is_null() | (body.str.strip_chars() == ""))
            .then(pl.lit("the line is empty"))
            .when(~body.str.contains(r"\[[0-9]{2}/[A-Z][a-z]{2}/[0-9]{4}:[0-9]{2}:[0-9]{2}:[0-9]{2} [+-][0-9]{4}\]"))
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
