"""How elements get from one stage's subtasks to those of another."""

from __future__ import annotations

import struct
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Literal

import zstandard

from fabric_beam.runners.elements import Coders, Keys, elements, partition

#: A message: the subtask that it is for, a port or `END`, a partition, and compressed bytes.
Message = tuple[int, int, int, bytes]
#: The port of the message that says that a subtask will send nothing more on an edge.
END = -1
#: The port of a piece of a chunk for port 0; below it, for those after. A piece begins with `PIECE`.
PIECES = -2
#: What tells the pieces of one chunk from others, and whether this is the last.
PIECE = struct.Struct("<16s?")

_CHUNK = 1 << 20
_LARGEST = 2 << 20
_IN_MEMORY = 4 << 20
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Edge:
    """One of a stage's outputs on its way to a stage that reads it.

    Attributes:
        tag: the name of Flink's side output for it.
        output: the transform of the output's port.
        port: the number of the input, side inputs after the others.
        parallelism: how many subtasks read it.
        partitions: how many partitions these have, all together.
        how: `keys`, all elements of a key go to one partition; `elements`, each by itself in turn; `chunks`, in turn,
            as they come; `broadcast`, all of them to every subtask.
        coder: id of the coder that takes elements apart.
    """

    tag: str
    output: str
    port: int
    parallelism: int
    partitions: int
    how: Literal["keys", "elements", "chunks", "broadcast"]
    coder: str


class Writer:
    """Spreads one subtask's output over the subtasks that read it.

    Args:
        edge: the way.
        subtask: which subtask writes.
        coders: of the plan.
        put: takes the edge's tag and a message.
    """

    def __init__(self, edge: Edge, subtask: int, coders: Coders, put: Callable[[str, Message], None]) -> None:
        self._edge = edge
        self._turn = subtask
        self._coders = coders
        self._keys = Keys(coders, edge.coder) if edge.how == "keys" else None
        self._put = put
        self._parts: dict[int, bytearray] = {}
        self._compress = zstandard.ZstdCompressor(level=1).compress

    def write(self, data: bytes) -> None:
        """Write a chunk of encoded elements."""
        if self._keys is not None:
            for key, element in self._keys.split(data):
                self._add(partition(key, self._edge.partitions), element)
        elif self._edge.how == "elements":
            for element in elements(self._coders, self._edge.coder, data):
                self._send(self._next(), 0, element)
        elif self._edge.how == "chunks":
            self._send(self._next(), 0, data)
        else:
            self._send(0, 0, data)

    def end(self) -> None:
        """Write what is left, and say that this was all."""
        for part, buffer in self._parts.items():
            self._send(part % self._edge.parallelism, part, bytes(buffer))
        self._parts = {}
        for subtask in range(1 if self._edge.how == "broadcast" else self._edge.parallelism):
            self._put(self._edge.tag, (subtask, END, 0, b""))

    def _next(self) -> int:
        self._turn += 1
        return self._turn % self._edge.parallelism

    def _add(self, part: int, element: bytes) -> None:
        buffer = self._parts.setdefault(part, bytearray())
        buffer += element
        if len(buffer) >= _CHUNK:
            del self._parts[part]
            self._send(part % self._edge.parallelism, part, bytes(buffer))

    def _send(self, subtask: int, part: int, data: bytes) -> None:
        data, port = self._compress(data), self._edge.port
        if len(data) <= _LARGEST:
            self._put(self._edge.tag, (subtask, port, part, data))
            return
        # A TaskManager's memory for a message is far less than a value may have.
        name = uuid.uuid4().bytes
        for at in range(0, len(data), _LARGEST):
            piece = PIECE.pack(name, at + _LARGEST >= len(data)) + data[at : at + _LARGEST]
            self._put(self._edge.tag, (subtask, PIECES - port, part, piece))


class Spool:
    """Compressed chunks that wait for their stage to start; many of them wait on disk."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115

    def append(self, data: bytes) -> None:
        """Add a chunk."""
        self._file.write(_LENGTH.pack(len(data)))
        self._file.write(data)

    def __iter__(self) -> Iterator[bytes]:
        decompress = zstandard.ZstdDecompressor().decompress
        self._file.seek(0)
        while header := self._file.read(_LENGTH.size):
            yield decompress(self._file.read(*_LENGTH.unpack(header)))

    def close(self) -> None:
        """Free its memory and its file."""
        self._file.close()
