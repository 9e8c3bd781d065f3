"""Rows a second through `Enrich` from Redis, beside a local table: `python -m benchmarks.enrich_redis`.

The server is one of its own, on this machine; it holds a hash a key. Warm-up is the first time every key is looked up.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import polars as pl
import redis
from apache_beam.options.pipeline_options import PipelineOptions

from fabric_beam import Read
from fabric_beam.kernel import Kernel
from fabric_beam.runners.direct import DirectRunner
from fabric_beam.testing.servers.redis import RedisServer
from transforms import Enrich

_COLUMNS = {"tier": pl.String, "rack": pl.Int64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=32_768)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    hosts = pl.select(
        pl.format("host-{}.example.org", pl.int_range(options.keys)).alias("host.name"),
        pl.format("tier-{}", pl.int_range(options.keys) % 7).alias("tier"),
        (pl.int_range(options.keys) % 50).alias("rack"),
    )
    with tempfile.TemporaryDirectory() as folder, RedisServer(settings={"appendonly": "no"}) as server:
        with redis.Redis(port=server.port) as client, client.pipeline(transaction=False) as pipeline:
            for host, tier, rack in hosts.iter_rows():
                pipeline.hset(f"host:{host}", mapping={"tier": tier, "rack": rack})
            pipeline.execute()
        url = f"redis://{server.address}/0?key=host:{{host.name}}"
        ways = {
            "from Redis": lambda: Enrich(url, "host.name", columns=_COLUMNS),
            "from a local table": lambda: Enrich(hosts, "host.name"),
        }
        batches = _batches(hosts, options.rows, options.batch)
        print(
            f"{options.rows:,} rows in batches of {options.batch:,}, {options.keys:,} distinct keys, medians of "
            f"{options.runs} runs, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}\n"
        )
        print("| way | warm-up, s | rows/s after it | CPU µs a row |")
        print("|---|---|---|---|")
        for way, enrich in ways.items():
            timed = [_kernel(enrich().bind(batches[0].schema), batches, hosts) for _ in range(options.runs)]
            warm, wall, cpu = (statistics.median(column) for column in zip(*timed, strict=True))
            print(f"| the kernel, {way} | {warm:.3f} | {options.rows / wall:,.0f} | {cpu / options.rows * 1e6:.2f} |")
        path = Path(folder) / "rows.parquet"
        pl.concat(batches[: max(1, 2_000_000 // options.batch)]).write_parquet(path, row_group_size=options.batch)
        rows = min(2_000_000 // options.batch, len(batches)) * options.batch
        plain = _timed(lambda: _pipeline(path, None))
        for way, enrich in ways.items():
            wall, cpu = _timed(lambda enrich=enrich: _pipeline(path, enrich()))  # type: ignore[misc]
            print(
                f"| in a pipeline from Parquet, {rows:,} rows, {way} | (in it) | {rows / wall:,.0f} | "
                f"{cpu / rows * 1e6:.2f} |"
            )
        print(f"| the same without Enrich | | {rows / plain[0]:,.0f} | {plain[1] / rows * 1e6:.2f} |")


def _batches(hosts: pl.DataFrame, rows: int, size: int) -> list[pl.DataFrame]:
    """Batches whose keys are drawn at random; a few, over and over."""
    random = np.random.default_rng(1)
    some = [
        pl.DataFrame({"host.name": hosts["host.name"][random.integers(0, hosts.height, size)], "offset": range(size)})
        for _ in range(16)
    ]
    return [some[n % len(some)].rechunk() for n in range(-(-rows // size))]


def _kernel(kernel: Kernel, batches: list[pl.DataFrame], hosts: pl.DataFrame) -> tuple[float, float, float]:
    """Seconds of warm-up; wall and CPU seconds after it."""
    warm, _ = _timed(lambda: kernel(hosts.select("host.name", pl.lit(0).alias("offset"))))

    def run() -> None:
        for batch in batches:
            result = kernel(batch)
            assert isinstance(result, pl.DataFrame)

    wall, cpu = _timed(run)
    return warm, wall, cpu


def _pipeline(path: Path, enrich: beam.PTransform | None) -> None:
    options = PipelineOptions([], pickle_library="cloudpickle")
    with beam.Pipeline(runner=DirectRunner(), options=options) as p:
        rows = p | Read(f"parquet:{path}")
        if enrich is not None:
            rows |= "Enrich" >> enrich
        _ = rows | beam.Map(lambda batch: batch.num_rows).with_output_types(int)


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    """Wall, and CPU of this process: seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
