"""The sink of `mongodb:` and `mongodb+srv:` URLs: a document a row, replaced by its identity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID, uuid4

import polars as pl

from fabric_beam.batches import EVENT_TIME
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import MissingExtraError, OutputError, UsageError, nearest
from fabric_beam.io.mongodb import time_series
from fabric_beam.io.mongodb.documents import builder, clash, leaves
from fabric_beam.io.mongodb.target import CLIENT_OPTIONS, PASSING, Target, transient
from fabric_beam.io.store import Store, identities
from fabric_beam.io.store_sink import StoreSink
from fabric_beam.kernel import reject
from fabric_beam.option_kinds import boolean, seconds_to_live

if TYPE_CHECKING:
    from bson.codec_options import CodecOptions
    from pymongo import MongoClient
    from pymongo.collection import Collection

#: https://www.mongodb.com/docs/manual/reference/limits/#bson-documents
_DEEPEST = 100
_DUPLICATE_KEY = 11000
_DENIED = {13, 18}
_FIRST_DATE, _LAST_DATE = (datetime(1, 1, 1), datetime(9999, 12, 31))


class MongoStore(Store):
    """A collection of a MongoDB server, replica set or cluster."""

    OPTIONS: ClassVar[tuple[str, ...]] = ("key", "ttl", "nested", "timeseries", "meta", *CLIENT_OPTIONS)

    def __init__(self, endpoint: Endpoint) -> None:
        try:
            import pymongo  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(f"{endpoint.scheme}:", "mongodb") from error
        self._endpoint = endpoint
        self._key = [name for name in endpoint.option("key", str, "").split(",") if name]
        self._ttl = endpoint.option("ttl", seconds_to_live, 0)
        self._nested = endpoint.option("nested", boolean, True)
        self._is_series = endpoint.option("timeseries", boolean, False)
        self._meta = endpoint.option("meta", str, "")
        if self._meta and not self._is_series:
            raise UsageError(f"{endpoint.url}: meta= is of a time series. Set timeseries=true, or leave it out")
        self._target = Target.parse(endpoint)
        self._client: MongoClient[dict[str, Any]] | None = None
        self._max_size = 0
        self._remembers = False
        self._replaces = False
        self._doubtful: dict[tuple[Any, ...], tuple[UUID, list[int]]] = {}

    def connect(self, timeout: float) -> None:
        # A write that is repeated changes nothing, and the sink repeats it: the server need not keep account of it.
        client = self._target.client(timeout, {"retryWrites": "false"})
        try:
            hello = client.admin.command("hello")
        except Exception:
            client.close()
            raise
        self._client = client
        self._max_size = int(hello["maxBsonObjectSize"])
        self._remembers = "setName" in hello or hello.get("msg") == "isdbgrid"

    def check(self, schema: pl.Schema) -> None:
        empty = pl.DataFrame(schema=schema)
        for name in self._key:
            if name not in empty.columns:
                raise self._error(
                    f"has no column {name!r} for key={','.join(self._key)}. {nearest(name, empty.columns)}"
                )
        found = leaves(empty, self._nested)
        for path, column in found:
            name = ".".join(path)
            if column.dtype.base_type() in (pl.Object, pl.Unknown):
                raise self._error(f"cannot hold column {name!r}: {column.dtype} is not a type of BSON. Cast or drop it")
            if path[0] == "_id":
                raise self._error(f"cannot hold column {name!r}: _id is the row's identity. Rename it")
            if any(not part or part[0] == "$" or "\0" in part for part in path) or len(path) > _DEEPEST:
                raise self._error(
                    f"cannot hold column {name!r}: a field has a name, without '$' at its start or a NUL, at most "
                    f"{_DEEPEST} deep. Rename it{', or set nested=false' if self._nested and '.' in name else ''}"
                )
        if both := clash(path for path, _ in found):
            one, other = (".".join(path) for path in both)
            raise self._error(f"cannot hold columns {one!r} and {other!r}: one is a part of the other. Rename one")
        times = _time_columns(schema)
        for needed, what in ((self._ttl, f"expire rows (ttl={self._ttl})"), (self._is_series, "be a time series")):
            if needed and not times:
                raise self._error(f"cannot {what}: the rows have no time column {EVENT_TIME[0]!r}")
        fields = dict.fromkeys(path[0] for path, _ in found)
        if self._meta and (self._meta not in fields or self._meta in times):
            raise self._error(f"has no field {self._meta!r} for meta=. {nearest(self._meta, fields)}")

    def ensure(self, schema: pl.Schema) -> None:
        found = self._documents.database.list_collections(filter={"name": self._target.collection})
        there = next(iter(found), None)
        if self._is_series and not self._remembers:
            raise self._error(
                "is on a server without a replica set, which does not remember what it has written, so that a repeated "
                "write would add rows of a time series twice. Make it a replica set of one, or leave timeseries= out"
            )
        series = time_series.options(_time_columns(schema)[0], self._meta, self._ttl) if self._is_series else {}
        if there is None:
            self._documents.database.create_collection(self._target.collection, check_exists=False, **series)
        elif there.get("type") == "view":
            raise self._error("is a view, which cannot be written to. Name another collection")
        elif self._is_series:
            self._ensure_series(there.get("options", {}), series)
        elif "timeseries" in there.get("options", {}):
            raise self._error("is a time series. Set timeseries=true, so that a repeated write adds no row twice")
        if self._ttl and not self._is_series:
            self._ensure_ttl(schema)

    def write(self, table: pl.DataFrame) -> pl.DataFrame | None:
        from bson.errors import BSONError

        put = partial(self._append, time=_time_columns(table.schema)[0]) if self._is_series else self._upsert
        try:
            refused = put(self._build(table))
        except (BSONError, ArithmeticError, ValueError):
            # Some cannot be encoded, or are too large; which ones, the error does not say.
            self.abandon(table)
            refused = self._unfit(table, 0)
            rest = [row for row in range(table.height) if row not in refused]
            refused |= {rest[n]: reason for n, reason in put(self._build(table[rest])).items()}
        if not refused:
            return None
        rows = sorted(refused)
        return reject(table[rows], "refused", pl.lit(pl.Series([refused[row] for row in rows])))

    def abandon(self, table: pl.DataFrame) -> pl.DataFrame:
        self._doubtful.pop(tuple(identities(table, self._key)), None)
        return table

    def transient(self, error: Exception) -> bool:
        return transient(error)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def _ensure_series(self, there: dict[str, Any], asked: dict[str, Any]) -> None:
        found = {
            name: value for name, value in there.get("timeseries", {}).items() if name in ("timeField", "metaField")
        }
        if found != asked["timeseries"]:
            raise self._error(
                f"is {f'a time series of {found}' if found else 'no time series'}, not one of {asked['timeseries']}. "
                "Change timeseries= and meta=, or name another collection"
            )
        if self._ttl and there.get("expireAfterSeconds") != self._ttl:
            self._documents.database.command("collMod", self._target.collection, expireAfterSeconds=self._ttl)

    def _build(self, table: pl.DataFrame) -> list[dict[str, Any]]:
        columns = [(("_id",), identities(table, self._key)), *leaves(table, self._nested)]
        build = builder(tuple(path for path, _ in columns), tuple(bool(column.null_count()) for _, column in columns))
        return build(*(_values(column) for _, column in columns))

    def _unfit(self, table: pl.DataFrame, first: int) -> dict[int, str]:
        """The rows that cannot be documents, numbered from `first`, and why."""
        import bson
        from bson.errors import BSONError

        try:
            sizes = [len(bson.encode(document, codec_options=_codec())) for document in self._build(table)]
        except (BSONError, ArithmeticError, ValueError) as error:
            if table.height == 1:
                return {first: f"cannot be a BSON document: {type(error).__name__}: {error}"[:500]}
            half = table.height // 2
            return self._unfit(table[:half], first) | self._unfit(table[half:], first + half)
        limit = self._max_size
        return {
            first + n: f"has {size:,} bytes, and a BSON document {limit:,} at most"
            for n, size in enumerate(sizes)
            if size > limit
        }

    def _upsert(self, documents: Sequence[dict[str, Any]]) -> dict[int, str]:
        """Insert documents, and replace those that are there; returns the numbers of those refused, and why.

        An insert costs a server a fraction of an upsert, unless the document is there. So the kind that the last
        documents called for is tried first.
        """
        from pymongo import ReplaceOne

        def replace(numbers: Iterable[int]) -> tuple[int, dict[int, dict[str, Any]]]:
            each = [ReplaceOne({"_id": documents[n]["_id"]}, documents[n], upsert=True) for n in numbers]
            return self._bulk(lambda: self._documents.bulk_write(each, ordered=False).matched_count)

        if not documents:
            return {}
        if self._replaces:
            there, errors = replace(range(len(documents)))
        else:
            _, errors = self._bulk(lambda: len(self._documents.insert_many(documents, ordered=False).inserted_ids))
            known = [n for n, error in errors.items() if error["code"] == _DUPLICATE_KEY]
            there = len(known)
            if known:
                _, left = replace(known)
                errors = {n: error for n, error in errors.items() if error["code"] != _DUPLICATE_KEY}
                errors |= {known[n]: error for n, error in left.items()}
        self._replaces = there > len(documents) // 2
        return {n: _reason(error) for n, error in errors.items()}

    def _append(self, documents: Sequence[dict[str, Any]], time: str) -> dict[int, str]:
        """Insert documents that are not there; returns the numbers of those refused, and why."""
        key = tuple(document["_id"] for document in documents)
        if key not in self._doubtful:
            self._doubtful[key] = uuid4(), time_series.missing(self._documents, documents, time)
        # A server that stood still may do yet what it was sent before: it has to see that this is the same.
        session, numbers = self._doubtful[key]
        new = [documents[number] for number in numbers]
        _, errors = self._bulk(lambda: time_series.insert(self._documents, new, session)) if new else (0, {})
        del self._doubtful[key]
        refused = {numbers[n]: _reason(error) for n, error in errors.items()}
        without = (n for n, document in enumerate(documents) if time not in document)
        return refused | dict.fromkeys(without, f"has no {time!r}, by which a time series is kept")

    def _bulk(self, write: Callable[[], int]) -> tuple[int, dict[int, dict[str, Any]]]:
        """How many documents were there, as far as the server says, and the errors of single ones by number."""
        from pymongo.errors import BulkWriteError, OperationFailure

        try:
            return write(), {}
        except BulkWriteError as error:
            errors, concerns = error.details["writeErrors"], error.details["writeConcernErrors"]
            for each in (*errors, *concerns):
                # The client's own error has every document in its text.
                if each["code"] in PASSING:
                    raise OperationFailure(str(each.get("errmsg")), each["code"]) from None
            for each in (*concerns, *(each for each in errors if each["code"] in _DENIED)):
                raise self._error(f"did not take the rows: {each['code']}: {each.get('errmsg')}") from None
            return error.details["nMatched"], {each["index"]: each for each in errors}

    def _ensure_ttl(self, schema: pl.Schema) -> None:
        from pymongo.errors import OperationFailure

        times = _time_columns(schema)
        indexes = {tuple(index["key"].items()): index for index in self._documents.list_indexes()}
        index = indexes.get(((times[0], 1),))
        if index is None:
            self._documents.create_index(times[0], expireAfterSeconds=self._ttl)
        elif index.get("expireAfterSeconds") != self._ttl:
            change = {"name": index["name"], "expireAfterSeconds": self._ttl}
            try:
                self._documents.database.command("collMod", self._target.collection, index=change)
            except OperationFailure as error:
                raise self._error(
                    f"has an index {index['name']!r} that cannot be made to expire rows after {self._ttl} s "
                    f"({error.code}). Drop it, or leave ttl= out"
                ) from error

    @property
    def _documents(self) -> Collection[dict[str, Any]]:
        assert self._client is not None
        database = self._client[self._target.database]
        return database.get_collection(self._target.collection, codec_options=_codec())

    def _error(self, text: str) -> OutputError:
        return OutputError(f"{self._endpoint.url}: {text}.")


class WriteMongoDB(StoreSink):
    """Write batches to a MongoDB collection: `mongodb://[user:password@]host[:port][,host]/database/collection`.

    A row is a document with its identity as `_id`. Dotted names are paths: `http.response.status_code` becomes
    `{http: {response: {status_code: 200}}}`. Nulls are left out. Times are BSON dates: UTC, in milliseconds.

    Args:
        endpoint: the URL. Besides what every store takes: `key` (columns, separated by commas, that are the identity
            instead of `source` and `offset`), `ttl` (seconds after which the server removes a row, counted from its
            `timestamp` or `window_start`), `nested=false` (dotted names stay names), `timeseries=true` (a time-series
            collection; `meta` is its meta field), and the client's own options, such as `authSource`, `tls`,
            `replicaSet`, `w`.
        job: not used; every sink takes it.

    Input: batches of any schema that has no name that is a value's and a document's, such as `a` and `a.b`.
    """

    store = MongoStore


def _values(column: pl.Series) -> list[Any]:
    """A column's values as the client takes them."""
    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("ms"))
    if not isinstance(column.dtype, pl.Datetime):
        return column.to_list()
    per_millisecond = {"ms": 1, "us": 1_000, "ns": 1_000_000}[column.dtype.time_unit]
    times = (column.to_physical() // per_millisecond).cast(pl.Datetime("ms"))
    if not times.is_between(_FIRST_DATE, _LAST_DATE).all():
        from bson.datetime_ms import DatetimeMS

        return [None if value is None else DatetimeMS(value) for value in times.to_physical()]
    # Five times faster than Polars' own list of datetimes.
    values: list[Any] = times.to_numpy().tolist()
    return values


def _codec() -> CodecOptions[dict[str, Any]]:
    from bson.codec_options import CodecOptions, TypeRegistry

    return CodecOptions(type_registry=TypeRegistry(fallback_encoder=_bson))


def _bson(value: Any) -> Any:
    """What stands for a value that BSON has no type for."""
    from bson import Decimal128

    if isinstance(value, (Decimal, int)):
        return Decimal128(str(value))
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    if isinstance(value, time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    return value


def _reason(error: dict[str, Any]) -> str:
    details = error.get("errInfo", {}).get("details")
    return f"{error['code']}: {error.get('errmsg', '')}{f': {details}' if details else ''}"[:500]


def _time_columns(schema: pl.Schema) -> list[str]:
    return [name for name in EVENT_TIME if isinstance(schema.get(name), (pl.Datetime, pl.Date))]
