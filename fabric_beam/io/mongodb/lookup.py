"""Documents looked up in a MongoDB collection by their fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import MissingExtraError, UsageError
from fabric_beam.io.mongodb.target import CLIENT_OPTIONS, Target, transient
from fabric_beam.io.mongodb.values import plain
from fabric_beam.io.records.schema import flattened, infer
from fabric_beam.io.records.values import converter
from fabric_beam.kernel import Split
from fabric_beam.lookups.lookup import Lookup
from fabric_beam.lookups.rows import field, from_records

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection

#: Documents that the columns are found by.
_SAMPLE = 1000


class MongoLookup(Lookup):
    """Look up documents: `mongodb://[user:password@]host[:port][,host]/database/collection`.

    The key columns are paths of fields in the documents (an index on them makes it fast), and so are the columns:
    `http.route` is the field `route` in the document `http`. An `_id` that is an object id is found by its text.
    Columns that are not declared are those of a sample. Of several documents with one key any is taken.

    Args:
        endpoint: the URL, with the client's own options, such as `authSource`, `tls`, `readPreference`.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = CLIENT_OPTIONS
    KEYS: ClassVar[int] = 1_000

    def __init__(self, endpoint: Endpoint) -> None:
        try:
            import pymongo  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(f"{endpoint.scheme}:", "mongodb") from error
        self._target = Target.parse(endpoint)
        self._client: MongoClient[dict[str, Any]] | None = None

    def connect(self, timeout: float) -> None:
        client = self._target.client(timeout)
        try:
            client.admin.command("hello")
        except Exception:
            client.close()
            raise
        self._client = client

    def schema(self, keys: pl.Schema) -> pl.Schema:
        documents = list(self._documents.find(limit=_SAMPLE))
        if not documents:
            raise UsageError(
                "there are no documents to find the columns by. Declare them: columns={'tier': pl.String} in Python, "
                "fabric.columns=tier:string in a URL."
            )
        leaves = {".".join(path): dtype for path, dtype in flattened(infer(documents, plain))}
        return pl.Schema({name: dtype for name, dtype in leaves.items() if name != "_id" and name not in keys})

    def get(self, keys: pl.DataFrame, columns: pl.Schema) -> pl.DataFrame | Split:
        # With several key columns this finds other combinations, too; to ask for each takes servers far longer.
        query = {column.name: {"$in": _ids(column.unique())} for column in keys}
        fields = _outermost([*keys.columns, *columns])
        documents = list(self._documents.find(query, {"_id": "_id" in fields, **dict.fromkeys(fields, 1)}))
        convert = converter(plain)
        found = [
            convert([field(document, name) for document in documents], dtype) for name, dtype in keys.schema.items()
        ]
        # A key in an array matches, too, and is none that was asked for.
        wrong = {number for _, misfits in found for number in misfits}
        good = [number for number in range(len(documents)) if number not in wrong]
        given = pl.DataFrame({name: values for name, (values, _) in zip(keys.columns, found, strict=True)}, keys.schema)
        return from_records(given[good], [documents[number] for number in good], columns, convert)

    def transient(self, error: Exception) -> bool:
        return transient(error)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    @property
    def _documents(self) -> Collection[dict[str, Any]]:
        from bson.codec_options import CodecOptions, DatetimeConversion

        assert self._client is not None
        options: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
        return self._client[self._target.database].get_collection(self._target.collection, codec_options=options)


def _ids(column: pl.Series) -> list[Any]:
    """The values of a key column; of texts that may be object ids, these too."""
    from bson import ObjectId

    values = column.to_list()
    if column.name == "_id" and column.dtype == pl.String:
        values += [ObjectId(value) for value in column if ObjectId.is_valid(value)]
    return values


def _outermost(names: list[str]) -> list[str]:
    """Names without those of fields inside of others: a projection may not have both."""
    return [name for name in dict.fromkeys(names) if not any(name.startswith(f"{other}.") for other in names)]
