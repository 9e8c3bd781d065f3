"""Time-series collections of MongoDB: documents there cannot be replaced, and no index tells that one is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

if TYPE_CHECKING:
    from bson.raw_bson import RawBSONDocument
    from pymongo.collection import Collection

Document = dict[str, Any]
#: A command is a document itself, and has the documents in it: of 16 MiB and a little more at most.
_COMMAND_BYTES = 8 << 20


def options(time: str, meta: str, ttl: int) -> dict[str, Any]:
    """What `create_collection` makes a time series by.

    Args:
        time: the field that rows are ordered by.
        meta: the field that tells series apart; empty if none does.
        ttl: seconds after which documents are removed; 0 is never.

    Example:
        >>> options("timestamp", "service", 60)
        {'timeseries': {'timeField': 'timestamp', 'metaField': 'service'}, 'expireAfterSeconds': 60}

    Source: https://www.mongodb.com/docs/manual/core/timeseries/timeseries-procedures/
    """
    made: dict[str, Any] = {"timeseries": {"timeField": time, **({"metaField": meta} if meta else {})}}
    return made | ({"expireAfterSeconds": ttl} if ttl else {})


def missing(collection: Collection[Document], documents: Sequence[Document], time: str) -> list[int]:
    """Which documents are not there yet: of those with a time, the last with each identity.

    They are looked for in the buckets of their time, by which a time series is found, not by their `_id`, by which it
    is not.
    """
    last = {document["_id"]: number for number, document in enumerate(documents) if time in document}
    if last:
        times = [documents[number][time] for number in last.values()]
        asked = {time: {"$gte": min(times), "$lte": max(times)}, "_id": {"$in": list(last)}}
        for document in collection.find(asked, {"_id": True}):
            last.pop(document["_id"], None)
    return sorted(last.values())


def insert(collection: Collection[Document], documents: Sequence[Document], session: UUID) -> int:
    """Insert documents so that a server that is sent the same again, with the same session, takes them once.

    Args:
        collection: the time series.
        documents: the same in the same order, when it is repeated.
        session: a new one for each bulk: its writes are numbered from one, and a server remembers which it has done.

    Returns:
        How many there are.

    Raises:
        pymongo.errors.BulkWriteError: single documents were refused.
        pymongo.errors.PyMongoError: the server refused or did not answer.

    Source: https://github.com/mongodb/specifications/blob/master/source/retryable-writes/retryable-writes.md
    """
    from bson import Binary, Int64
    from pymongo.errors import BulkWriteError

    database, errors, concerns, first = collection.database, [], [], 0
    command: Document = {"insert": collection.name, "ordered": False}
    if not collection.write_concern.is_server_default:
        command["writeConcern"] = collection.write_concern.document
    for number, part in enumerate(_parts(collection, documents), 1):
        with database.client.start_session() as each:
            # The client chooses sessions by itself, and has no other way to use one again.
            cast(Document, each.session_id)["id"] = Binary.from_uuid(session)
            answer = database.command({**command, "documents": part, "txnNumber": Int64(number)}, session=each)
        errors += [{**error, "index": first + error["index"]} for error in answer.get("writeErrors", ())]
        concerns += [answer["writeConcernError"]] if "writeConcernError" in answer else []
        first += len(part)
    if errors or concerns:
        raise BulkWriteError({"writeErrors": errors, "writeConcernErrors": concerns, "nMatched": 0})
    return first


def _parts(collection: Collection[Document], documents: Sequence[Document]) -> Iterator[list[RawBSONDocument]]:
    import bson
    from bson.raw_bson import RawBSONDocument

    part: list[RawBSONDocument] = []
    size = 0
    for document in documents:
        encoded = bson.encode(document, codec_options=collection.codec_options)
        if part and size + len(encoded) > _COMMAND_BYTES:
            yield part
            part, size = [], 0
        part.append(RawBSONDocument(encoded))
        size += len(encoded)
    yield part
