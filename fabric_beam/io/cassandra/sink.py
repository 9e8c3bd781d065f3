"""`cassandra:` written: Cassandra, and what speaks its protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.io.cassandra import target as targets
from fabric_beam.io.cassandra.encode import NULL, UNSET, batches
from fabric_beam.io.cassandra.send import prepare, send
from fabric_beam.io.cassandra.tables import OPTIONS, Key, Layout
from fabric_beam.io.cassandra.target import Target
from fabric_beam.io.cassandra.types import converted
from fabric_beam.io.store import Store
from fabric_beam.io.store_sink import StoreSink
from fabric_beam.kernel import reject

if TYPE_CHECKING:
    from cassandra.cluster import Cluster, Session
    from cassandra.query import PreparedStatement

_ROW = "\0row"
_NULLS = {"write": NULL, "skip": UNSET}


@dataclass(frozen=True)
class _Plan:
    """How rows of one schema are written."""

    schema: pl.Schema
    key: Key
    insert: PreparedStatement
    partition: list[int]


class CassandraStore(Store):
    """A table of a Cassandra cluster."""

    OPTIONS: ClassVar[tuple[str, ...]] = (*OPTIONS, "nulls", *targets.OPTIONS)

    def __init__(self, endpoint: Endpoint) -> None:
        self._target = Target.parse(endpoint, "LOCAL_QUORUM")
        self._layout = Layout(endpoint, self._target)
        self._missing = endpoint.option("nulls", _nulls, NULL)
        self._endpoint = endpoint
        self._cluster: Cluster | None = None
        self._session: Session | None = None
        self._plan: _Plan | None = None

    def connect(self, timeout: float) -> None:
        self._cluster, self._session = self._target.session(timeout)
        prepare(self._session)

    def ensure(self, schema: pl.Schema) -> None:
        self._layout.ensure(self._session, schema)

    def write(self, table: pl.DataFrame) -> pl.DataFrame | None:
        plan = self._plan
        if plan is None or plan.schema != table.schema:
            self._plan = plan = self._made_plan(table.schema)
        refused = []
        for name in plan.key.columns:
            if name in table.columns and table[name].null_count():
                refused.append(reject(table.filter(pl.col(name).is_null()), "null", f"{name} is null"))
                table = table.filter(pl.col(name).is_not_null())
        if table.height and (errors := self._write(plan, table)):
            rows = sorted(errors)
            reasons = pl.Series([errors[n] for n in rows], dtype=pl.String)
            refused.append(reject(table[rows], "refused", pl.lit(reasons)))
        return pl.concat(refused) if refused else None

    def transient(self, error: Exception) -> bool:
        return targets.transient(error)

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.shutdown()
        self._cluster = self._session = self._plan = None

    def _made_plan(self, schema: pl.Schema) -> _Plan:
        key = self._layout.ensure(self._session, schema)
        names = key.add_to(pl.DataFrame(schema=schema)).columns
        assert self._session is not None
        insert = self._layout.prepared(self._session, names)
        return _Plan(schema, key, insert, [names.index(name) for name in key.partition])

    def _write(self, plan: _Plan, table: pl.DataFrame) -> dict[int, str]:
        """The errors of rows that were refused, by the row's number."""
        errors: dict[int, str] = {}
        columns = []
        for column, described in zip(plan.key.add_to(table), plan.insert.column_metadata, strict=True):
            values, wrong = converted(column, described.type, 4)
            columns.append(values)
            errors = wrong | errors
        kept = pl.DataFrame(columns).with_row_index(_ROW)
        if errors:
            kept = kept.filter(~pl.col(_ROW).is_in(list(errors)))
        names = [name for name in kept.columns if name in plan.key.columns]
        # The values of two rows of one key and one moment would be mixed.
        kept = kept.unique(names, keep="last", maintain_order=True)
        made = batches(plan.insert.query_id, kept.drop(_ROW).get_columns(), plan.partition, self._missing)
        rows = kept[_ROW].to_numpy()[made.rows]
        assert self._session is not None
        for n, error in send(self._session, plan.insert, made).items():
            errors[int(rows[n])] = error
        return errors


class WriteCassandra(StoreSink):
    """Write batches to a Cassandra table.

    Args:
        endpoint: `cassandra://[user:password@]host[:port][,host…]/keyspace/table`. The table is made if it is missing;
            its primary key is what the rows are told apart by, and by default `(source, time_bucket), timestamp,
            offset` of events, `(series, time_bucket), window_start, row_id` of aggregates, and `row_id` of other rows.
            `partition` and `clustering` (columns, separated by commas) and `bucket` (the width of `time_bucket`: `10m`,
            `1h`, `1d`) say another. `ttl` is in seconds; `replication` (`3`, or `dc1:3,dc2:2`) makes the keyspace;
            `alter=true` adds columns; `nulls=skip` leaves what is null as it was, without tombstones. `consistency`
            (`LOCAL_QUORUM`), `datacenter`, `tls`, `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` are of the client. And
            what every store's URL takes: see `StoreSink`.
        job: not used.

    Rows with a null in the primary key, and with values that their column cannot hold, become dead letters, like those
    that the server refuses. Times are in milliseconds.

    Source: https://cassandra.apache.org/doc/latest/cassandra/developing/cql/index.html
    """

    store = CassandraStore


def _nulls(text: str) -> int:
    if text not in _NULLS:
        raise ValueError(text)
    return _NULLS[text]


_nulls.__name__ = "write or skip"
