"""The second level of a lookup's cache: answers that several processes and runs share, in a store of their own."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import polars as pl

from fabric_beam.calls import Calls, Unavailable
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import InputError
from fabric_beam.json_rows import from_json, to_json

#: Beside the columns that were looked up: whether the key is in the store, and why its row could not be read.
FOUND = "\0found"
FAILURE = "\0failure"
STATUS = pl.Schema({FOUND: pl.Boolean(), FAILURE: pl.String()})

Times = np.ndarray[Any, np.dtype[np.float64]]


class SecondLevel(ABC):
    """A store of texts that forgets them after a time.

    Args:
        endpoint: the URL; a store takes its own options out of it.

    Attributes:
        OPTIONS: the names of those options.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __init__(self, endpoint: Endpoint) -> None: ...

    @abstractmethod
    def connect(self, timeout: float) -> None:
        """Open the connection, and make sure that it answers; any one call may take so many seconds."""

    @abstractmethod
    def get(self, names: Sequence[str]) -> list[str | None]:
        """The texts under some names, None where there is none. Called by several threads at a time."""

    @abstractmethod
    def put(self, names: Sequence[str], texts: Sequence[str], milliseconds: Sequence[int]) -> None:
        """Keep texts, each for so many milliseconds. Called by several threads at a time."""

    @abstractmethod
    def transient(self, error: Exception) -> bool:
        """Whether an error may pass."""

    def close(self) -> None:  # noqa: B027 - not every client has to be closed
        """Close the connection."""


class SharedAnswers:
    """What was looked up, as JSON texts in a second level. One that is away is done without.

    Args:
        level: where they are.
        endpoint: its URL, for messages.
        source: what names the source: its URL without secrets.
        keys: the key columns.
        columns: the columns looked up.
        timeout: seconds that it may take to answer.
    """

    def __init__(
        self,
        level: SecondLevel,
        endpoint: Endpoint,
        source: str,
        keys: pl.Schema,
        columns: pl.Schema,
        timeout: float,
    ) -> None:
        self._level = level
        self._endpoint = endpoint
        self._keys = keys
        self._columns = columns
        described = f"{source} {list(keys.items())} {list(columns.items())}"
        # Answers of another form are never read.
        self._prefix = f"fabric-beam:{hashlib.blake2b(described.encode(), digest_size=8).hexdigest()}:"
        self._calls = Calls(level, timeout=0, call_timeout=timeout)

    def read(self, keys: pl.DataFrame) -> tuple[pl.DataFrame, Times]:
        """The answers to some of the keys, with the times when the source gave them."""
        texts = pl.Series(self._call(self._level.get, self._names(keys)) or [None] * keys.height, dtype=pl.String)
        there = texts.is_not_null()
        schema = {"fetched": pl.Float64(), "found": pl.Boolean(), "failure": pl.String()}
        if self._columns:
            schema["row"] = pl.Struct(self._columns)
        try:
            stored = from_json(texts.filter(there), pl.Schema(schema))
        except pl.exceptions.PolarsError:
            # Somebody else's.
            stored, there = pl.DataFrame(schema=schema), pl.repeat(False, keys.height, eager=True)
        values = stored["row"].struct.unnest() if self._columns else pl.DataFrame()
        status = [stored["found"].alias(FOUND), stored["failure"].alias(FAILURE)]
        return pl.concat([keys.filter(there), values], how="horizontal").hstack(status), stored["fetched"].to_numpy()

    def write(self, answers: pl.DataFrame, fetched: float, seconds: Times) -> None:
        """Keep answers that the source gave at a time, each for so many seconds."""
        columns = [
            pl.lit(fetched).alias("fetched"),
            pl.col(FOUND).alias("found"),
            pl.col(FAILURE).alias("failure"),
            *([pl.struct(self._columns.names()).alias("row")] if self._columns else []),
        ]
        texts = to_json(answers.select(columns)).to_list()
        milliseconds = np.ceil(seconds * 1000).astype(int).tolist()
        self._call(self._level.put, self._names(answers), texts, milliseconds)

    def close(self) -> None:
        """Close the connection."""
        self._calls.close()

    def _names(self, keys: pl.DataFrame) -> list[str]:
        return (self._prefix + to_json(keys.select(self._keys.names()))).to_list()

    def _call(self, function: Any, *arguments: Any) -> Any:
        try:
            return self._calls(function, *arguments)[0]
        except Unavailable as error:
            if error.attempts:
                logging.getLogger(__name__).warning(
                    self._endpoint.clean(f"{self._endpoint.url} did not answer; without it: {error}")
                )
            return None
        except Exception as error:
            raise InputError(self._endpoint.clean(f"{self._endpoint.url}: {type(error).__name__}: {error}")) from error
