"""Which of the simulated incidents were found: `python -m fabric_beam.demo.found --truth FILE --alerts DIR`."""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

#: An incident counts as found if a window that overlaps it, or begins this long after, was anomalous.
_SLACK = timedelta(minutes=2)


def found(truth: dict[str, Any], alerts: Any) -> list[tuple[dict[str, Any], int]]:
    """Count the alerts that fall into each incident.

    Args:
        truth: what the demo wrote to `truth.json`.
        alerts: a Polars table with `window_start` and `service.name`.

    Returns:
        Each incident, and how many alerts of its service begin while it lasts.
    """
    import polars as pl

    counts = []
    for incident in truth["incidents"]:
        start, end = (datetime.fromisoformat(incident[name]) for name in ("start", "end"))
        begins = pl.col("window_start").is_between(start - _SLACK, end + _SLACK)
        counts.append((incident, alerts.filter(begins & (pl.col("service.name") == incident["service"])).height))
    return counts


def main(argv: list[str] | None = None) -> None:
    """Print each incident and whether alerts name it."""
    parser = argparse.ArgumentParser(prog="python -m fabric_beam.demo.found", description=__doc__)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--alerts", type=Path, required=True)
    options = parser.parse_args(argv)
    import polars as pl

    files = sorted(options.alerts.glob("**/*.parquet"))
    alerts = pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])
    counts = found(json.loads(options.truth.read_text(encoding="utf-8")), alerts)
    hits = sum(1 for _, alerts in counts if alerts)
    print(f"Simulated incidents: {hits} of {len(counts)} found.")
    for incident, number in counts:
        mark = f"found, {number} alerts" if number else "NOT found"
        when = f"{incident['start'][11:16]} to {incident['end'][11:16]}"
        print(f"  {when}  {incident['kind']:<14} {incident['service']:<9} {mark}")


if __name__ == "__main__":
    main()
