"""What a JSON line costs to parse, by what is in it, beside other decoders: `python -m benchmarks.json_lines`."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial

import polars as pl

from transforms.formats.json import Json, infer_schema

_WITH: dict[str, dict[str, object]] = {
    "the schema's fields": {},
    "fields outside of the schema": {"k8s": {"pod": "api-7", "labels": {"app": "api", "tier": "2"}}, "retry": 1},
    "objects in a column": {"spans": [{"name": "query", "took": 3}, {"name": "render", "took": 5}]},
    "a key with an escape": {"a\\": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    schema = {**infer_schema(_lines(100, {})), "spans": pl.String()}
    kernel = Json(schema)
    ways: dict[str, Callable[[], object]] = {}
    for name, more in _WITH.items():
        ways[f"Parse, lines with {name}"] = partial(kernel, pl.DataFrame({"body": _lines(options.lines, more)}))
    lines = _lines(options.lines, {})
    whole = "\n".join(lines).encode()
    ways["Polars' read_ndjson, lines with the schema's fields"] = lambda: pl.read_ndjson(whole)
    ways["Python's json, the same lines"] = lambda: [json.loads(line) for line in lines]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for run in range(options.runs + 1):
        for way, work in ways.items():
            started = time.process_time()
            work()
            # The first run compiles.
            if run:
                seconds[way].append(time.process_time() - started)
    print("| way | CPU a line |\n|---|---|")
    for way, each in seconds.items():
        print(f"| {way} | {statistics.median(each) / options.lines * 1e6:.1f} µs |")


def _lines(count: int, more: dict[str, object]) -> list[str]:
    """Log lines of about 250 bytes, the same each time."""
    chance = random.Random(1)
    return [
        json.dumps(
            {
                "timestamp": f"2026-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}Z",
                "level": chance.choice(["info", "warn", "error"]),
                "message": f"request {number} done in {chance.randrange(1000)} ms",
                "http": {"method": "GET", "path": f"/articles/{chance.randrange(100)}", "status": 200},
                "user": {"id": number, "name": f"user-{chance.randrange(5000)}"},
                "took": chance.randrange(10_000) / 8,
                "trace": f"{chance.randrange(2**128):032x}",
                **more,
            }
        )
        for number in range(count)
    ]


if __name__ == "__main__":
    main()
