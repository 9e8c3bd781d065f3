"""The job as a DuckDB script: a regular expression."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

LINE = r'^(\S+) \S+ (\S+) \[([^\]]+)\] "(\S+) (\S+) HTTP/([\d.]+)" (\d{3}) (\d+|-) "([^"]*)" "([^"]*)"$'
NAMES = ["address", "user", "time", "method", "url", "version", "status", "size", "referer", "agent"]


def main(source: str, out: str) -> None:
    Path(out).mkdir(parents=True, exist_ok=True)
    duckdb.sql("SET preserve_insertion_order = false")
    duckdb.sql(
        f"""
        CREATE TABLE events AS
        SELECT
            strptime(f.time, '%d/%b/%Y:%H:%M:%S %z') AS timestamp, f.address, f.user, f.method, f.url, f.version,
            f.status::INTEGER AS status, TRY_CAST(f.size AS BIGINT) AS size, f.referer, f.agent
        FROM (
            SELECT regexp_extract(line, '{LINE}', {NAMES}) AS f
            FROM read_csv('{source}', delim = '\x01', quote = '', escape = '', header = false,
                ignore_errors = true, columns = {{'line': 'VARCHAR'}})
        )
        WHERE f.status != ''
        """
    )
    duckdb.sql(f"COPY events TO '{out}/events.parquet' (COMPRESSION zstd, COMPRESSION_LEVEL 1)")
    duckdb.sql(
        f"""
        COPY (
            SELECT date_trunc('minute', timestamp) AS minute, status, method, count(*) AS count, sum(size) AS size
            FROM events GROUP BY ALL
        ) TO '{out}/counts.parquet'
        """
    )
    print(duckdb.sql("SELECT count(*) FROM events").fetchall()[0][0])


if __name__ == "__main__":
    main(*sys.argv[1:])
