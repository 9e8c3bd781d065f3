"""What every store is to its sink: one small class each, without batching, retries or dead letters."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import ClassVar

import polars as pl

from fabric_beam import dead_letters
from fabric_beam.endpoints import Endpoint
from fabric_beam.json_rows import to_json

PROVENANCE = ("source", "offset")
#: What tells a dead letter from others: a row may be rejected by several steps, and need not have provenance.
_LETTER = ["payload", "step", "rule", *PROVENANCE]


class Store(ABC):
    """A store that rows are written to, over one connection.

    It is made from an endpoint while the pipeline is built and sent to the workers; only `connect` opens anything.
    `StoreSink` calls the rest, retries what is `transient`, and counts.

    Args:
        endpoint: the URL; a store takes its own options out of it.

    Attributes:
        OPTIONS: the names of those options.
        ROWS: how many rows one `write` is given at most, unless the URL says otherwise.
        CONCURRENCY: how many writes may be under way at a time over one connection.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    ROWS: ClassVar[int] = 5_000
    CONCURRENCY: ClassVar[int] = 4

    @abstractmethod
    def __init__(self, endpoint: Endpoint) -> None: ...

    @abstractmethod
    def connect(self, timeout: float) -> None:
        """Open the connection, and make sure that it answers.

        Args:
            timeout: seconds that any one call to the store may take, this one included.

        Raises:
            Exception: whatever the client raises.
        """

    def check(self, schema: pl.Schema) -> None:  # noqa: B027 - some stores hold anything
        """Make sure that it can hold rows of a schema, without asking it; called while the pipeline is built.

        Raises:
            SchemaError: a column that an option names is missing or of the wrong type.
            OutputError: a column's type has no place there.
        """

    def ensure(self, schema: pl.Schema) -> None:  # noqa: B027 - not every store has tables
        """Create or check tables and indexes for rows of a schema, once, before any is written.

        Raises:
            OutputError: if what is there does not fit.
        """

    @abstractmethod
    def write(self, table: pl.DataFrame) -> pl.DataFrame | None:
        """Write rows so that doing it again changes nothing. Called by several threads at a time.

        Returns:
            The rows that the store refused, marked by `fabric_beam.kernel.reject`; None if it took all.

        Raises:
            Exception: whatever the client raises when none, or an unknown number, of the rows were written.
        """

    def abandon(self, table: pl.DataFrame) -> pl.DataFrame:
        """Give up rows that `write` failed on and that are not tried again: nothing of them is to be written later.

        Returns:
            Those of them that may not have been written.
        """
        return table

    @abstractmethod
    def transient(self, error: Exception) -> bool:
        """Whether an error may pass: the store is down, slow or full, not wrongly addressed or asked."""

    def close(self) -> None:  # noqa: B027 - not every client has to be closed
        """Close the connection."""


def identities(table: pl.DataFrame, key: list[str]) -> pl.Series:
    """A text for each row that is the same whenever the row is made again: what upserts are keyed by.

    Args:
        table: rows.
        key: the columns that tell rows apart. Without any, it is `source` and `offset`; for rows that do not have
            these, such as aggregates, or where one is null, all columns but floating-point ones, whose last digits
            depend on the order of work. Of dead letters, which several steps may have made of one row, it is all but
            the message.

    Returns:
        `a.log:1520`, or a hash of the columns.

    Example:
        >>> identities(pl.DataFrame({"source": ["a.log"], "offset": [7]}), []).to_list()
        ['a.log:7']
        >>> identities(pl.DataFrame({"minute": [1, 2], "rate": [0.1, 0.2]}), []).to_list()
        ['12891ccbc457348bd40a64c32f4ad6a2', '37cd332006429901414d7b8cdd3792d6']
    """
    if not key and dict(table.schema) == dict(dead_letters.SCHEMA):
        key = _LETTER
    if key or not set(PROVENANCE) <= set(table.columns):
        return _hashes(table, key)
    ids = table.select(pl.format("{}:{}", *PROVENANCE).alias("id"))["id"]
    if not ids.null_count():
        return ids
    # Rows that came from nowhere must not all be one.
    return ids.scatter(ids.is_null().arg_true(), _hashes(table.filter(ids.is_null()), key))


def _hashes(table: pl.DataFrame, key: list[str]) -> pl.Series:
    columns = key or [name for name, dtype in table.schema.items() if not dtype.is_float()] or table.columns
    texts = to_json(table.select(columns))
    return pl.Series("id", [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts], pl.String)
