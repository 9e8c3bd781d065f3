"""Lines of text files, however they are stored, split and ended."""

from __future__ import annotations

import bz2
import gzip
import io
from pathlib import Path

import polars as pl
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fabric_beam import Read
from fabric_beam.errors import InputError
from fabric_beam.io import files
from fabric_beam.io.lines import blocks, table_of_lines
from fabric_beam.testing import check_source, read_all

LINE = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))


def reference(text: bytes) -> list[tuple[int, str]]:
    """Offsets and lines by Python's own means."""
    rows, offset = [], 0
    for line in text.splitlines(keepends=True) if b"\r" not in text else _split(text):
        body = line.removesuffix(b"\n")
        rows.append(
            (
                offset,
                (body.removesuffix(b"\r") if line.endswith(b"\n") or body.endswith(b"\r") else body).decode(
                    errors="replace"
                ),
            )
        )
        offset += len(line)
    return rows


def _split(text: bytes) -> list[bytes]:
    *whole, last = text.split(b"\n")
    return [line + b"\n" for line in whole] + ([last] if last else [])


def lines_of(text: bytes, splits: list[files.Split]) -> list[tuple[int, str]]:
    rows = []
    for split in splits:
        for offset, words, size in blocks(io.BytesIO(text), split):
            rows += table_of_lines(words, size, offset, "a.log", None).select("offset", "body").rows()
    return rows


@given(st.lists(LINE, max_size=20), st.booleans(), st.integers(1, 60))
def test_splits_give_the_rows_of_one_reading(lines: list[bytes], ends: bool, size: int) -> None:
    """Wherever a file is split, its parts give the lines of the whole, each once, with their offsets."""
    # The first line keeps what follows from being taken for a binary file.
    text = b"\n".join([b"a plain first line, long enough", *lines]) + (b"\n" if ends else b"")
    file = files.File("a.log", len(text), None)
    starts = range(0, len(text), size)
    splits = [files.Split(file, at, at + size if at + size < len(text) else None) for at in starts]
    expected = reference(text)
    try:
        assert expected == lines_of(text, [files.Split(file, 0, None)])
    except InputError:
        return
    assert expected == lines_of(text, splits)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", []),
        (b"one", ["one"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"one\n\n\ntwo\n", ["one", "", "", "two"]),
        (b"caf\xc3\xa9\nna\xefve\n", ["café", "na\ufffdve"]),
        (b"a\x00b\nc\n", ["a\x00b", "c"]),
        (b"x" * (10 << 20) + b"\nend\n", ["x" * (10 << 20), "end"]),
    ],
    ids=["empty", "no last newline", "CRLF", "blank lines", "not UTF-8", "NUL", "10 MB line"],
)
def test_every_kind_of_line_is_read(tmp_path: Path, text: bytes, expected: list[str]) -> None:
    """No line is lost or changed, but for bytes that are not UTF-8."""
    (tmp_path / "a.log").write_bytes(text)
    assert expected == read_all(Read(str(tmp_path / "a.log")))["body"].to_list()


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("zst", zstandard.compress)],
)
def test_compressed_files_are_read(tmp_path: Path, suffix: str, compress: object) -> None:
    """gzip (of several members), bzip2 and zstd are told by their suffix and read as plain text is."""
    assert callable(compress)
    one, two = b"one\ntwo\n", b"three\n" * 100_000
    members = compress(one) + compress(two) if suffix != "zst" else compress(one + two)
    (tmp_path / f"a.log.{suffix}").write_bytes(members)
    assert read_all(Read(str(tmp_path)))["body"].to_list() == ["one", "two"] + ["three"] * 100_000


def test_a_truncated_gzip_says_so(tmp_path: Path) -> None:
    """Compressed data that is cut short is an error that names the file, never a shorter input."""
    whole = gzip.compress(b"".join(b"%d line\n" % n for n in range(50_000)))
    (tmp_path / "a.log.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.log\.gz: the gzip data is damaged or cut short"):
        read_all(Read(str(tmp_path / "a.log.gz")))


def test_a_big_file_is_read_in_parts(tmp_path: Path) -> None:
    """A file larger than a split gives each of its lines once."""
    text = "".join(f"line {n} {'x' * (n % 97)}\n" for n in range(300_000))
    (tmp_path / "big.log").write_text(text)
    assert len(files.split(files.match([str(tmp_path / "big.log")]))) > 1
    check_source(str(tmp_path / "big.log"), pl.DataFrame({"body": text.splitlines()}))


def test_folders_and_globs_give_every_file_once(tmp_path: Path) -> None:
    """Patterns that overlap read no file twice; hidden files are left out."""
    (tmp_path / "sub").mkdir()
    for name in ("a.log", "b.log", "sub/c.log", ".hidden"):
        (tmp_path / name).write_text(f"{name}\n")
    rows = read_all(Read(str(tmp_path), str(tmp_path / "*.log")))
    assert sorted(rows["body"]) == ["a.log", "b.log", "sub/c.log"]


def test_provenance_leads_back_to_the_bytes(tmp_path: Path) -> None:
    """`source` and `offset` find the exact bytes of a row, also of one that was not UTF-8."""
    path = tmp_path / "a.log"
    path.write_bytes(b"first\nna\xefve\nthird\n")
    for source, offset, body in read_all(Read(str(path))).select("source", "offset", "body").rows():
        line = Path(source).read_bytes()[offset:].partition(b"\n")[0]
        assert line.decode(errors="replace") == body


def test_limit_reads_the_first_rows(tmp_path: Path) -> None:
    """A limit gives the first rows in order of the files' names."""
    (tmp_path / "a.log").write_text("1\n2\n")
    (tmp_path / "b.log").write_text("3\n4\n")
    assert read_all(Read(str(tmp_path), limit=3))["body"].to_list() == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.log", b"\x1f\x8b\x08data", "gzip data: its name should end in .gz"),
        ("a.log", b"PAR1data", "a Parquet file"),
        ("a.log", bytes(range(32)) * 100, "control characters"),
    ],
)
def test_a_binary_file_is_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    """A file that is not text is an error that says what it is."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_all(Read(str(tmp_path / name)))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("nothing*.log", "No file matches"),
        ("acces.log", "Did you mean '.*access.log'"),
        ("no/such.log", "There is no folder"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, pattern: str, message: str) -> None:
    """What matches nothing is an error with the nearest file."""
    (tmp_path / "access.log").write_text("x\n")
    with pytest.raises(InputError, match=message):
        Read(str(tmp_path / pattern))
