"""Lines that are messages as they stand."""

from __future__ import annotations

import polars as pl

from fabric_beam.kernel import Split, reject


class Lines:
    """Take every line as the message itself.

    Columns in: `body`, one line each. Columns out: `body`, then the other columns as they came. No row is rejected, and
    `log.record.original` is not added: `body` is it.

    Example:
        >>> Lines()(pl.DataFrame({"offset": [0], "body": ["disk full"]})).kept.row(0, named=True)
        {'body': 'disk full', 'offset': 0}
    """

    def __call__(self, table: pl.DataFrame) -> Split:
        return Split(table.select("body", pl.exclude("body")), reject(table.clear(), "lines", ""))
