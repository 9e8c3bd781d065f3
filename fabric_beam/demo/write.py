"""Writing the simulated day: access logs, application logs and the truth about them, all or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fabric_beam.demo.day import MINUTES, SERVICES, simulate_day
from fabric_beam.demo.traffic import COMBINED, Traffic
from fabric_beam.demo.truth import TRUTH

#: One request in this many is logged by the application too.
_LOGGED_EVERY = 10
#: One access line in this many is malformed; from `_EACH_KIND_FROM` lines on there is at least one of each kind.
_MALFORMED_EVERY = 20_000
_EACH_KIND_FROM = 1_000
_MALFORMED = ("truncated", "missing_quote", "garbage", "empty", "not_utf8")
#: About so many lines are in memory at a time.
_CHUNK = 250_000


def write(out: Path, lines: int, seed: int) -> dict[str, Any]:
    """Write the logs of one simulated day.

    The same `lines` and `seed` write the same bytes. Files appear under their names only when all are whole, and the
    truth file last: where it stands, all that it tells of does too.

    Args:
        out: the directory, made if it is missing; `access/<host>.log`, `app/<host>.jsonl` and `truth.json` go into it.
        lines: access lines in all files together, at least 1.
        seed: what to draw the day from, at least 0.

    Returns:
        The truth, which is also what `truth.json` holds: `seed`, `lines` (access), `malformed` (of them),
        `malformed_kinds`, `application_lines`, `incidents`, and `files` with the lines and bytes of each.

    Raises:
        OSError: a file could not be written; the directory then holds what it held before.
    """
    rng = np.random.default_rng(seed)
    day = simulate_day(rng)
    traffic = Traffic(day, rng)
    counts = rng.multinomial(lines, day.rate.ravel()).reshape(day.rate.shape)
    malformed = max(lines // _MALFORMED_EVERY, len(_MALFORMED) if lines >= _EACH_KIND_FROM else 0)
    bad = np.sort(rng.choice(lines, malformed, replace=False))
    kinds = [_MALFORMED[i % len(_MALFORMED)] for i in range(malformed)]
    folders = {"access": "log", "app": "jsonl"}
    hosts = {service: [f"{service}-{i + 1}" for i in range(number)] for service, (number, _, _) in SERVICES.items()}
    written = {f"{folder}/{host}.{end}": 0 for folder, end in folders.items() for row in hosts.values() for host in row}

    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".partial-", dir=out) as name:
        partial = Path(name)
        for folder in folders:
            (partial / folder).mkdir()
        with ExitStack() as stack:
            # Unbuffered, because Polars writes to the same files beneath Python's buffer.
            files = {name: stack.enter_context((partial / name).open("wb", buffering=0)) for name in written}
            done = 0
            for first, last in _chunks(counts.sum(axis=0)):
                for index, service in enumerate(SERVICES):
                    requests = traffic.requests(index, first, counts[index, first:last])
                    here = slice(*np.searchsorted(bad, [done, done + len(requests)]))
                    spoilt = dict(zip((bad[here] - done).tolist(), kinds[here], strict=True))
                    logged = requests.gather_every(_LOGGED_EVERY, (-1 - done) % _LOGGED_EVERY)
                    records = traffic.records(service, logged)
                    done += len(requests)
                    for number, host in enumerate(hosts[service]):
                        access, app = f"access/{host}.log", f"app/{host}.jsonl"
                        written[access] += _write_access(files[access], requests, number, spoilt, rng)
                        mine = records.filter(pl.col("host") == number).drop("host")
                        mine.write_ndjson(files[app])
                        written[app] += len(mine)
        truth = {
            "seed": seed,
            "lines": lines,
            "malformed": malformed,
            "malformed_kinds": {kind: kinds.count(kind) for kind in _MALFORMED},
            "application_lines": lines // _LOGGED_EVERY,
            "incidents": [asdict(incident) for incident in day.incidents],
            "files": {name: {"lines": n, "bytes": (partial / name).stat().st_size} for name, n in written.items()},
        }
        (partial / TRUTH).write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
        for folder in folders:
            (out / folder).mkdir(exist_ok=True)
        (out / TRUTH).unlink(missing_ok=True)
        for file in (*written, TRUTH):
            (partial / file).replace(out / file)
    return truth


def _chunks(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Divide the day's minutes into stretches of about `_CHUNK` lines."""
    part = np.cumsum(counts) // _CHUNK
    edges = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), MINUTES]
    return pairwise(edges)


def _write_access(
    file: IO[bytes], requests: pl.DataFrame, host: int, spoilt: dict[int, str], rng: np.random.Generator
) -> int:
    """Write one host's access lines; `spoilt` gives the kinds of the malformed rows. Return the number of lines."""
    mine = requests.filter(pl.col("host") == host).select(COMBINED)
    rows = np.flatnonzero(requests["host"].to_numpy() == host)
    start = 0
    for row, kind in spoilt.items():
        at = int(np.searchsorted(rows, row))
        if at < len(rows) and rows[at] == row:
            _write_lines(file, mine[start:at])
            line = " ".join(map(str, mine.row(at))).encode()
            file.write(_spoil(line, kind, rng) + b"\n")
            start = at + 1
    _write_lines(file, mine[start:])
    return len(mine)


def _write_lines(file: IO[bytes], lines: pl.DataFrame) -> None:
    # Without quoting, a space-separated table of the seven fields is the combined log format.
    lines.write_csv(file, include_header=False, separator=" ", quote_style="never")


def _spoil(line: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """Make a good line malformed in such a way that no reading of it can find all its fields."""
    opening = line.index(b'"')
    closing = line.index(b'"', opening + 1)
    if kind == "truncated":
        return line[: int(rng.integers(10, closing))]
    if kind == "missing_quote":
        return line[:closing] + line[closing + 1 :]
    if kind == "garbage":
        return b"[core:notice] child pid %d exit signal Segmentation fault (11)" % rng.integers(300, 32_768)
    if kind == "empty":
        return b""
    return line[: opening + 1] + b"\x16\x03\x01\xff\xfe" + bytes(range(0xC0, 0xC0 + int(rng.integers(5, 25))))
