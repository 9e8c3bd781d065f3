"""Files of any of Beam's file systems: which ones match, how they are split, how they are opened."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, takewhile
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from fabric_beam.errors import InputError
from fabric_beam.progress import PROGRESS

_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}
_MIN_SPLIT, _MAX_SPLIT = 4 << 20, 64 << 20
_SPLITS_PER_CORE = 8

STDIN = "-"


class File(NamedTuple):
    """A file that matched.

    Attributes:
        path: as Beam's file systems name it; `-` is standard input.
        size: bytes, as stored.
        modified: when it was last changed, None if not known.
    """

    path: str
    size: int
    modified: datetime | None

    @property
    def compression(self) -> str | None:
        """`gzip`, `bz2`, `zstd` or None, by the file's suffix."""
        return _COMPRESSIONS.get(Path(self.path).suffix.lower())


class Split(NamedTuple):
    """A part of a file: the lines that begin in [start, stop); stop None is the file's end."""

    file: File
    start: int
    stop: int | None


def match(patterns: Sequence[str]) -> list[File]:
    """The files that patterns name, each once, in order of their paths.

    Args:
        patterns: paths, globs (`*`, `**`, `?`, `[…]`), folders, URLs of Beam's file systems, or `-`.

    Raises:
        InputError: if a pattern matches nothing, or a local file may not be read.
    """
    if STDIN in patterns:
        return [File(STDIN, 0, None)]
    files: dict[str, File] = {}
    for pattern in patterns:
        for file in _match(pattern):
            files[file.path] = file
    return [files[path] for path in sorted(files)]


def _match(pattern: str) -> list[File]:
    local = FileSystems.get_scheme(pattern) is None
    if local:
        _check_access(pattern)
    folder = local and Path(pattern).is_dir()
    try:
        [result] = FileSystems.match([str(Path(pattern) / "**") if folder else pattern])
    except BeamIOError as error:
        raise InputError(f"Cannot look up {pattern!r}: {error}. Check the path and your access to it.") from error
    found = [
        File(m.path, m.size_in_bytes, _moment(m.last_updated_in_seconds))
        for m in result.metadata_list
        if not (local and (Path(m.path).is_dir() or Path(m.path).name.startswith(".")))
    ]
    if not found:
        if local and not any(c in pattern for c in "*?[") and not folder:
            parent = Path(pattern).parent
            near = [str(path) for path in parent.iterdir()] if parent.is_dir() else []
            from fabric_beam.errors import nearest

            raise InputError(
                f"There is no file {pattern!r}. "
                + (nearest(pattern, near[:30]) if near else f"There is no folder {str(parent)!r}.")
            )
        raise InputError(f"No file matches {pattern!r}. Quote the pattern in the shell, and check the path.")
    for file in found:
        if local and not os.access(file.path, os.R_OK):
            raise _no_permission(file.path)
    return found


def _check_access(pattern: str) -> None:
    """See that this user may enter the folders that a pattern goes through, and read those whose files it is for.

    Beam passes over the others in silence.
    """
    fixed = Path(*takewhile(lambda part: not any(c in part for c in "*?["), Path(pattern).parts))
    for folder in reversed(fixed.parents):
        if folder.is_dir() and not os.access(folder, os.X_OK):
            raise _no_permission(str(folder))
    if not fixed.is_dir():
        return
    every = fixed == Path(pattern) or "**" in pattern
    below = (Path(root, name) for root, names, _ in os.walk(fixed) for name in names)
    for folder in chain([fixed], below if every else ()):
        if not os.access(folder, os.R_OK | os.X_OK):
            raise _no_permission(str(folder))


def _no_permission(path: str) -> InputError:
    return InputError(f"No permission to read {path!r}. Give this user read access to it.")


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def split(files: Sequence[File]) -> list[Split]:
    """Cut files into parts that can be read side by side; compressed ones stay whole.

    Args:
        files: what `match` returned.
    """
    cores = len(os.sched_getaffinity(0))
    size = max(_MIN_SPLIT, min(_MAX_SPLIT, sum(file.size for file in files) // (cores * _SPLITS_PER_CORE) + 1))
    splits = []
    for file in files:
        if file.path == STDIN or file.compression or file.size <= size:
            splits.append(Split(file, 0, None))
        else:
            starts = range(0, file.size, size)
            splits.extend(Split(file, at, at + size if at + size < file.size else None) for at in starts)
    return splits


class _Counted(io.RawIOBase):
    """A file whose bytes count as progress when they are read, before decompression."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        PROGRESS.add(bytes=len(data))
        return len(data)


@contextmanager
def open_file(file: File) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes, decompressed.

    Raises:
        InputError: if it cannot be read, or its compressed data is damaged or cut short.
    """
    try:
        if file.path == STDIN:
            yield sys.stdin.buffer
            return
        with FileSystems.open(file.path, compression_type=CompressionTypes.UNCOMPRESSED) as raw:
            if file.compression:
                counted = pa.PythonFile(_Counted(raw), mode="r")
                yield io.BufferedReader(pa.CompressedInputStream(counted, file.compression), 1 << 20)
            else:
                yield raw
    except (OSError, BeamIOError) as error:
        if file.compression and not isinstance(error, (FileNotFoundError, PermissionError)):
            raise InputError(
                f"{file.path}: the {file.compression} data is damaged or cut short ({error}). Fetch the file again, "
                "or leave it out."
            ) from error
        raise InputError(f"Cannot read {file.path}: {error}.") from error
