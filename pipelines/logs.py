"""Logs: from raw lines to events, metrics and alerts in the stores that people query.

python -m pipelines.logs --input 'logs/*.log.gz' --format combined
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

from fabric_beam.run import main
from pipelines.parts.options import parse_logs


def build(p: Any, options: Namespace) -> Callable[..., list[str]]:
    """Assemble the pipeline.

    Args:
        p: a Beam pipeline.
        options: what `pipelines.parts.options.parse_logs` returns.

    Returns:
        What writes the report once the run is over (`fabric_beam.run.main`).
    """
    # Imported here because `--help` must not wait for Beam.
    from apache_beam.transforms.error_handling import ErrorHandler

    from fabric_beam import MapBatches, Read
    from fabric_beam.endpoints import masked
    from pipelines.parts.report import Report
    from pipelines.parts.write import WriteDataset, WriteDeadLetters
    from transforms import Aggregate, AnomalyScore, Enrich, Filter, Normalize, Parse, Validate
    from transforms.detectors import DETECTORS

    report = Report(options)
    source = Read(*options.input, limit=options.limit)
    with ErrorHandler(WriteDeadLetters(options, report)) as dead_letters:
        events = p | source.with_error_handler(dead_letters)
        if options.format != "none":
            events |= Parse(options.format, **_format_options(options, source)).with_error_handler(dead_letters)
        if options.contract:
            events |= Validate(options.contract).with_error_handler(dead_letters)
        events |= Normalize(options.mapping, zone=options.zone, service=options.service).with_error_handler(
            dead_letters
        )
        for table, columns in options.tables:
            events |= f"Enrich({masked(table)})" >> Enrich(table, columns).with_error_handler(dead_letters)
        if options.where:
            events |= Filter(options.where).with_error_handler(dead_letters)

        columns = events.element_type.schema.names
        metrics = events | Aggregate(
            options.window, options.by, options.measure or _measures(columns)
        ).with_error_handler(dead_letters)
        report.describe(events, dead_letters)

        if not options.keep_original:
            events |= "WithoutOriginal" >> MapBatches(lambda table: table.drop("log.record.original", strict=False))
        events | WriteDataset("events", options, dead_letters)
        metrics | WriteDataset("metrics", options, dead_letters)
        if options.detector != "none":
            scores = metrics | AnomalyScore(DETECTORS[options.detector](), options.by)
            alerts = scores | "Anomalies" >> Filter("is_anomaly")
            alerts | WriteDataset("alerts", options, dead_letters)
            report.find(alerts)
    return report.write


def _measures(columns: Sequence[str]) -> list[str]:
    """What is measured of events unless `--measure` says otherwise: traffic, errors, sizes and durations."""
    measures = ["count", "count_if(severity_number >= 17) AS errors", "count_if(severity_number = 13) AS warnings"]
    for column in ("http.response.body.size", "http.server.request.duration"):
        if column in columns:
            measures += [f"p50({column})", f"p99({column})"]
    return measures


def _format_options(options: Namespace, source: Any) -> dict[str, Any]:
    if options.format == "regex":
        return {"pattern": options.pattern}
    if options.format == "syslog":
        return {"year": options.year, "zone": options.zone}
    if options.format == "json":
        from transforms.formats.json import infer_schema

        return {"schema": infer_schema(source.source.sample())}
    return {}


if __name__ == "__main__":
    sys.exit(main(parse_logs, build))
