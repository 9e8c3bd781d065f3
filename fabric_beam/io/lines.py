"""`lines:` or no scheme: lines of text files, plain or compressed, and standard input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import IO, Any

import apache_beam as beam
import numpy as np
import polars as pl
import pyarrow as pa

from fabric_beam import ledger, simd
from fabric_beam.batches import BatchOf, arrow_schema, to_batch
from fabric_beam.endpoints import Endpoint, step
from fabric_beam.errors import InputError, UsageError
from fabric_beam.io import files
from fabric_beam.memory import empty, keep_freed_buffers
from fabric_beam.progress import PROGRESS
from fabric_beam.views import Bytes, Positions, Text, Words, compiled, padded

SCHEMA = pl.Schema(
    {
        "body": pl.String(),
        "source": pl.String(),
        "offset": pl.Int64(),
        "observed_timestamp": pl.Datetime("us", "UTC"),
    }
)

#: Bytes that become one batch: what each step costs a batch is spread over many rows, and a few MB still stay in the
#: processor's cache on their way through the kernels.
_BLOCK = 8 << 20
_LONGEST_LINE = 64 << 20
#: Bytes kept free behind a block for the rest of its last line.
_ROOM = 1 << 16
_NEWLINE, _RETURN = 10, 13
_LAST_OF_ASCII = 0x7F
_MAGIC = {
    b"\x1f\x8b": "gzip data: its name should end in .gz",
    b"BZh": "bzip2 data: its name should end in .bz2",
    b"\x28\xb5\x2f\xfd": "zstd data: its name should end in .zst",
    b"PAR1": "a Parquet file: read it as parquet:PATH",
    b"PK\x03\x04": "a zip archive: unpack it first",
}


class ReadLines(beam.PTransform):
    """Read lines of text, each with its file and its byte offset there.

    Big files are split at line ends and read side by side; memory holds a few blocks, whatever the files' size. Bytes
    that are not UTF-8 become U+FFFD; `source` and `offset` lead back to the originals.

    Args:
        endpoints: paths, globs, folders, URLs of Beam's file systems; `-` is standard input.
        limit: read at most this many lines, in order.

    Output: batches with `body` (the line without its `\\n` or `\\r\\n`), `source` (the path), `offset` (bytes from the
    start of the file, after decompression), `observed_timestamp` (when the file was last changed).

    Raises:
        InputError: if nothing matches or a file cannot be read.
    """

    def __init__(self, endpoints: Sequence[Endpoint], *, limit: int | None = None) -> None:
        super().__init__()
        for endpoint in endpoints:
            endpoint.no_more_options()
        self.files = files.match([endpoint.path for endpoint in endpoints])
        self._limit = limit

    def sample(self, lines: int = 1000) -> list[str]:
        """The first lines of the first file that has any: what a format's schema is inferred from.

        Raises:
            UsageError: the input is standard input, which can be read but once.
        """
        for file in self.files:
            if file.path == files.STDIN:
                raise UsageError("A schema cannot be inferred from standard input: write it to a file first.")
            with files.open_file(file) as handle:
                for offset, text, size in blocks(handle, files.Split(file, 0, None)):
                    table = table_of_lines(text, size, offset, file.path, file.modified)
                    return [str(line) for line in table["body"].head(lines)]
        return []

    def expand(self, pbegin: Any) -> beam.PCollection:
        label = step(pbegin.pipeline)
        splits = files.split(self.files)
        # Reading in order up to a limit takes one reader; else every split is work of its own.
        work = [splits] if self._limit is not None else [[split] for split in splits]
        PROGRESS.add(total=sum(file.size for file in self.files))
        lines = (
            pbegin
            | "Splits" >> beam.Create(work, reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Lines" >> beam.ParDo(_ReadLines(label, self._limit))
        )
        lines.element_type = BatchOf(arrow_schema(pl.DataFrame(schema=SCHEMA)))
        return lines


class _ReadLines(beam.DoFn):
    def __init__(self, step: str, limit: int | None) -> None:
        self._limit = limit
        self._account = ledger.Account(step)

    def setup(self) -> None:
        keep_freed_buffers()

    def process(self, work: list[files.Split]) -> Iterator[pa.RecordBatch]:
        left = self._limit
        for split in work:
            with files.open_file(split.file) as file:
                for offset, words, size in blocks(file, split):
                    table = table_of_lines(words, size, offset, split.file.path, split.file.modified)
                    if left is not None:
                        table = table.head(left)
                        left -= table.height
                    self._account.add("read", table.height)
                    self._account.add("bytes", size)
                    PROGRESS.add(rows=table.height, bytes=0 if split.file.compression else size)
                    yield to_batch(table)
                    if left == 0:
                        return


def blocks(file: IO[bytes], split: files.Split) -> Iterator[tuple[int, Words, int]]:
    """The lines that begin in a split, as blocks of whole lines.

    Args:
        file: open at its start.
        split: which of its lines.

    Returns:
        For each block its byte offset in the file, its text (`fabric_beam.views.padded`) and that text's size in bytes;
        it ends with a line's end or the file's.

    Raises:
        InputError: if the file is not text, or a line is longer than 64 MiB.

    Example:
        >>> import io
        >>> text = files.File("a.log", 12, None)
        >>> [(offset, bytes(words)[:size]) for offset, words, size in
        ...  blocks(io.BytesIO(b"one\\ntwo\\nsix"), files.Split(text, 1, 6))]
        [(4, b'two\\n')]
    """
    position = split.start
    if position:
        # The line that holds the byte before the split belongs to the split before this one.
        file.seek(position - 1)
        position += len(_line_end(file, split, position)) - 1
    while split.stop is None or position < split.stop:
        asked = _BLOCK if split.stop is None else min(_BLOCK, split.stop - position)
        words = padded(asked + _ROOM)
        data = memoryview(words.data).cast("B")
        size = file.readinto(data[:asked])  # type: ignore[attr-defined]
        if not size:
            return
        if not position:
            _check_text(bytes(data[: min(size, 4096)]), split.file.path)
        if data[size - 1] != _NEWLINE:
            end = _line_end(file, split, position)
            if len(end) > _ROOM:
                longer = padded(size + len(end))
                longer.view(np.uint8)[:size] = words.view(np.uint8)[:size]
                words, data = longer, memoryview(longer.data).cast("B")
            data[size : size + len(end)] = end
            size += len(end)
        # What a short read left unwritten would be read as text.
        words.view(np.uint8)[size:] = 0
        yield position, words, size
        position += size


def _line_end(file: IO[bytes], split: files.Split, position: int) -> bytes:
    end = file.readline(_LONGEST_LINE)
    if len(end) == _LONGEST_LINE and end[-1] != _NEWLINE:
        raise InputError(
            f"{split.file.path}: the line near byte {position} is longer than {_LONGEST_LINE >> 20} MiB. "
            "Is this a text file?"
        )
    return end


def _check_text(start: bytes, path: str) -> None:
    for magic, what in _MAGIC.items():
        if start.startswith(magic):
            raise InputError(f"{path} is not text but {what}.")
    sample = np.frombuffer(start, np.uint8)
    control = np.count_nonzero(
        (sample < 32) & (sample != _NEWLINE) & (sample != 9) & (sample != _RETURN) & (sample != 27)
    )
    if control > max(len(sample) // 10, 8):
        raise InputError(
            f"{path} is not text: {control} of its first {len(sample)} bytes are control characters. Is it a log?"
        )


def table_of_lines(words: Words, size: int, offset: int, source: str, modified: datetime | None) -> pl.DataFrame:
    """Lines as a table that points into their block.

    Args:
        words: whole lines, padded; the last one's end may be missing.
        size: how many bytes of it are text.
        offset: the block's byte offset in its file.
        source: the file.
        modified: when it was last changed.

    Returns:
        The columns of `SCHEMA`, a row a line.

    Example:
        >>> words = padded(8)
        >>> words.view(np.uint8)[:8] = list(b"one\\r\\ntwo")
        >>> table_of_lines(words, 8, 100, "a.log", None).select("body", "offset").rows()
        [('one', 100), ('two', 105)]
    """
    text = Text(pa.py_buffer(words))
    starts, lengths, foreign = (empty(_count_lines(text.bytes, size) + 1, np.int64) for _ in range(3))
    count, foreign_count = _find_lines(text.bytes, size, starts, lengths, foreign)
    starts, lengths = starts[:count], lengths[:count]
    offsets = starts + offset
    if foreign_count and not is_utf8(words, size):
        text = as_utf8(words, size, starts, lengths, foreign[:foreign_count])
    return pl.DataFrame(
        [
            text.cut(starts, lengths).alias("body"),
            pl.Series("source", [source], SCHEMA["source"]).new_from_index(0, count),
            pl.Series("offset", offsets),
            pl.Series("observed_timestamp", [modified], SCHEMA["observed_timestamp"]).new_from_index(0, count),
        ]
    )


def is_utf8(words: Words, size: int) -> bool:
    """Whether so many bytes of a text are UTF-8."""
    text = pa.Array.from_buffers(pa.large_string(), 1, [None, pa.py_buffer(np.array([0, size])), pa.py_buffer(words)])
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def as_utf8(words: Words, size: int, starts: Positions, lengths: Positions, lines: Positions) -> Text:
    """A padded text with those of the given lines that are not UTF-8 once more behind it, made so; they move there.

    It is copied only if there is no room behind it.
    """
    data, behind, at = words.view(np.uint8), [], size
    for line in lines.tolist():
        raw = data[starts[line] : starts[line] + lengths[line]].tobytes()
        replaced = raw.decode(errors="replace").encode()
        if replaced != raw:
            behind.append(replaced)
            starts[line], lengths[line] = at, len(replaced)
            at += len(replaced)
    if at > len(data) - simd.WIDTH:
        words = padded(at)
        words.view(np.uint8)[:size] = data[:size]
        data = words.view(np.uint8)
    data[size:at] = np.frombuffer(b"".join(behind), np.uint8)
    data[at:] = 0
    return Text(pa.py_buffer(words))


@compiled
def _count_lines(text: Bytes, size: int) -> int:
    """How many line ends there are."""
    count = 0
    for at in range(0, size, simd.WIDTH):
        count += simd.count(simd.equal(text, at, _NEWLINE))
    return count


@compiled
def _find_lines(text: Bytes, size: int, starts: Positions, lengths: Positions, foreign: Positions) -> tuple[int, int]:
    """Find lines, without their ends, and the numbers of those not in ASCII; returns how many there are of each."""
    count, foreign_count, start, is_foreign = 0, 0, 0, False
    for at in range(0, size, simd.WIDTH):
        high = simd.above(text, at, _LAST_OF_ASCII)
        found = simd.equal(text, at, _NEWLINE)
        while found:
            end = at + simd.first(found)
            starts[count] = start
            lengths[count] = end - start - (end > start and text[end - 1] == _RETURN)
            before = (found ^ (found - np.uint64(1))) >> np.uint64(1)
            if is_foreign or high & before:
                foreign[foreign_count] = count
                foreign_count += 1
            is_foreign = False
            high &= ~before
            count += 1
            start = end + 1
            found &= found - np.uint64(1)
        is_foreign = is_foreign or high != np.uint64(0)
    if start < size:
        starts[count] = start
        lengths[count] = size - start
        if is_foreign:
            foreign[foreign_count] = count
            foreign_count += 1
        count += 1
    return count, foreign_count
