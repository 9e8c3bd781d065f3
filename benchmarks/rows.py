"""Rows for the benchmarks of stores."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl


def events(rows: int) -> pl.DataFrame:
    """Like access-log events; one in seven without a size."""
    n = pl.int_range(rows)
    times = datetime(2026, 1, 1, tzinfo=UTC) + pl.duration(milliseconds=n * 37)
    return pl.select(
        times.cast(pl.Datetime("us", "UTC")).alias("timestamp"),
        pl.format("10.0.{}.{}", n % 256, n % 200).alias("client.address"),
        pl.lit("GET").alias("http.request.method"),
        pl.format("/item/{}", n % 5000).alias("url.path"),
        (200 + n % 5).alias("http.response.status_code"),
        pl.when(n % 7 > 0).then(n * 37 % 10_000).alias("http.response.body.size"),
        pl.lit("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_9_1) AppleWebKit/537.36 Chrome/32.0").alias(
            "user_agent.original"
        ),
        pl.lit("/var/log/nginx/access.log").alias("source"),
        (n * 200).alias("offset"),
    )
