"""What every store is to `Enrich`: a small class each, without caches, retries or miss policies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import polars as pl

from fabric_beam.contract import TYPES
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import UsageError
from fabric_beam.kernel import Split


class Lookup(ABC):
    """A store in which rows are looked up by key, over one connection.

    It is made from an endpoint while the pipeline is built and sent to the workers; only `connect` opens anything.
    `LookupCache` calls the rest, retries what is `transient`, and remembers the answers.

    Args:
        endpoint: the URL; a lookup takes its own options out of it.

    Attributes:
        OPTIONS: the names of those options.
        KEYS: how many keys one `get` is given at most: as many as one request takes, well within the time limit.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    KEYS: ClassVar[int] = 10_000

    @abstractmethod
    def __init__(self, endpoint: Endpoint) -> None: ...

    def check(self, keys: pl.Schema) -> None:  # noqa: B027 - not every store minds
        """Make sure, without a connection, that it can be asked by such keys; called while the pipeline is built.

        Args:
            keys: the key columns, by the names they have in the store, with the types of the events' columns.

        Raises:
            UsageError: if it cannot.
        """

    @abstractmethod
    def connect(self, timeout: float) -> None:
        """Open the connection, and make sure that it answers.

        Args:
            timeout: seconds that any one call, this one and each `get` included, may take.

        Raises:
            Exception: whatever the client raises.
        """

    def schema(self, keys: pl.Schema) -> pl.Schema:
        """The columns that can be looked up, and their types: from the store's own schema, or a sample of its rows.

        Called once while the pipeline is built, connected, and only if the caller has not declared them.

        Args:
            keys: as for `check`.

        Returns:
            Columns and types, without the keys.

        Raises:
            UsageError: the store cannot tell.
        """
        raise UsageError(
            "this store cannot tell the types of its columns. Declare them: columns={'tier': pl.String} in Python, "
            "fabric.columns=tier:string,quota:int in a URL."
        )

    @abstractmethod
    def get(self, keys: pl.DataFrame, columns: pl.Schema) -> pl.DataFrame | Split:
        """Look up rows by key, in one bulk request. Called by several threads at a time.

        Args:
            keys: distinct keys without nulls, at most `KEYS` of them, at least one; columns as for `check`.
            columns: the columns wanted and their types.

        Returns:
            The rows found, in any order: the key columns as they were given and the columns wanted, with exactly their
            types; fields that a row lacks are null. Of several rows with one key the last is taken. Keys that are not
            among them are not in the store. A `Split` if there are rows that cannot be read as such columns: `rejected`
            has their key columns and `rejected.message`.

        Raises:
            Exception: whatever the client raises when the answer to any key is not known.
        """

    @abstractmethod
    def transient(self, error: Exception) -> bool:
        """Whether an error may pass: the store is down, slow or full, not wrongly addressed or asked."""

    def close(self) -> None:  # noqa: B027 - not every client has to be closed
        """Close the connection."""


def column_types(text: str) -> dict[str, pl.DataType] | list[str]:
    """What `fabric.columns=` of a URL says: names with types, or names alone.

    Raises:
        ValueError: a type is not known, or only some have one.

    Example:
        >>> column_types("tier:string,quota:int")
        {'tier': String, 'quota': Int64}
        >>> column_types("tier,quota")
        ['tier', 'quota']
    """
    parts = [part.rpartition(":") for part in text.split(",")]
    if all(not colon for _, colon, _ in parts):
        return [name for _, _, name in parts]
    if not all(name and kind in TYPES for name, _, kind in parts):
        raise ValueError(text)
    return {name: TYPES[kind] for name, _, kind in parts}


column_types.__name__ = f"names, or names with types such as tier:string,quota:int ({', '.join(TYPES)})"
