"""The source of `mongodb:` and `mongodb+srv:` URLs: a collection's documents, by ranges of `_id`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import InputError, MissingExtraError, UsageError, nearest
from fabric_beam.io.mongodb.ranges import query, ranges, rest
from fabric_beam.io.mongodb.target import CLIENT_OPTIONS, Target, transient
from fabric_beam.io.mongodb.values import as_json, plain
from fabric_beam.io.records.columns import OTHERS, Columns
from fabric_beam.io.records.schema import flattened, infer
from fabric_beam.io.records.values import converter, to_text
from fabric_beam.io.store import PROVENANCE
from fabric_beam.io.store_reader import Page, StoreReader
from fabric_beam.io.store_source import ReadStore
from fabric_beam.option_kinds import whole

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection

#: Documents in a page; the server sends 16 MB at a time at most.
_PAGE = 16_384
#: Documents in a range, about.
_RANGE = 50_000
_MOST_RANGES = 64
#: Ids that are looked at for each bound of a range.
_OVERSAMPLED = 10
#: Cursors that are gone, with the server that had them or because it was pressed.
_LOST_CURSOR = {43, 175, 237}
#: Texts that a value of another type would have, too.
_LIKE_ANOTHER = re.compile(r'-?[\d.][\d.eE+-]*(T.*)?|[{"\[].*|true|false|null|nan|-?inf|NaN|[0-9a-f]{24}|', re.DOTALL)


class MongoReader(StoreReader):
    """A collection, read in parts."""

    OPTIONS: ClassVar[tuple[str, ...]] = ("filter", "fields", "sample", "ranges", "rows", *CLIENT_OPTIONS)

    def __init__(self, endpoint: Endpoint) -> None:
        try:
            import pymongo  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(f"{endpoint.scheme}:", "mongodb") from error
        self._endpoint = endpoint
        self._filter = _filter(endpoint.option("filter", str, "{}"))
        self._fields = [name for name in endpoint.option("fields", str, "").split(",") if name]
        self._sample = endpoint.option("sample", whole, 1000)
        self._ranges = endpoint.option("ranges", whole, 0)
        self._rows = endpoint.option("rows", whole, _PAGE)
        self._target = Target.parse(endpoint)
        self._client: MongoClient[dict[str, Any]] | None = None
        self._columns: Columns | None = None
        self._has_id = True

    def connect(self, timeout: float) -> None:
        if self._client is None:
            client = self._target.client(timeout)
            try:
                client.admin.command("hello")
            except Exception:
                client.close()
                raise
            self._client = client

    def schema(self, declared: pl.Schema) -> pl.Schema:
        self._check()
        found = list(self._documents.find(self._filter, self._projection, limit=self._sample))
        found += self._documents.aggregate(
            [
                {"$sample": {"size": self._sample}},
                {"$match": self._filter},
                *([{"$project": dict.fromkeys(self._projection, 1)}] if self._projection else []),
            ]
        )
        leaves = {".".join(path): (path, dtype) for path, dtype in flattened(infer(found, plain))}
        # What the sink wrote has its identity there, made of these.
        self._has_id = not set(PROVENANCE) <= leaves.keys()
        if not self._has_id:
            leaves = {name: leaf for name, leaf in leaves.items() if name != "_id" and not name.startswith("_id.")}
        leaves |= {name: (leaves.get(name, (tuple(name.split(".")),))[0], dtype) for name, dtype in declared.items()}
        schema = pl.Schema({name: dtype for name, (_, dtype) in leaves.items()} | {OTHERS: pl.String()})
        self._columns = Columns({name: path for name, (path, _) in leaves.items()}, schema, converter(plain), plain)
        return schema

    def splits(self) -> list[str]:
        count = self._ranges or min(self._documents.estimated_document_count() // _RANGE, _MOST_RANGES)
        if count < 2:
            return ranges([])
        found = self._documents.aggregate(
            [{"$sample": {"size": count * _OVERSAMPLED}}, {"$project": {"_id": 1}}, {"$sort": {"_id": 1}}]
        )
        ids = [document["_id"] for document in found]
        return ranges(ids[_OVERSAMPLED::_OVERSAMPLED])

    def read(self, split: str) -> Iterator[Page]:
        asked = query(split)
        if asked is None:
            return
        cursor = self._documents.find(
            {"$and": [asked, self._filter]} if self._filter else asked,
            self._projection,
            sort=[("_id", 1)],
            batch_size=self._rows,
        )
        with cursor:
            while documents := list(islice(cursor, self._rows)):
                yield self._page(split, documents)

    def transient(self, error: Exception) -> bool:
        return transient(error) or getattr(error, "code", None) in _LOST_CURSOR

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def _page(self, split: str, documents: list[dict[str, Any]]) -> Page:
        assert self._columns is not None
        left = rest(split, documents[-1]["_id"])
        ids = [document["_id"] if self._has_id else document.pop("_id") for document in documents]
        keys = pl.Series([_key(value) for value in ids], dtype=pl.String)
        table, wrong = self._columns(documents)
        if not wrong:
            return Page(table, keys, left)
        numbers = sorted(wrong)
        rejected = pl.DataFrame(
            {
                "key": keys.gather(numbers),
                "payload": [as_json(documents[number]) for number in numbers],
                "message": [wrong[number] for number in numbers],
            }
        )
        fits = ~pl.int_range(table.height, eager=True).is_in(numbers)
        return Page(table.filter(fits), keys.filter(fits), left, rejected)

    def _check(self) -> None:
        database = self._documents.database
        found = {
            each["name"]: each.get("type")
            for each in database.list_collections(nameOnly=True, authorizedCollections=True)
        }
        name = self._target.collection
        if name not in found:
            raise InputError(
                f"{self._endpoint.url}: there is no collection {name!r} in the database {database.name!r} that the "
                f"user may read. {nearest(name, found)}"
            )
        if found[name] in ("view", "timeseries"):
            raise InputError(
                f"{self._endpoint.url} is a {found[name]}, whose documents have no _id of their own to be read by in "
                "parts. Read the collection behind it, or write it to one ($out) first."
            )

    @property
    def _projection(self) -> dict[str, Any] | None:
        return dict.fromkeys(["_id", *self._fields], True) if self._fields else None

    @property
    def _documents(self) -> Collection[dict[str, Any]]:
        from bson.codec_options import CodecOptions, DatetimeConversion

        assert self._client is not None
        options: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
        return self._client[self._target.database].get_collection(self._target.collection, codec_options=options)


class ReadMongoDB(ReadStore):
    """Read the documents of a MongoDB collection: `mongodb://[user:password@]host[:port][,host]/database/collection`.

    Nested documents are flattened: `{http: {response: {status_code: 200}}}` is a column `http.response.status_code`.
    Columns and types are those of a sample, and of the contract in `schema`; other fields are in `attributes`, as JSON.
    A document with a value of another type than its column becomes a dead letter. Object ids, UUIDs and other types
    that columns do not have are their texts, times are UTC in microseconds.

    Args:
        endpoints: the URLs. Besides what every store takes: `filter` (a query in MongoDB's extended JSON), `fields`
            (columns, separated by commas, that alone are read), `sample` (documents from the beginning, and as many
            from anywhere, that the columns are found by; 1000), `ranges` (how many parts are read side by side; one for
            50,000 documents unless it is given), `rows` (read at once, 16384), and the client's own options.
        limit: read at most this many documents.

    Output: the columns, `attributes`, `source`, `offset`; and `_id`, unless the documents have `source` and `offset`.

    Source: https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/
    """

    reader = MongoReader


def _key(value: Any) -> str:
    """An id as text, which no other id has."""
    from bson import Decimal128, ObjectId

    if isinstance(value, str):
        return json.dumps(value) if _LIKE_ANOTHER.fullmatch(value) else value
    kinds = (bool, int, float, datetime, ObjectId, Decimal128, type(None))
    # Of other types, the JSON begins with a brace.
    return to_text(value, plain) if isinstance(value, kinds) else as_json(value)


def _filter(text: str) -> dict[str, Any]:
    from bson.errors import BSONError
    from bson.json_util import loads

    try:
        found = loads(text)
    except (ValueError, TypeError, BSONError) as error:
        raise UsageError(
            f'mongodb: filter={text} is not a query in JSON, such as {{"level": "error"}}: {error}.'
        ) from error
    if not isinstance(found, dict):
        raise UsageError(f'mongodb: filter={text} is not a query in JSON, such as {{"level": "error"}}.')
    return found
