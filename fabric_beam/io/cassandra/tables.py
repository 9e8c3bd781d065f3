"""How rows lie in a table: its primary key, the columns that are made for it, and the statement that creates it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from fabric_beam.batches import EVENT_TIME
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import OutputError, SchemaError, UsageError, nearest
from fabric_beam.io.cassandra.target import Target, quoted
from fabric_beam.io.cassandra.types import created, fits
from fabric_beam.io.store import PROVENANCE, identities
from fabric_beam.option_kinds import boolean, seconds_to_live

if TYPE_CHECKING:
    from cassandra.cluster import Session
    from cassandra.metadata import TableMetadata
    from cassandra.query import PreparedStatement

OPTIONS = ("partition", "clustering", "bucket", "ttl", "replication", "alter")
#: Columns that are made of the others, where the primary key has them and the rows do not.
TIME_BUCKET, SERIES, ROW_ID = "time_bucket", "series", "row_id"
_DERIVED: dict[str, Any] = {TIME_BUCKET: pl.Datetime("ms", "UTC"), SERIES: pl.String(), ROW_ID: pl.String()}
_SECONDS = {"m": 60, "h": 3_600, "d": 86_400}
_EVENTS_BUCKET, _WINDOWS_BUCKET = "1h", "1d"
#: A table that was made here says so in its comment, and how wide its buckets are: rows have to be put into the same
#: ones again.
_MADE = "fabric-beam"
_BUCKET_SAID = re.compile(rf"{TIME_BUCKET}=(\d+[mhd])")
#: What a node says of a table or column that it does not know.
_NOT_KNOWN = re.compile(r"unconfigured table|does not exist|unknown identifier|undefined column name", re.IGNORECASE)


@dataclass(frozen=True)
class Key:
    """A primary key.

    Args:
        partition: the columns that choose a partition.
        clustering: those that tell its rows apart, and order them.
        bucket: the width of `time_bucket`, such as `1h`; empty without it.
    """

    partition: list[str]
    clustering: list[str]
    bucket: str = ""

    @property
    def columns(self) -> list[str]:
        """All of them."""
        return [*self.partition, *self.clustering]

    def add_to(self, table: pl.DataFrame) -> pl.DataFrame:
        """Add those of its columns that are made of the others."""
        made = []
        for name in self.columns:
            if name in table.columns or name not in _DERIVED:
                continue
            if name == TIME_BUCKET:
                made.append(_buckets(table[_time(table.schema) or ""], self.bucket))
            elif name == SERIES:
                made.append(_series(table))
            else:
                made.append(identities(table, []))
            made[-1] = made[-1].alias(name)
        return table.with_columns(made)


class Layout:
    """What a URL says of its table.

    Args:
        endpoint: the URL; its options are taken.
        target: the table.

    Attributes:
        ttl: seconds after which rows go away; 0 for never.

    Raises:
        UsageError: an option is wrong.
    """

    def __init__(self, endpoint: Endpoint, target: Target) -> None:
        self._target = target
        self._partition = _names(endpoint.option("partition", str, ""))
        self._clustering = _names(endpoint.option("clustering", str, ""))
        self._bucket = endpoint.option("bucket", _width, "")
        self.ttl = endpoint.option("ttl", seconds_to_live, 0)
        self._replication = endpoint.option("replication", _replication, "")
        self._alter = endpoint.option("alter", boolean, False)
        if self._clustering and not self._partition:
            raise UsageError(f"{endpoint.scheme}: clustering= needs partition=, the columns that choose a partition.")

    def key(self, schema: pl.Schema) -> Key:
        """The primary key of a table that is made for rows of a schema.

        Raises:
            SchemaError: a column is missing, or cannot be made.
        """
        events = {*PROVENANCE, "timestamp"} <= set(schema) and isinstance(schema["timestamp"], pl.Datetime)
        if self._partition:
            bucket = self._bucket
            partition = [*self._partition, *([TIME_BUCKET] if bucket and TIME_BUCKET not in self._partition else [])]
            key = Key(partition, self._clustering, bucket)
        elif events:
            key = Key(["source", TIME_BUCKET], ["timestamp", "offset"], self._bucket or _EVENTS_BUCKET)
        elif isinstance(schema.get("window_start"), pl.Datetime):
            key = Key([SERIES, TIME_BUCKET], ["window_start", ROW_ID], self._bucket or _WINDOWS_BUCKET)
        else:
            key = Key([ROW_ID], [])
        for name in key.columns if not self._partition else ():
            if name in _DERIVED and name in schema:
                raise SchemaError(
                    f"{self._target.endpoint.url}: the rows have a column {name!r}, which its primary key has, too. "
                    "Rename it, or say partition="
                )
        self._check(key, schema)
        return key

    def ensure(self, session: Session, schema: pl.Schema) -> Key:
        """Create the table for rows of a schema, or check the one that is there.

        Returns:
            Its primary key.

        Raises:
            OutputError, SchemaError: it is missing or does not fit.
        """
        target, metadata = self._target, session.cluster.metadata
        if target.keyspace not in metadata.keyspaces:
            if not self._replication:
                raise self._error(
                    f"there is no keyspace {target.keyspace!r}. Create it, or say replication=3 (or by data center, "
                    "replication=dc1:3,dc2:2). " + nearest(target.keyspace, metadata.keyspaces)
                )
            session.execute(
                f"CREATE KEYSPACE IF NOT EXISTS {quoted(target.keyspace)} WITH replication = {self._replication}"
            )
        keyspace = metadata.keyspaces.get(target.keyspace)
        table = keyspace.tables.get(target.table) if keyspace else None
        if table is None:
            key = self.key(schema)
            session.execute(self.statement(key, schema))
            return key
        return self._fit(session, table, schema)

    def statement(self, key: Key, schema: pl.Schema) -> str:
        """The statement that creates a table for rows of a schema.

        Raises:
            OutputError: a column has no type in CQL.
        """
        columns = [f"{quoted(name)} {self._type(name, dtype)}" for name, dtype in _with_derived(key, schema).items()]
        partition, clustering = ([quoted(name) for name in part] for part in (key.partition, key.clustering))
        parts = ["(" + ", ".join(partition) + ")", *clustering]
        columns.append(f"PRIMARY KEY ({', '.join(parts)})")
        options = [f"comment = '{_MADE}{f' {TIME_BUCKET}={key.bucket}' if key.bucket else ''}'"]
        options += [f"default_time_to_live = {self.ttl}"] if self.ttl else []
        return f"CREATE TABLE IF NOT EXISTS {self._table} ({', '.join(columns)}) WITH {' AND '.join(options)}"

    @property
    def _table(self) -> str:
        return f"{quoted(self._target.keyspace)}.{quoted(self._target.table)}"

    def _fit(self, session: Session, table: TableMetadata, schema: pl.Schema) -> Key:
        partition, clustering = ([c.name for c in part] for part in (table.partition_key, table.clustering_key))
        said = _BUCKET_SAID.search(table.options.get("comment") or "")
        bucket = said[1] if said else self._bucket or _EVENTS_BUCKET
        key = Key(partition, clustering, bucket if TIME_BUCKET in partition and TIME_BUCKET not in schema else "")
        if self._partition:
            wanted = self.key(schema)
            if (wanted.partition, wanted.clustering) != (partition, clustering):
                raise self._error(
                    f"its primary key is ({', '.join(partition)}), {', '.join(clustering) or 'without clustering'}, "
                    f"and partition= and clustering= say another ({', '.join(wanted.partition)}), "
                    f"{', '.join(wanted.clustering) or 'without clustering'}. A primary key cannot be altered"
                )
        if key.bucket and self._bucket and self._bucket != key.bucket:
            raise self._error(f"its buckets are of {key.bucket}, and bucket={self._bucket} is another width")
        self._check(key, schema)
        columns = _with_derived(key, schema)
        missing = {name: dtype for name, dtype in columns.items() if name not in table.columns}
        if missing:
            added = ", ".join(f"{quoted(name)} {self._type(name, dtype)}" for name, dtype in missing.items())
            alter = f"ALTER TABLE {self._table} ADD ({added})"
            if not self._alter:
                raise self._error(f"it lacks columns that the rows have: say alter=true, or {alter};")
            session.execute(alter)
        self._check_types(session, {name: dtype for name, dtype in columns.items() if name not in missing})
        return key

    def _check_types(self, session: Session, columns: dict[str, Any]) -> None:
        """The client says what types the columns have where a statement for them is prepared."""
        for column in self.prepared(session, list(columns)).column_metadata:
            dtype = columns[column.name]
            if not fits(dtype, column.type):
                raise self._error(
                    f"its column {column.name!r} is {column.type.cql_parameterized_type()}, which {dtype} cannot be. "
                    "Cast it, or name another table"
                )

    def prepared(self, session: Session, columns: list[str]) -> PreparedStatement:
        """The statement that writes a row of these columns, which the table has.

        Raises:
            TimeoutError: the node that is asked does not know them yet.
        """
        from cassandra import InvalidRequest

        try:
            return session.prepare(self.insert(columns))
        except InvalidRequest as error:
            # A table is described a moment before it can be written to, and by one node before another.
            if not _NOT_KNOWN.search(str(error)):
                raise
            raise TimeoutError(f"it is being created or altered ({error})") from error

    def insert(self, columns: list[str]) -> str:
        """The statement that writes a row of these columns."""
        names, places = ", ".join(map(quoted, columns)), ", ".join("?" * len(columns))
        using = f" USING TTL {self.ttl}" if self.ttl else ""
        return f"INSERT INTO {self._table} ({names}) VALUES ({places}){using}"

    def _check(self, key: Key, schema: pl.Schema) -> None:
        for name in key.columns:
            if name not in schema and name not in _DERIVED:
                raise SchemaError(
                    f"{self._target.endpoint.url}: its primary key has {name!r}, and there is no such column. "
                    f"{nearest(name, schema)}"
                )
        if TIME_BUCKET in key.columns and TIME_BUCKET not in schema and _time(schema) is None:
            raise SchemaError(
                f"{self._target.endpoint.url}: there is no time ({' or '.join(EVENT_TIME)}) that rows have buckets by."
            )

    def _type(self, name: str, dtype: Any) -> str:
        made = created(dtype)
        if made is None:
            raise self._error(f"cannot hold column {name!r}: there is no type in CQL for {dtype}. Cast or drop it")
        return made

    def _error(self, text: str) -> OutputError:
        return OutputError(f"{self._target.endpoint.url}: {text}.")


def derived_columns(table: TableMetadata) -> set[str]:
    """The columns of a table that were made of the others."""
    if not (table.options.get("comment") or "").startswith(_MADE):
        return set()
    return {column.name for column in table.primary_key if column.name in _DERIVED}


def _with_derived(key: Key, schema: pl.Schema) -> dict[str, Any]:
    derived = {name: _DERIVED[name] for name in key.columns if name not in schema and name in _DERIVED}
    return {**derived, **schema}


def _time(schema: pl.Schema) -> str | None:
    return next((name for name in EVENT_TIME if isinstance(schema.get(name), pl.Datetime)), None)


def _buckets(times: pl.Series, width: str) -> pl.Series:
    milliseconds = times.dt.epoch("ms")
    size = int(width[:-1]) * _SECONDS[width[-1]] * 1_000
    return (milliseconds // size * size).cast(pl.Datetime("ms", "UTC"))


def _series(table: pl.DataFrame) -> pl.Series:
    """The texts of a row, such as frontend/GET: the measures of one thing over time."""
    kinds = (pl.String, pl.Categorical, pl.Enum)
    names = [name for name, dtype in table.schema.items() if dtype.base_type() in kinds]
    if not names:
        return pl.Series([""]).new_from_index(0, table.height)
    return table.select(pl.concat_str(pl.col(names).cast(pl.String).fill_null(""), separator="/")).to_series()


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _width(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,5}[mhd]", text):
        raise ValueError(text)
    return text


_width.__name__ = "a width of time such as 10m, 1h or 1d"


def _replication(text: str) -> str:
    if re.fullmatch(r"[1-9]\d*", text):
        return f"{{'class': 'SimpleStrategy', 'replication_factor': {text}}}"
    places = [re.fullmatch(r"([\w.-]+):([1-9]\d*)", place) for place in text.split(",")]
    parts = [f"'{place[1]}': {place[2]}" for place in places if place]
    if len(parts) != len(places):
        raise ValueError(text)
    return f"{{'class': 'NetworkTopologyStrategy', {', '.join(parts)}}}"


_replication.__name__ = "a number of replicas (3), or one for each data center (dc1:3,dc2:2)"
