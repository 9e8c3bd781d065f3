"""What every store is to its source: one small class each, without retries, provenance or dead letters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import polars as pl

from fabric_beam.endpoints import Endpoint


class Page(NamedTuple):
    """Rows that were read at once.

    Args:
        table: the rows, of exactly the reader's schema.
        keys: a text for each of them that no other row of the store has, and that it always has.
        rest: what of the split comes after these rows: a split as well.
        rejected: rows that have no place in the schema: their `key`, `payload` and `message`, all texts; None for none.
    """

    table: pl.DataFrame
    keys: pl.Series
    rest: str
    rejected: pl.DataFrame | None = None

    @property
    def height(self) -> int:
        """How many rows were read."""
        return self.table.height + (0 if self.rejected is None else self.rejected.height)


class StoreReader(ABC):
    """A table, collection or keyspace that rows are read from, over one connection.

    It is made from an endpoint and asked for its schema and its splits while the pipeline is built, then closed and
    sent to the workers with what it learned. `ReadStore` calls all of it, connects again and retries what is
    `transient`.

    Args:
        endpoint: the URL; a reader takes its own options out of it.

    Attributes:
        OPTIONS: the names of those options.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()

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

    @abstractmethod
    def schema(self, declared: pl.Schema) -> pl.Schema:
        """Find the rows' columns and types; called first after `connect`, while the pipeline is built.

        Args:
            declared: types that were given by the URL; they go before what the store says, where it lets one choose.

        Raises:
            InputError: there is nothing of that name; the message says what there is.
        """

    @abstractmethod
    def splits(self) -> list[str]:
        """Ranges that hold every row once and can be read side by side; called once, while the pipeline is built, so
        that work which is done again is the same. What comes in later may or may not be read."""

    @abstractmethod
    def read(self, split: str) -> Iterator[Page]:
        """Read a range, or what is left of one, in pages of some tens of thousands of rows.

        Raises:
            Exception: whatever the client raises. It is then closed, connected, and asked for the `rest` of the page
                before.
        """

    @abstractmethod
    def transient(self, error: Exception) -> bool:
        """Whether an error may pass: the store is down, slow or full, not wrongly addressed or asked."""

    def close(self) -> None:  # noqa: B027 - not every client has to be closed
        """Close the connection."""
