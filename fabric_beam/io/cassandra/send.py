"""Encoded rows on their way: batches over the client's connections, so many at a time."""

from __future__ import annotations

import io
import re
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fabric_beam.io.cassandra.encode import Batches

if TYPE_CHECKING:
    from cassandra.cluster import Session
    from cassandra.query import PreparedStatement

#: Requests of one `send` that are under way at a time, at most.
_IN_FLIGHT = 32
#: `native_transport_max_frame_size` (16 MiB), less what else a request has: the server drops the connection over more.
_MOST_BYTES = (16 << 20) - 1024
#: What is wrong with every row.
_FOR_ALL = re.compile(r"unconfigured table|(keyspace|table) \S+ does not exist", re.IGNORECASE)


def prepare(session: Session) -> None:
    """Let a session send what `send` gives it: the client's own encoding of batches takes value after value."""
    from cassandra.protocol import BatchMessage, ProtocolHandler

    class EncodedBatch(BatchMessage):
        """A batch whose statements are bytes already."""

        def send_body(self, f: Any, protocol_version: int) -> None:
            encoded: tuple[int, memoryview] = self.queries
            count, statements = encoded
            around = io.BytesIO()
            self.queries: Any = ()
            super().send_body(around, protocol_version)
            self.queries = encoded
            # The kind of batch, how many statements, the statements, and what holds for all of them.
            f.write(around.getvalue()[:1] + count.to_bytes(2, "big"))
            f.write(statements)
            f.write(around.getvalue()[3:])

    class Handler(ProtocolHandler):
        @classmethod
        def encode_message(cls, msg: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(msg, BatchMessage):
                # This session sends no others.
                msg.__class__ = EncodedBatch
            return super().encode_message(msg, *arguments, **options)

    session.client_protocol_handler = Handler


def send(session: Session, insert: PreparedStatement, made: Batches) -> dict[int, str]:
    """Write encoded rows, those of one partition together.

    Args:
        session: one that is `prepare`d.
        insert: the statement that they are values of.
        made: the rows.

    Returns:
        What is wrong with rows that were refused, by the statement's number.

    Raises:
        Exception: the first other error, when nothing is under way any more.
    """
    firsts = made.firsts.tolist()
    sent = list(pairwise(firsts))
    sizes = np.diff(made.starts)
    large = {n: f"{sizes[n]:,} bytes, and a request has 16 MiB at most" for n in np.flatnonzero(sizes > _MOST_BYTES)}
    # Such a row is a batch of its own.
    refused = _send(session, insert, made, [part for part in sent if part[0] not in large])
    # A batch is refused for one of its rows.
    alone = [(n, n + 1) for first, last in refused if last - first > 1 for n in range(first, last)]
    refused = {part: error for part, error in refused.items() if part[1] - part[0] == 1}
    refused |= _send(session, insert, made, alone)
    return large | {first: str(error) for (first, _), error in refused.items()}


def _send(
    session: Session, insert: PreparedStatement, made: Batches, parts: list[tuple[int, int]]
) -> dict[tuple[int, int], Exception]:
    """Write some runs of statements; returns those that were refused."""
    from cassandra.query import BatchStatement, BatchType

    free = threading.Semaphore(_IN_FLIGHT)
    refused: dict[tuple[int, int], Exception] = {}
    failed: list[Exception] = []

    def done(_: object) -> None:
        free.release()

    def error(raised: Exception, part: tuple[int, int]) -> None:
        if _is_of_rows(raised):
            refused[part] = raised
        else:
            failed.append(raised)
        free.release()

    for part in parts:
        free.acquire()
        if failed:
            free.release()
            break
        first, last = part
        batch = BatchStatement(BatchType.UNLOGGED)
        batch.routing_key = made.routing_key(first)
        batch.keyspace = insert.column_metadata[0].keyspace_name
        batch._statements_and_parameters = (last - first, made.statements(first, last))
        session.execute_async(batch).add_callbacks(done, error, errback_args=(part,))
    for _ in range(_IN_FLIGHT):
        free.acquire()
    if failed:
        raise failed[0]
    return refused


def _is_of_rows(error: Exception) -> bool:
    """Whether an error is of some rows' values, and not of all that could be written."""
    from cassandra import InvalidRequest
    from cassandra.protocol import ServerError

    if isinstance(error, InvalidRequest):
        return not _FOR_ALL.search(str(error))
    return isinstance(error, ServerError) and "too large" in str(error)
