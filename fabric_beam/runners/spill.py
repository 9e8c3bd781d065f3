"""Groups that are larger than memory: on disk, keys apart from one another, values read when they are asked for."""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from typing import IO, Any

from apache_beam.coders import coder_impl
from apache_beam.coders.coders import BytesCoder, FastCoder, IterableCoder, TupleCoder, WindowedValueCoder
from apache_beam.runners.portability.fn_api_runner import execution

from fabric_beam.runners.elements import Coders, Groups, Keys, partition
from fabric_beam.runners.plan import Grouping

_FILES = 32
_PAGE = 1 << 20
_LENGTH = struct.Struct("!q")
_PLACE = struct.Struct("!qq")


class Spill:
    """Groups elements by key; on disk, if they need more memory than given.

    A key whose values alone are too many goes out with a token in their place: Beam's state-backed iterable, by which
    the stage reads them from here, a mebibyte at a time, as often as it goes through them.

    Args:
        coders: of the plan.
        memory: bytes of values that are grouped in memory.
    """

    def __init__(self, coders: Coders, memory: int) -> None:
        self._coders = coders
        self._memory = memory
        self._values: IO[bytes] | None = None
        self._end = 0
        #: By token: where the values of a key in a window are, offsets and lengths by turns.
        self._places: list[array[int]] = []

    def group(self, grouping: Grouping, data: Iterable[bytes]) -> Iterator[bytes]:
        """Group what belongs together.

        Args:
            grouping: from a plan.
            data: chunks of encoded key-value elements, all those of the keys that are in them.

        Returns:
            Chunks of encoded keys with their values; good until `close`.
        """
        groups, kept, size = Groups(grouping, self._coders), [], 0
        data = iter(data)
        for chunk in data:
            kept.append(chunk)
            size += len(chunk)
            if size > self._memory:
                break
        else:
            yield from groups.group(kept)
            return
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(_FILES)]
            split = Keys(self._coders, grouping.before[0]).split
            while kept:
                for key, element in split(kept.pop()):
                    # Another hash than the one that brought these keys to this partition.
                    file = files[partition(key + b"spill", _FILES)]
                    file.write(_LENGTH.pack(len(element)))
                    file.write(element)
                kept.extend(itertools.islice(data, 1))
            for file in files:
                large = file.tell() > self._memory
                file.seek(0)
                yield from self._by_token(grouping, _read(file)) if large else groups.group(_read(file))
                file.close()

    def read(self, token: bytes, continuation: bytes | None) -> tuple[bytes, bytes | None]:
        """A page of the values that a token stands for.

        Args:
            token: in the place of values.
            continuation: what the page before came with, or None for the first one.

        Returns:
            Encoded values, and the continuation of the next page, if there is one.
        """
        assert self._values is not None
        # It is read past the buffer.
        self._values.flush()
        places, at, page, size = self._places[int(token)], int(continuation or 0), [], 0
        while at < len(places) and size < _PAGE:
            page.append(os.pread(self._values.fileno(), places[at + 1], places[at]))
            size += places[at + 1]
            at += 2
        return b"".join(page), b"%d" % at if at < len(places) else None

    def close(self) -> None:
        """Free the disk."""
        if self._values is not None:
            self._values.close()
        self._places = []

    def _by_token(self, grouping: Grouping, data: Iterator[bytes]) -> Iterator[bytes]:
        """Group places on disk instead of values, by Beam's own windows and triggers, and give each key a token."""
        before, after = (self._coders.windowed(*coders) for coders in (grouping.before, grouping.after))
        keys, values = before.wrapped_value_coder.key_coder(), before.wrapped_value_coder.value_coder().get_impl()
        place = WindowedValueCoder(TupleCoder((keys, BytesCoder())), before.window_coder)
        places = WindowedValueCoder(TupleCoder((keys, IterableCoder(BytesCoder()))), after.window_coder)
        tokens = WindowedValueCoder(TupleCoder((keys, _TokenCoder())), after.window_coder).get_impl()
        buffer = execution.GroupingBuffer(place, places, self._coders.windowing(grouping.windowing))
        decode, encode = before.get_impl().decode_nested, place.get_impl().encode_nested
        for element in data:
            windowed = decode(element)
            key, value = windowed.value
            buffer.append(encode(windowed.with_value((key, self._keep(values.encode_nested(value))))))
        for chunk in buffer:
            for group in places.get_impl().decode_all(chunk):
                key, found = group.value
                self._places.append(array("q", itertools.chain.from_iterable(map(_PLACE.unpack, found))))
                yield tokens.encode_nested(group.with_value((key, b"%d" % (len(self._places) - 1))))

    def _keep(self, value: bytes) -> bytes:
        """Write a value to disk; returns its place."""
        if self._values is None:
            self._values = tempfile.TemporaryFile()  # noqa: SIM115
        self._values.write(value)
        self._end += len(value)
        return _PLACE.pack(self._end - len(value), len(value))


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while header := file.read(_LENGTH.size):
        yield file.read(*_LENGTH.unpack(header))


class _TokenCoder(FastCoder):
    """Writes a token as an iterable whose values are all elsewhere (`SequenceCoderImpl` says how that looks)."""

    def _create_impl(self) -> Any:
        return _TokenCoderImpl()


class _TokenCoderImpl(coder_impl.StreamCoderImpl):
    def encode_to_stream(self, value: bytes, out: Any, nested: bool) -> None:
        out.write_bigendian_int32(-1)
        out.write_var_int64(-1)
        out.write(value, True)
