"""`cassandra:` read: a table's rows, by ranges of tokens."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import InputError, SchemaError, UsageError, nearest
from fabric_beam.io.cassandra import target as targets
from fabric_beam.io.cassandra.decode import decoded, raw_results, read_type
from fabric_beam.io.cassandra.tables import derived_columns
from fabric_beam.io.cassandra.target import Target, quoted, transient
from fabric_beam.io.store_reader import Page, StoreReader
from fabric_beam.io.store_source import ReadStore
from fabric_beam.io.templates import text
from fabric_beam.option_kinds import whole

if TYPE_CHECKING:
    from cassandra.cluster import Cluster, Session
    from cassandra.metadata import TableMetadata

#: Rows in a page, and bytes in a range, about.
_PAGE, _RANGE_BYTES = 10_000, 32 << 20
_MOST_RANGES = 64
#: Ranges of a table that the server has not measured yet.
_UNMEASURED = 4
_FIRST, _LAST = -(1 << 63), (1 << 63) - 1
_MURMUR = "Murmur3Partitioner"


class CassandraReader(StoreReader):
    """A table of a Cassandra cluster, read in parts."""

    OPTIONS: ClassVar[tuple[str, ...]] = ("fields", "ranges", "rows", *targets.OPTIONS)

    def __init__(self, endpoint: Endpoint) -> None:
        self._target = Target.parse(endpoint, "LOCAL_QUORUM")
        self._fields = [name for name in endpoint.option("fields", str, "").split(",") if name]
        self._ranges = endpoint.option("ranges", whole, 0)
        self._page = endpoint.option("rows", whole, _PAGE)
        self._cluster: Cluster | None = None
        self._session: Session | None = None
        self._names: list[str] = []
        self._key: list[str] = []
        self._select = ""

    def connect(self, timeout: float) -> None:
        if self._session is None:
            self._cluster, self._session = self._target.session(timeout)

    def schema(self, declared: pl.Schema) -> pl.Schema:
        table = self._table()
        hidden = derived_columns(table)
        for name in self._fields:
            if name not in table.columns:
                raise UsageError(
                    f"{self._url}: fields= has {name!r}, which is no column. {nearest(name, table.columns)}"
                )
        self._names = self._fields or [name for name in table.columns if name not in hidden]
        self._key = [column.name for column in table.primary_key]
        wanted = list(dict.fromkeys([*self._names, *self._key]))
        partition = ", ".join(quoted(column.name) for column in table.partition_key)
        place = f"{quoted(self._target.keyspace)}.{quoted(self._target.table)}"
        self._select = (
            f"SELECT {', '.join(map(quoted, wanted))} FROM {place} "
            f"WHERE token({partition}) > ? AND token({partition}) <= ?"
        )
        assert self._session is not None
        types = {name: cql for _, _, name, cql in self._session.prepare(self._select).result_metadata}
        for name in wanted:
            if read_type(types[name]) is None:
                raise InputError(
                    f"{self._url}: its column {name!r} is {types[name].cql_parameterized_type()}, for which "
                    "there is no type of columns. Leave it out: fields=, with the others' names."
                )
        found = pl.Schema({name: read_type(types[name]) for name in self._names})
        for name, dtype in declared.items():
            if name in found and found[name] != dtype:
                raise SchemaError(
                    f"{self._url}: its column {name!r} is {types[name].typename}, which is read as "
                    f"{found[name]}; the contract says {dtype}."
                )
        return found

    def splits(self) -> list[str]:
        assert self._cluster is not None
        tokens = self._cluster.metadata.token_map
        bounds = cut([token.value for token in tokens.ring], self._ranges or self._measured())
        return [f"{first},{last}," for first, last in pairwise(bounds)]

    def read(self, split: str) -> Iterator[Page]:
        first, last, state = split.split(",")
        assert self._session is not None
        raw_results(self._session)
        asked = self._session.prepare(self._select)
        asked.fetch_size = self._page
        bound = asked.bind((int(first), int(last)))
        future = self._session.execute_async(bound, paging_state=bytes.fromhex(state) or None)
        while True:
            result = future.result()
            (body, names, types), state = result.current_rows[0], (result.paging_state or b"").hex()
            if state:
                # The next page is on its way while this one is worked on.
                future = self._session.execute_async(bound, paging_state=bytes.fromhex(state))
            table = decoded(body, names, types)
            keys = table.select(_keys(table.select(self._key).schema)).to_series()
            yield Page(table.select(self._names), keys, f"{first},{last},{state}" if state else f"{last},{last},")
            if not state:
                return

    def transient(self, error: Exception) -> bool:
        return transient(error)

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.shutdown()
        self._cluster = self._session = None

    @property
    def _url(self) -> str:
        return self._target.endpoint.url

    def _table(self) -> TableMetadata:
        assert self._cluster is not None
        target, metadata = self._target, self._cluster.metadata
        if target.keyspace not in metadata.keyspaces:
            raise InputError(
                f"{self._url}: there is no keyspace {target.keyspace!r}. {nearest(target.keyspace, metadata.keyspaces)}"
            )
        tables = metadata.keyspaces[target.keyspace].tables
        if target.table not in tables:
            raise InputError(f"{self._url}: there is no table {target.table!r}. {nearest(target.table, tables)}")
        if not (metadata.partitioner or "").endswith(_MURMUR):
            raise InputError(
                f"{self._url}: the cluster's partitioner is {metadata.partitioner}: tables are read by ranges "
                f"of the tokens of {_MURMUR}."
            )
        return tables[target.table]

    def _measured(self) -> int:
        """How many ranges the table's size calls for, as far as the node that is asked has measured it."""
        assert self._session is not None and self._cluster is not None
        found = self._session.execute(
            "SELECT partitions_count, mean_partition_size FROM system.size_estimates "
            f"WHERE keyspace_name = '{self._target.keyspace}' AND table_name = '{self._target.table}'"
        )
        size = sum(count * mean for count, mean in found) * len(self._cluster.metadata.all_hosts())
        return min(1 + int(size) // _RANGE_BYTES, _MOST_RANGES) if size else _UNMEASURED


def cut(ring: list[int], count: int) -> list[int]:
    """Bounds of ranges of tokens, from the first to the last: about evenly wide, and at tokens of nodes where some are
    near, so that few ranges lie on several nodes.

    Args:
        ring: the tokens of the cluster's nodes.
        count: how many ranges.

    Example:
        >>> cut([0], 4) == [-(2**63), -(2**62), 0, 2**62, 2**63 - 1]
        True
        >>> cut([1000], 2) == [-(2**63), 1000, 2**63 - 1]
        True
    """
    ring, width = sorted(ring), (1 << 64) // count
    bounds = {_FIRST, _LAST}
    for point in (_FIRST + n * width for n in range(1, count)):
        at = bisect.bisect(ring, point)
        near = min(ring[max(0, at - 1) : at + 1], key=lambda token: abs(token - point), default=point)
        bounds.add(near if abs(near - point) < width // 4 else point)
    return sorted(bounds)


class ReadCassandra(ReadStore):
    """Read the rows of a Cassandra table: `cassandra://[user:password@]host[:port][,host…]/keyspace/table`.

    Columns have the table's types: `inet`, `uuid`, `varint` and `decimal` are texts, a map is a list of structs of key
    and value, a tuple and a type that a user has made are structs, times are UTC in microseconds. The columns that
    `WriteCassandra` has made for the primary key are left out.

    Args:
        endpoints: the URLs. Besides what every store takes: `fields` (columns, separated by commas, that alone are
            read), `ranges` (of tokens, read side by side; one for 32 MiB unless it is given), `rows` (asked for at
            a time, 10,000), and those of the client that `WriteCassandra` takes.
        limit: read at most this many rows.

    Output: the columns, `source`, `offset`.
    """

    reader = CassandraReader


def _keys(schema: pl.Schema) -> pl.Expr:
    """The values of the primary key as one text, such as a.log/2026-01-01T00:00:00.000000Z."""
    parts = [text(name, dtype) for name, dtype in schema.items()]
    escaped = [
        part.str.replace_all("%", "%25", literal=True).str.replace_all("/", "%2F", literal=True) for part in parts
    ]
    return pl.concat_str(escaped, separator="/").alias("key")
