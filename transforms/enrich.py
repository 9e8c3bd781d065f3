"""Enrich: add columns from a reference table or a store, and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import polars as pl

from fabric_beam.errors import SchemaError, UsageError, nearest
from fabric_beam.kernel import Split, reject
from fabric_beam.lookups.cache import Answers
from fabric_beam.lookups.key_table import KeyTable
from fabric_beam.lookups.options import Cache
from fabric_beam.lookups.shared import SharedLookup, miss_of, names_store
from fabric_beam.map_batches import MapBatches
from fabric_beam.reference import Reference, read_reference, typed

_MISSES = ("null", "drop", "reject")


class Enrich(MapBatches):
    """Add columns from a reference table or a store, by equal keys, and constant columns.

    The distinct keys of a batch that are not remembered are looked up in a store in one request. Beam's own
    `Enrichment` and `RequestResponseIO` do not serve: they take one element, and so one row, a call.

    Args:
        table: a table with one row a key: a `.csv` (with a header), `.json` (an array of objects, or one object a
            line), `.jsonl` or `.parquet` file, or a DataFrame, which is read while the pipeline is built and travels
            with it; or the URL of a store, such as `redis://host/0?key=user:{user.id}`, that is asked while it runs,
            so that it may change.
        on: the key columns: names that events and table share, or a mapping from the event's names to the table's.
        columns: the table's columns to add; all but its keys, unless given. Of a store that cannot tell its types, a
            mapping from names to types, such as `{"tier": pl.String}`.
        prefix: put before the names of the added columns, such as `host.`.
        miss: what becomes of an event whose key the table lacks, or is null: `null` keeps it with nulls, `drop` filters
            it, `reject` sends it to the dead letters by the rule `enrich`. A store's URL may say so itself, as
            `fabric.miss=drop`, and so may a file's name: `hosts.csv?fabric.miss=drop`.
        metadata: constant text columns, such as `{"deployment.environment.name": "production"}`.
        cache: how long a store's answers are remembered, and what follows if it does not answer.

    Columns in: the keys. Columns out: all that came in, the table's, and the constants. Row order is kept.

    Raises:
        UsageError: while the pipeline is built, for a file that cannot be read, a column that is missing or already
            there, a key that is empty, stands twice or does not fit the events' type, and a URL that is wrong.
        InputError: a store whose columns are not declared does not answer while the pipeline is built; or a store
            refuses to answer while it runs.

    Example:
        >>> from fabric_beam.testing import batch, collect
        >>> hosts = pl.DataFrame({"host": ["a"], "rack": [12]})
        >>> collect(batch(host__name=["a", "b"]), Enrich(hosts, {"host.name": "host"}, prefix="host.")).rows()
        [('a', 12), ('b', None)]
    """

    def __init__(
        self,
        table: str | Path | pl.DataFrame | None = None,
        on: str | Sequence[str] | Mapping[str, str] = (),
        *,
        columns: Sequence[str] | Mapping[str, Any] | None = None,
        prefix: str = "",
        miss: Literal["null", "drop", "reject"] = "null",
        metadata: Mapping[str, str] | None = None,
        cache: Cache | None = None,
    ) -> None:
        table, policy = miss_of(table, miss)
        super().__init__(filters=policy == "drop")
        names = [on] if isinstance(on, str) else on
        self.on = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
        if policy not in _MISSES:
            raise UsageError(f"Enrich: miss={policy!r} is unknown. {nearest(str(policy), _MISSES)}")
        if (table is None) != (not self.on):
            raise UsageError("Enrich: a table needs key columns (on=…), and key columns need a table.")
        if table is None and not metadata:
            raise UsageError("Enrich: give it a table with its key columns, or metadata.")
        if not names_store(table) and (cache is not None or isinstance(columns, Mapping)):
            raise UsageError("Enrich: a cache, and columns with types, are for the URL of a store.")
        self.table = table
        self.columns = columns
        self.prefix = prefix
        self.miss = policy
        self.metadata = dict(metadata or {})
        self.cache = cache

    def bind(self, schema: pl.Schema) -> EnrichKernel:
        for key in self.on:
            if key not in schema:
                raise SchemaError(f"there is no key column {key!r}. {nearest(key, schema)}")
        source = self._source(schema)
        added = [] if source is None else [self.prefix + name for name in source.columns]
        for name in added:
            if name in schema:
                raise SchemaError(f"the events have a column {name!r} already: choose columns or a prefix.")
        for name in self.metadata:
            if name in schema or name in added:
                raise SchemaError(f"there is a column {name!r} already: choose another name in metadata.")
        return EnrichKernel(source, self.on, self.prefix, self.miss, self.metadata)

    def _source(self, schema: pl.Schema) -> Source | None:
        if self.table is None:
            return None
        if isinstance(self.table, str) and names_store(self.table):
            keys = pl.Schema({name: schema[key] for key, name in self.on.items()})
            return SharedLookup(self.table, keys, self.columns, self.cache)
        return _Table(read_reference(self.table), self.on, schema, self.columns)


class Source(Protocol):
    """Where keys are looked up.

    Attributes:
        name: what messages call it.
        columns: those that it gives, and their types.
    """

    name: str
    columns: pl.Schema

    def find(self, keys: pl.DataFrame) -> Answers:
        """Look up keys, whose columns are named as in the table."""

    def close(self) -> None:
        """Let go of what it holds."""


class EnrichKernel:
    """Add columns by equal keys, and constants; see `Enrich`.

    Args:
        source: where keys are looked up; None adds the constants alone.
        on: the key columns: the events' names, and the source's.
        prefix: put before the names of the added columns.
        miss: `null`, `drop` or `reject`.
        metadata: constant text columns.
    """

    def __init__(
        self, source: Source | None, on: Mapping[str, str], prefix: str, miss: str, metadata: Mapping[str, str]
    ) -> None:
        self._source = source
        self._keys = [pl.col(key).alias(name) for key, name in on.items()]
        columns = source.columns if source else pl.Schema()
        self._names = {name: prefix + name for name in columns}
        self._empty = pl.DataFrame(schema={prefix + name: dtype for name, dtype in columns.items()})
        self._miss = miss
        self._constants = [pl.lit(value, dtype=pl.String).alias(name) for name, value in metadata.items()]
        shown = [pl.concat_str(pl.lit("'"), pl.col(key), pl.lit("'")).fill_null("null") for key in on]
        pairs = [pl.concat_str(pl.lit(f"{key} = "), value) for key, value in zip(on, shown, strict=True)]
        where = source.name if source else ""
        self._message = pl.concat_str(pl.lit(f"{where} has no row for "), pl.concat_str(pairs, separator=", "))

    def __call__(self, table: pl.DataFrame) -> pl.DataFrame | Split:
        if self._source is None:
            return table.with_columns(self._constants)
        if not table.height:
            # While the pipeline is built nothing is asked.
            return table.hstack(self._empty).with_columns(self._constants)
        answers = self._source.find(table.select(self._keys))
        wide = table.hstack(answers.rows.rename(self._names)).with_columns(self._constants)
        failed = answers.failures.is_not_null()
        missing = ~answers.found & ~failed
        gone = failed if self._miss == "null" else failed | missing
        if not gone.any():
            return wide
        rejected = reject(table.filter(failed), "lookup", pl.lit(answers.failures.filter(failed)))
        if self._miss == "reject":
            rejected = pl.concat([rejected, reject(table.filter(missing), "enrich", self._message)])
        return Split(wide.filter(~gone), rejected)

    def close(self) -> None:
        """Let go of connections."""
        if self._source is not None:
            self._source.close()


class _Table:
    """A reference table, found by key."""

    def __init__(
        self,
        reference: Reference,
        on: Mapping[str, str],
        schema: pl.Schema,
        columns: Sequence[str] | Mapping[str, Any] | None,
    ) -> None:
        keys, rows = _lookup(reference, on, schema, list(columns) if columns is not None else None)
        self.name = reference.name
        self.columns = rows.schema
        self._table = KeyTable(keys, rows)

    def find(self, keys: pl.DataFrame) -> Answers:
        rows, found = self._table.find(keys)
        return Answers(rows, found, pl.repeat(None, keys.height, dtype=pl.String, eager=True))

    def close(self) -> None: ...


def _lookup(
    reference: Reference, on: Mapping[str, str], schema: pl.Schema, columns: Sequence[str] | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The keys, typed as in the events, and the columns to add; one row a key."""
    for column in (*on.values(), *(columns or ())):
        if column not in reference.rows.columns:
            raise UsageError(f"{reference.name}: no column {column!r}. {nearest(column, reference.rows.columns)}")
    rows = reference.rows.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
    keys = pl.DataFrame([_key(reference, rows[column], key, schema[key]) for key, column in on.items()])
    same = keys.with_row_index("\0row").group_by(keys.columns, maintain_order=True).agg("\0row")
    twice = same.filter(pl.col("\0row").list.len() > 1)
    if twice.height:
        *values, places = twice.row(0)
        shown = ", ".join(f"{column} = {value!r}" for column, value in zip(on.values(), values, strict=True))
        raise UsageError(
            f"{reference.name}: the key {shown} stands in {reference.place(*places[:2])}; each may stand once."
        )
    added = columns if columns is not None else [name for name in rows.columns if name not in on.values()]
    values = [typed(rows[name]) if reference.untyped else rows[name] for name in added]
    return keys.rename(dict(on)), pl.DataFrame(values)


def _key(reference: Reference, values: pl.Series, key: str, dtype: pl.DataType) -> pl.Series:
    """The table's key column in the type of the events' column, if every value keeps its meaning."""
    convertible = (
        values.dtype == dtype
        or (values.dtype == pl.String and dtype.is_numeric())
        or (values.dtype.is_integer() and dtype == pl.String)
        or (values.dtype.is_numeric() and dtype.is_numeric())
    )
    if not convertible or dtype.is_nested():
        raise UsageError(
            f"{reference.name}: the key column {values.name!r} is {values.dtype}, and the events' {key!r} is {dtype}: "
            "convert one of them."
        )
    converted = values.cast(dtype, strict=False)
    lost = converted.is_null()
    if values.dtype.is_numeric():
        lost |= converted.cast(values.dtype, strict=False) != values
    if lost.any():
        row = int(lost.arg_true()[0])
        problem = (
            "is empty" if values[row] is None else f"is {values[row]!r}, which is no {dtype} as in the events' {key!r}"
        )
        raise UsageError(f"{reference.name}: the key {values.name!r} in {reference.place(row)} {problem}.")
    return converted.alias(key)
