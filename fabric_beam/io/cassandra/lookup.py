"""Rows looked up in a Cassandra table by their primary key."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import UsageError, nearest
from fabric_beam.io.cassandra import target as targets
from fabric_beam.io.cassandra.decode import decoded, raw_results, read_type
from fabric_beam.io.cassandra.target import Target, quoted, transient
from fabric_beam.io.cassandra.types import fits
from fabric_beam.io.cassandra.values import adapter
from fabric_beam.kernel import MESSAGE, Split
from fabric_beam.lookups.lookup import Lookup

if TYPE_CHECKING:
    from cassandra.cluster import Cluster, Session
    from cassandra.metadata import TableMetadata
    from cassandra.query import PreparedStatement

#: Requests of one `get` that are under way at a time, at most.
_IN_FLIGHT = 64


class CassandraLookup(Lookup):
    """Look up rows: `cassandra://[user:password@]host[:port][,host…]/keyspace/table`.

    The key columns are the table's partition key, and as many of the clustering columns as are wanted, from the first
    one on: of several rows the first in the table's order is taken. Each key is asked for on a node that has it.

    Args:
        endpoint: the URL, with the options of the client that `WriteCassandra` takes; `consistency` is `LOCAL_ONE`.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = targets.OPTIONS
    KEYS: ClassVar[int] = 2_000

    def __init__(self, endpoint: Endpoint) -> None:
        self._target = Target.parse(endpoint, "LOCAL_ONE")
        self._cluster: Cluster | None = None
        self._session: Session | None = None
        self._asked: dict[tuple[str, ...], PreparedStatement] = {}

    def connect(self, timeout: float) -> None:
        self._cluster, self._session = self._target.session(timeout)
        raw_results(self._session)

    def schema(self, keys: pl.Schema) -> pl.Schema:
        names = [name for name in self._table().columns if name not in keys]
        types = {name: cql for _, _, name, cql in self._statement(keys, names).result_metadata}
        found = {name: read_type(types[name]) for name in names}
        return pl.Schema({name: dtype for name, dtype in found.items() if dtype is not None})

    def get(self, keys: pl.DataFrame, columns: pl.Schema) -> pl.DataFrame | Split:
        statement = self._statement(keys.schema, list(columns))
        described = statement.column_metadata
        adapt = [adapter(dtype, column.type) for dtype, column in zip(keys.dtypes, described, strict=True)]
        asked: list[tuple[int, Any]] = []
        for number, key in enumerate(keys.rows()):
            try:
                bound = statement.bind([make(value) for make, value in zip(adapt, key, strict=True)])
            except (ArithmeticError, TypeError, ValueError, OSError):
                # No row has such a key.
                continue
            asked.append((number, bound))
        bodies = self._answers(asked)
        numbers = [number for number, body in bodies for _ in range(int.from_bytes(body[:4], "big"))]
        body = len(numbers).to_bytes(4, "big") + b"".join(body[4:] for _, body in bodies)
        described = statement.result_metadata
        rows = decoded(body, [column[2] for column in described], [column[3] for column in described])
        return _typed(keys[numbers], rows.select(columns.names()), columns)

    def transient(self, error: Exception) -> bool:
        return transient(error)

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.shutdown()
        self._cluster = self._session = None
        self._asked = {}

    def _answers(self, asked: list[tuple[int, Any]]) -> list[tuple[int, bytes]]:
        """The results of requests, by their numbers."""
        assert self._session is not None
        free = threading.Semaphore(_IN_FLIGHT)
        found: list[tuple[int, bytes]] = []
        failed: list[Exception] = []

        def done(rows: Any, number: int) -> None:
            found.append((number, rows[0][0]))
            free.release()

        def error(raised: Exception) -> None:
            failed.append(raised)
            free.release()

        for number, bound in asked:
            free.acquire()
            if failed:
                free.release()
                break
            self._session.execute_async(bound).add_callbacks(done, error, callback_args=(number,))
        for _ in range(_IN_FLIGHT):
            free.acquire()
        if failed:
            raise failed[0]
        return sorted(found)

    def _statement(self, keys: pl.Schema, columns: list[str]) -> PreparedStatement:
        names = (*keys, "", *columns)
        if names not in self._asked:
            table = self._table()
            self._check(table, keys, columns)
            known = {column.name for column in table.primary_key} <= set(keys)
            assert self._session is not None
            place = f"{quoted(table.keyspace_name)}.{quoted(table.name)}"
            statement = self._session.prepare(
                f"SELECT {', '.join(map(quoted, columns or keys))} FROM {place} "
                f"WHERE {' AND '.join(f'{quoted(name)} = ?' for name in keys)}{'' if known else ' LIMIT 1'}"
            )
            for column, (name, dtype) in zip(statement.column_metadata, keys.items(), strict=True):
                if not fits(dtype, column.type):
                    raise UsageError(f"the key {name!r} is {column.type.typename} there, which {dtype} cannot be.")
            self._asked[names] = statement
        return self._asked[names]

    def _check(self, table: TableMetadata, keys: pl.Schema, columns: list[str]) -> None:
        partition, clustering = ([c.name for c in part] for part in (table.partition_key, table.clustering_key))
        given = set(keys) - set(partition)
        if not set(partition) <= set(keys) or given != set(clustering[: len(given)]):
            raise UsageError(
                f"{table.name} has the primary key ({', '.join(partition)}){', ' if clustering else ''}"
                f"{', '.join(clustering)}: rows are looked up by all of its partition key, and by clustering columns "
                f"from the first on, not by {', '.join(keys)}."
            )
        for name in columns:
            if name not in table.columns:
                raise UsageError(f"{table.name} has no column {name!r}. {nearest(name, table.columns)}")

    def _table(self) -> TableMetadata:
        assert self._cluster is not None
        keyspaces, target = self._cluster.metadata.keyspaces, self._target
        tables = keyspaces[target.keyspace].tables if target.keyspace in keyspaces else {}
        if target.table not in tables:
            known = [f"{keyspace.name}.{table}" for keyspace in keyspaces.values() for table in keyspace.tables]
            name = f"{target.keyspace}.{target.table}"
            raise UsageError(f"there is no table {name!r}. {nearest(name, [each for each in known if '.' in each])}")
        return tables[target.table]


def _typed(keys: pl.DataFrame, rows: pl.DataFrame, columns: pl.Schema) -> pl.DataFrame | Split:
    """Rows in the types wanted; rejected, those that have a value of another."""
    made = rows.cast(columns, strict=False)
    wrong = pl.DataFrame([(made[name].is_null() & rows[name].is_not_null()).alias(name) for name in columns])
    bad = wrong.select(pl.any_horizontal(pl.all())).to_series() if columns else pl.Series([], dtype=pl.Boolean)
    if not bad.any():
        return keys.hstack(made.get_columns())
    reasons = [
        next(f"{name} is not {dtype}: {rows[name][n]!r}" for name, dtype in columns.items() if wrong[name][n])
        for n in bad.arg_true().to_list()
    ]
    return Split(
        keys.hstack(made.get_columns()).filter(~bad),
        keys.filter(bad).with_columns(pl.Series(MESSAGE, reasons, dtype=pl.String)),
    )
