"""Enrich: add columns from a reference table, and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from fabric_beam.errors import SchemaError, UsageError, nearest
from fabric_beam.kernel import Split, reject
from fabric_beam.map_batches import MapBatches
from fabric_beam.reference import Reference, read_reference, typed

_MISSES = ("null", "drop", "reject")
_FOUND = "\0found"


class Enrich(MapBatches):
    """Add columns from a small reference table, by equal keys, and constant columns.

    Args:
        table: a table with one row a key: a `.csv` (with a header), `.json` (an array of objects, or one object a
            line), `.jsonl` or `.parquet` file, or a DataFrame. It is read while the pipeline is built, travels with it
            and is joined to each batch by a hash of the whole table, so it suits up to some 100,000 rows.
        on: the key columns: names that events and table share, or a mapping from the event's names to the table's.
        columns: the table's columns to add; all but its keys, unless given.
        prefix: put before the names of the added columns, such as `host.`.
        miss: what becomes of an event whose key the table lacks, or is null: `null` keeps it with nulls, `drop` filters
            it, `reject` sends it to the dead letters by the rule `enrich`.
        metadata: constant text columns, such as `{"deployment.environment.name": "production"}`.

    Columns in: the keys. Columns out: all that came in, the table's, and the constants. Row order is kept.

    Raises:
        UsageError: while the pipeline is built, for a file that cannot be read, a column that is missing or already
            there, and a key that is empty, stands twice or does not fit the events' type.

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
        columns: Sequence[str] | None = None,
        prefix: str = "",
        miss: Literal["null", "drop", "reject"] = "null",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(filters=miss == "drop")
        names = [on] if isinstance(on, str) else on
        self.on = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
        if miss not in _MISSES:
            raise UsageError(f"Enrich: miss={miss!r} is unknown. {nearest(str(miss), _MISSES)}")
        if (table is None) != (not self.on):
            raise UsageError("Enrich: a table needs key columns (on=…), and key columns need a table.")
        if table is None and not metadata:
            raise UsageError("Enrich: give it a table with its key columns, or metadata.")
        self.table = table
        self.columns = columns
        self.prefix = prefix
        self.miss = miss
        self.metadata = dict(metadata or {})

    def bind(self, schema: pl.Schema) -> EnrichKernel:
        for key in self.on:
            if key not in schema:
                raise SchemaError(f"there is no key column {key!r}. {nearest(key, schema)}")
        reference = read_reference(pl.DataFrame() if self.table is None else self.table)
        lookup = _lookup(reference, self.on, schema, self.columns, self.prefix) if self.on else reference.rows
        for name in self.metadata:
            if name in schema or name in lookup.columns:
                raise SchemaError(f"there is a column {name!r} already: choose another name in metadata.")
        return EnrichKernel(lookup, tuple(self.on), self.miss, self.metadata, reference.name)


class EnrichKernel:
    """Add a table's columns by equal keys, and constants; see `Enrich`.

    Args:
        lookup: the key columns, named as in the events, and the columns to add; one row a key.
        keys: the key columns; none adds the constants alone.
        miss: `null`, `drop` or `reject`.
        metadata: constant text columns.
        where: the table's name in messages.

    Example:
        >>> hosts = pl.DataFrame({"host.name": ["a"], "rack": [12]})
        >>> result = EnrichKernel(hosts, ["host.name"], "reject")(pl.DataFrame({"host.name": ["b"]}))
        >>> result.rejected["rejected.message"].item()
        "the table has no row for host.name = 'b'"
    """

    def __init__(
        self,
        lookup: pl.DataFrame,
        keys: Sequence[str],
        miss: str = "null",
        metadata: Mapping[str, str] | None = None,
        where: str = "the table",
    ) -> None:
        self._lookup = lookup.with_columns(pl.lit(True).alias(_FOUND)) if miss == "reject" and keys else lookup
        self._keys = list(keys)
        self._how: Literal["inner", "left"] = "inner" if miss == "drop" else "left"
        self._constants = [pl.lit(value, dtype=pl.String).alias(name) for name, value in (metadata or {}).items()]
        shown = [pl.concat_str(pl.lit("'"), pl.col(key), pl.lit("'")).fill_null("null") for key in self._keys]
        pairs = [pl.concat_str(pl.lit(f"{key} = "), value) for key, value in zip(self._keys, shown, strict=True)]
        self._message = pl.concat_str(pl.lit(f"{where} has no row for "), pl.concat_str(pairs, separator=", "))

    def __call__(self, table: pl.DataFrame) -> pl.DataFrame | Split:
        if not self._keys:
            return table.with_columns(self._constants)
        joined = table.join(self._lookup, on=self._keys, how=self._how, maintain_order="left")
        if _FOUND not in self._lookup.columns:
            return joined.with_columns(self._constants)
        missing = joined[_FOUND].is_null()
        kept = joined.drop(_FOUND).with_columns(self._constants)
        if not missing.any():
            return kept
        return Split(kept.filter(~missing), reject(table.filter(missing), "enrich", self._message))


def _lookup(
    reference: Reference, on: Mapping[str, str], schema: pl.Schema, columns: Sequence[str] | None, prefix: str
) -> pl.DataFrame:
    """The keys, named and typed as in the events, and the columns to add; one row a key."""
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
    for name in added:
        if prefix + name in schema:
            raise SchemaError(f"the events have a column {prefix + name!r} already: choose columns or a prefix.")
    values = [typed(rows[name]) if reference.untyped else rows[name] for name in added]
    return keys.with_columns(column.alias(prefix + column.name) for column in values)


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
