"""The job as a DuckDB script: its CSV reader with a space for delimiter."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb


def main(source: str, out: str) -> None:
    Path(out).mkdir(parents=True, exist_ok=True)
    duckdb.sql("SET preserve_insertion_order = false")
    duckdb.sql(
        f"""
        CREATE TABLE events AS
        SELECT
            strptime(c3 || ' ' || c4, '[%d/%b/%Y:%H:%M:%S %z]') AS timestamp, c0 AS address, c2 AS user,
            split_part(c5, ' ', 1) AS method, split_part(c5, ' ', 2) AS url, split_part(c5, ' ', 3) AS version,
            c6::INTEGER AS status, TRY_CAST(c7 AS BIGINT) AS size, c8 AS referer, c9 AS agent
        FROM read_csv('{source}', delim = ' ', quote = '"', escape = '', header = false, ignore_errors = true,
            columns = {{'c0': 'VARCHAR', 'c1': 'VARCHAR', 'c2': 'VARCHAR', 'c3': 'VARCHAR', 'c4': 'VARCHAR',
                'c5': 'VARCHAR', 'c6': 'VARCHAR', 'c7': 'VARCHAR', 'c8': 'VARCHAR', 'c9': 'VARCHAR'}})
        WHERE TRY_CAST(c6 AS INTEGER) IS NOT NULL
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
