"""What every source that is a store shares: splits, pages, retries, provenance, dead letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, Self
from urllib.parse import urlsplit, urlunsplit

import apache_beam as beam
import polars as pl
import tenacity
from apache_beam.transforms.error_handling import ErrorHandler

from fabric_beam import dead_letters, ledger
from fabric_beam.batches import BatchOf, arrow_schema, to_batch
from fabric_beam.contract import TYPES
from fabric_beam.contract_file import load_contract
from fabric_beam.endpoints import Endpoint, step
from fabric_beam.errors import FabricBeamError, InputError, RejectedRowsError, SchemaError
from fabric_beam.io.store import PROVENANCE
from fabric_beam.io.store_reader import Page, StoreReader
from fabric_beam.kernel import MESSAGE, RULE, reject
from fabric_beam.map_batches import DEAD_LETTERS
from fabric_beam.memory import keep_freed_buffers
from fabric_beam.option_kinds import positive
from fabric_beam.progress import PROGRESS

#: Options that every store's URL takes when it is read.
OPTIONS = ("timeout", "call_timeout", "schema")
#: The rule of rows that have a value of another type than their column.
TYPE = "type"


class ReadStore(beam.PTransform):
    """Read the rows that a store holds.

    Its ranges are read side by side, each page again until the store gives it; every row is there once. A row that
    has no place in the schema becomes a dead letter.

    Args:
        endpoints: URLs of stores. Besides the store's own options they take `schema` (the file of a data contract:
            types of its fields, where the store has none or they are not to be guessed), `timeout` (seconds that a
            page is tried for, 120) and `call_timeout` (seconds that one call to the store may take, 15).
        limit: read at most this many rows, range by range.

    Output: batches with the store's columns, those of several stores together; `source` and `offset` are what the
    stored rows have, else the URL with the row's key, and 0. A stored column of such a name that is no provenance gets
    the prefix `attributes.`.

    Raises:
        InputError: the store does not answer, refuses, or has nothing of that name.
        SchemaError: a column has different types in several stores.
    """

    reader: ClassVar[type[StoreReader]]

    def __init__(self, endpoints: Sequence[Endpoint], *, limit: int | None = None) -> None:
        super().__init__()
        self._limit = limit
        self._stores = [_Store.of(endpoint, self.reader) for endpoint in endpoints]
        self._plan: tuple[pl.Schema, list[tuple[int, str]]] | None = None
        self._error_handler: ErrorHandler | None = None

    def with_error_handler(self, error_handler: ErrorHandler | None) -> Self:
        """Send rows that have no place in the schema to one of Beam's error handlers instead of failing the run."""
        self._error_handler = error_handler
        return self

    def sample(self, rows: int = 1000) -> list[str]:
        """The first rows' bodies: what a format's schema is inferred from."""
        schema, work = self._planned()
        found: list[str] = []
        if schema.get("body") != pl.String:
            return found
        for number, split in work:
            for page in _pages(self._stores[number], split):
                found += page.table["body"].drop_nulls().head(rows - len(found)).to_list()
                if len(found) == rows:
                    return found
        return found

    def expand(self, pbegin: Any) -> beam.PCollection:
        label = step(pbegin.pipeline)
        schema, splits = self._planned()
        # Reading in order up to a limit takes one reader; else every split is work of its own.
        work = [splits] if self._limit is not None else [[split] for split in splits]
        outputs = (
            pbegin
            | "Splits" >> beam.Create(work, reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Rows"
            >> beam.ParDo(
                _ReadRows(label, self._stores, schema, self._limit, self._error_handler is not None)
            ).with_outputs(DEAD_LETTERS, main="rows")
        )
        outputs.rows.element_type = BatchOf(arrow_schema(pl.DataFrame(schema=schema)))
        outputs[DEAD_LETTERS].element_type = BatchOf(arrow_schema(pl.DataFrame(schema=dead_letters.SCHEMA)))
        if self._error_handler is not None:
            self._error_handler.add_error_pcollection(outputs[DEAD_LETTERS])
        return outputs.rows

    def _planned(self) -> tuple[pl.Schema, list[tuple[int, str]]]:
        """The schema of what comes out, and each store's splits by the store's number; asked for once."""
        if self._plan is None:
            columns: dict[str, pl.DataType] = {}
            splits: list[tuple[int, str]] = []
            for number, store in enumerate(self._stores):
                with store.connected() as reader:
                    schema = _with_provenance(reader.schema(store.declared))
                    splits += [(number, split) for split in reader.splits()]
                for name, dtype in schema.items():
                    if columns.setdefault(name, dtype) != dtype:
                        raise SchemaError(
                            f"{store.endpoint.url}: its column {name!r} is {dtype}, and {columns[name]} in the stores "
                            "before it. Give both the same types (schema=CONTRACT.yaml), or read them apart."
                        )
            self._plan = pl.Schema(columns), splits
        return self._plan


class _Store(NamedTuple):
    """A store that is read, and how long it may take."""

    endpoint: Endpoint
    reader: StoreReader
    declared: pl.Schema
    timeout: float
    call_timeout: float

    @classmethod
    def of(cls, endpoint: Endpoint, kind: type[StoreReader]) -> Self:
        timeout = endpoint.option("timeout", positive(float), 120.0)
        call_timeout = endpoint.option("call_timeout", positive(float), 15.0)
        contract = endpoint.option("schema", str, "")
        fields = load_contract(contract).fields if contract else ()
        reader = kind(endpoint)
        endpoint.no_more_options(*kind.OPTIONS, *OPTIONS)
        # A variable that is not set is known here, not in a worker.
        _ = endpoint.target
        declared = pl.Schema({field.name: TYPES[field.type] for field in fields})
        return cls(endpoint, reader, declared, timeout, call_timeout)

    @contextmanager
    def connected(self) -> Iterator[StoreReader]:
        """The reader with a connection, for a while.

        Raises:
            InputError: an error, in words.
        """
        try:
            self.reader.connect(self.call_timeout)
            yield self.reader
        except Exception as error:
            raise self.explained(error) from error
        finally:
            self.reader.close()

    def explained(self, error: BaseException) -> FabricBeamError:
        """What an error means for the one who gave the URL; no secrets are in it."""
        if isinstance(error, FabricBeamError):
            return error
        passing = self.passing(error)
        hint = (
            f"It does not answer (call_timeout={self.call_timeout:g}, timeout={self.timeout:g}): check the address, "
            "and that it runs."
            if passing
            else "Check the URL, the user, the password and what the user may read."
        )
        return InputError(
            self.endpoint.clean(f"{self.endpoint.url} cannot be read: {type(error).__name__}: {error}. {hint}")
        )

    def passing(self, error: BaseException) -> bool:
        """Whether it may go well another time."""
        return isinstance(error, Exception) and not isinstance(error, FabricBeamError) and self.reader.transient(error)

    @property
    def place(self) -> str:
        """The URL without user and options: what the keys of rows are added to."""
        parts = urlsplit(self.endpoint.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/") + "/"


def _pages(store: _Store, split: str) -> Iterator[Page]:
    """The pages of a split, each once: after an error that may pass, the store is asked for what comes next."""
    pages: Iterator[Page] | None = None
    rest = split

    def following() -> Page | None:
        nonlocal pages
        try:
            if pages is None:
                store.reader.connect(store.call_timeout)
                pages = store.reader.read(rest)
            return next(pages, None)
        except BaseException:
            pages = None
            store.reader.close()
            raise

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(store.passing),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
        stop=tenacity.stop_after_delay(store.timeout),
        reraise=True,
    )
    try:
        while (page := retrying(following)) is not None:
            rest = page.rest
            yield page
    except Exception as error:
        raise store.explained(error) from error
    finally:
        store.reader.close()


class _ReadRows(beam.DoFn):
    """Reads splits, counts their rows, and keeps apart those that have no place in the schema."""

    def __init__(
        self, step: str, stores: Sequence[_Store], schema: pl.Schema, limit: int | None, handled: bool
    ) -> None:
        self._step = step
        self._stores = stores
        self._schema = schema
        self._limit = limit
        self._handled = handled
        self._account = ledger.Account(step)

    def setup(self) -> None:
        keep_freed_buffers()

    def process(self, work: list[tuple[int, str]]) -> Iterator[Any]:
        left = self._limit
        for number, split in work:
            store = self._stores[number]
            for page in _pages(store, split):
                rows, letters = self._rows(page, store.place), self._letters(page, store.place)
                if left is not None:
                    rows = rows.head(left)
                    letters = letters.head(left - rows.height)
                    left -= rows.height + letters.height
                for role, count in (
                    ("read", rows.height + letters.height),
                    ("in", rows.height + letters.height),
                    ("out", rows.height),
                    ("rejected", letters.height),
                ):
                    self._account.add(role, count)
                PROGRESS.add(rows=rows.height + letters.height, dead_letters=letters.height)
                if letters.height:
                    if not self._handled:
                        raise RejectedRowsError(self._explain(letters))
                    yield beam.pvalue.TaggedOutput(DEAD_LETTERS, to_batch(letters))
                if rows.height:
                    yield to_batch(rows)
                if left == 0:
                    return

    def _rows(self, page: Page, place: str) -> pl.DataFrame:
        table = page.table
        own = {"source": pl.lit(place) + pl.lit(page.keys), "offset": pl.lit(0, pl.Int64)}
        if _has_provenance(table.schema):
            # Stored rows that came from elsewhere have none.
            there = pl.col("source").is_not_null() & pl.col("offset").is_not_null()
            own = {name: pl.when(there).then(pl.col(name)).otherwise(made) for name, made in own.items()}
        else:
            table = table.rename(_moved(table.schema))
        table = table.with_columns(made.cast(_PROVENANCE[name]).alias(name) for name, made in own.items())
        missing = [pl.lit(None, dtype).alias(n) for n, dtype in self._schema.items() if n not in table.columns]
        return table.with_columns(missing).select(self._schema.names())

    def _letters(self, page: Page, place: str) -> pl.DataFrame:
        if page.rejected is None:
            return pl.DataFrame(schema=dead_letters.SCHEMA)
        rows = page.rejected.select(
            pl.col("payload").alias(dead_letters.ORIGINAL),
            (pl.lit(place) + pl.col("key")).alias("source"),
            pl.lit(0, pl.Int64).alias("offset"),
            "message",
        )
        marked = reject(rows, TYPE, pl.col("message"))
        return dead_letters.dead_letters(marked.select(dead_letters.ORIGINAL, *PROVENANCE, RULE, MESSAGE), self._step)

    def _explain(self, letters: pl.DataFrame) -> str:
        first = letters.row(0, named=True)
        return (
            f"{self._step}: {letters.height} row(s) of a page do not fit the schema; the first, {first['source']}: "
            f"{first['message']}. Give the type (schema=CONTRACT.yaml), or collect such rows by an error handler: "
            ".with_error_handler(handler)."
        )


_PROVENANCE = {"source": pl.String(), "offset": pl.Int64()}


def _has_provenance(schema: pl.Schema) -> bool:
    return schema.get("source") == pl.String and schema.get("offset", pl.Null()).is_integer()


def _moved(schema: pl.Schema) -> dict[str, str]:
    """What stored columns are called that have the names of provenance and are none."""
    return {name: f"attributes.{name}" for name in PROVENANCE if name in schema}


def _with_provenance(schema: pl.Schema) -> pl.Schema:
    moved = {} if _has_provenance(schema) else _moved(schema)
    return pl.Schema({**{moved.get(name, name): dtype for name, dtype in schema.items()}, **_PROVENANCE})
