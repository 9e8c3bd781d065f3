"""The job as a Polars script: a regular expression, lazily, on all cores."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

LINE = r'^(\S+) (\S+) (\S+) \[([^\]]+)\] "(\S+) (\S+) HTTP/([\d.]+)" (\d{3}) (\d+|-) "([^"]*)" "([^"]*)"$'
NAMES = ["address", "ident", "user", "time", "method", "url", "version", "status", "size", "referer", "agent"]


def main(source: str, out: str) -> None:
    Path(out).mkdir(parents=True, exist_ok=True)
    lines = pl.scan_csv(
        source,
        has_header=False,
        separator="\x01",
        quote_char=None,
        schema={"line": pl.String},
        encoding="utf8-lossy",
        truncate_ragged_lines=True,
    )
    events = (
        lines.select(pl.col("line").str.extract_groups(LINE).struct.rename_fields(NAMES))
        .unnest("line")
        .drop("ident")
        .with_columns(
            pl.col("time").str.to_datetime("%d/%b/%Y:%H:%M:%S %z", time_unit="us", strict=False).alias("timestamp"),
            pl.col("status").cast(pl.Int32),
            pl.col("size").cast(pl.Int64, strict=False),
        )
        .drop("time")
        .drop_nulls("timestamp")
        .collect(engine="streaming")
    )
    events.write_parquet(f"{out}/events.parquet", compression="zstd", compression_level=1)
    counts = events.group_by(pl.col("timestamp").dt.truncate("1m"), "status", "method").agg(
        pl.len(), pl.col("size").sum()
    )
    counts.write_parquet(f"{out}/counts.parquet")
    print(events.height)


if __name__ == "__main__":
    main(*sys.argv[1:])
