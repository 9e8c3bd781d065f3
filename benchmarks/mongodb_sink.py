"""Rows a second into MongoDB beside hand-written bulks of its client: `python -m benchmarks.mongodb_sink`.

All ways write the same rows as the same documents to the same server (one of its own, on this machine), in turn,
several times over, into an empty collection, and where it says so a second time over the rows that are there. What a
pipeline takes to start is measured on ten rows and taken off; its rows are made in its first step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import apache_beam as beam
import bson
import polars as pl
import pyarrow as pa
import pymongo
from apache_beam.options.pipeline_options import PipelineOptions
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from benchmarks.measure import timed
from benchmarks.rows import events
from fabric_beam import WriteTo
from fabric_beam.batches import BatchOf, arrow_schema, to_batch
from fabric_beam.endpoints import Endpoint
from fabric_beam.io.mongodb.sink import MongoStore
from fabric_beam.runners.direct import DirectRunner
from fabric_beam.schemes import SINKS
from fabric_beam.testing.servers.mongodb import MongoServer

#: Of 500, 1,000, 5,000 and 10,000 documents a bulk, the hand-written loops are not faster with any other.
_BULK = 5_000
_BATCH = 10_000
_FEW = 10
Document = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--beam-rows", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with MongoServer(durable=False) as server, _client(server) as client:
        there: Collection[Document] = client.bench.events
        encoded = {rows: list(_encoded(events(rows))) for rows in (_FEW, options.rows)}
        ways: dict[str, tuple[int, bool, Callable[[pl.DataFrame], None]]] = {
            "Fabric Beam's store": (options.rows, True, lambda table: _store(server, table)),
            "the whole sink, DirectRunner": (options.rows, True, lambda table: _sink(server, table)),
            "by hand: insert, replace what is there": (options.rows, True, lambda table: _insert(there, table)),
            "by hand: replace with upsert": (options.rows, True, lambda table: _replace(there, table)),
            "by hand: insert_many (a replay fails)": (options.rows, False, lambda table: _plain(there, _bulks(table))),
            "the limit: insert_many of documents that are BSON already": (
                options.rows,
                False,
                lambda table: _plain(there, encoded[table.height]),
            ),
            "Beam's WriteToMongoDB, DirectRunner": (options.beam_rows, True, lambda table: _elements(server, table)),
        }
        figures: dict[str, list[tuple[float, float, float]]] = {}
        for _ in range(options.runs):
            for way, (rows, again, write) in ways.items():
                few, table = events(_FEW), events(rows)
                there.drop()
                started = timed(partial(write, few), server.pid)
                there.drop()
                for what in (way, f"{way}, again")[: 1 + again]:
                    whole = timed(partial(write, table), server.pid)
                    assert there.count_documents({}) == rows, way
                    took = [(all_ - start) / (rows - _FEW) for all_, start in zip(whole, started, strict=True)]
                    figures.setdefault(what, []).append((took[0], took[1], took[2]))
                    print(f"{what}: {1 / took[0]:,.0f} rows/s", file=sys.stderr)
    print(
        f"{options.rows:,} rows ({options.beam_rows:,} for Beam's), medians of {options.runs} runs, pymongo "
        f"{pymongo.version}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| way | rows a second | client CPU a row | server CPU a row |")
    print("|---|---|---|---|")
    for way, runs in sorted(figures.items(), key=lambda item: item[0].endswith("again")):
        wall, ours, theirs = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"| {way} | {1 / wall:,.0f} | {ours * 1e6:.1f} µs | {theirs * 1e6:.0f} µs |")


def _documents(table: pl.DataFrame) -> list[Document]:
    """What one would write for these columns."""
    documents = []
    table = table.with_columns(pl.col("timestamp").dt.replace_time_zone(None))
    for when, address, method, path, status, size, agent, source, offset in table.iter_rows():
        response: Document = {"status_code": status}
        if size is not None:
            response["body"] = {"size": size}
        documents.append(
            {
                "_id": f"{source}:{offset}",
                "timestamp": when,
                "client": {"address": address},
                "http": {"request": {"method": method}, "response": response},
                "url": {"path": path},
                "user_agent": {"original": agent},
                "source": source,
                "offset": offset,
            }
        )
    return documents


def _client(server: MongoServer) -> pymongo.MongoClient[Document]:
    return pymongo.MongoClient(f"mongodb://{server.address}")


def _url(server: MongoServer) -> str:
    return f"mongodb://{server.address}/bench/events"


def _store(server: MongoServer, table: pl.DataFrame) -> None:
    store = MongoStore(Endpoint.parse(_url(server), SINKS))
    store.connect(60)
    for part in table.iter_slices(store.ROWS):
        assert store.write(part) is None
    store.close()


def _sink(server: MongoServer, table: pl.DataFrame) -> None:
    hint = BatchOf(arrow_schema(table))
    with beam.Pipeline(DirectRunner(), options=PipelineOptions([], pickle_library="cloudpickle")) as pipeline:
        rows = pipeline | beam.Create([table.height]) | beam.FlatMap(_batches).with_output_types(hint)
        rows.element_type = hint
        _ = rows | WriteTo(f"{_url(server)}?call_timeout=60")


def _batches(rows: int) -> Iterator[pa.RecordBatch]:
    return (to_batch(part) for part in events(rows).iter_slices(_BATCH))


def _bulks(table: pl.DataFrame) -> Iterator[list[Document]]:
    for part in table.iter_slices(_BULK):
        yield _documents(part)


def _encoded(table: pl.DataFrame) -> Iterator[list[RawBSONDocument]]:
    return ([RawBSONDocument(bson.encode(document)) for document in bulk] for bulk in _bulks(table))


def _plain(events: Collection[Any], bulks: Iterable[Sequence[Any]]) -> None:
    for documents in bulks:
        events.insert_many(documents, ordered=False)


def _insert(events: Collection[Document], table: pl.DataFrame) -> None:
    for documents in _bulks(table):
        try:
            events.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            there = [documents[each["index"]] for each in error.details["writeErrors"]]
            events.bulk_write([pymongo.ReplaceOne({"_id": d["_id"]}, d, upsert=True) for d in there], ordered=False)


def _replace(events: Collection[Document], table: pl.DataFrame) -> None:
    for documents in _bulks(table):
        events.bulk_write([pymongo.ReplaceOne({"_id": d["_id"]}, d, upsert=True) for d in documents], ordered=False)


def _elements(server: MongoServer, table: pl.DataFrame) -> None:
    options = PipelineOptions([], runner="DirectRunner", pickle_library="cloudpickle")
    with beam.Pipeline(options=options) as pipeline:
        documents = pipeline | beam.Create([table.height]) | beam.FlatMap(lambda rows: _documents(events(rows)))
        _ = documents | beam.io.WriteToMongoDB(f"mongodb://{server.address}", "bench", "events")


if __name__ == "__main__":
    main()
