"""The job on Fabric Beam, on DirectRunner unless `--runner` and its options follow."""

from __future__ import annotations

import sys

from fabric_beam.runners import runner, start


def main(source: str, out: str, name: str = "--runner=DirectRunner", *arguments: str) -> None:
    name = name.removeprefix("--runner=")
    start(name, arguments)
    # As in `python -m pipelines`: an engine starts, and its threads are limited, before what takes seconds is imported.
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.transforms.error_handling import ErrorHandler

    from fabric_beam import MapBatches, Read, WriteTo
    from fabric_beam.ledger import Ledger
    from transforms import Aggregate, Parse

    options = PipelineOptions(list(arguments), pickle_library="cloudpickle")
    p = beam.Pipeline(runner(name, arguments), options=options)
    with ErrorHandler(WriteTo(f"jsonl:{out}/dead_letters")) as dead_letters:
        events = p | Read(source) | Parse("combined").with_error_handler(dead_letters)
        counts = events | Aggregate(
            "1m", ["http.response.status_code", "http.request.method"], ["count", "sum(http.response.body.size)"]
        ).with_error_handler(dead_letters)
    events |= MapBatches(lambda table: table.drop("log.record.original", "observed_timestamp"))
    events | WriteTo(f"parquet:{out}/events")
    counts | WriteTo(f"parquet:{out}/counts")
    result = p.run()
    print(Ledger.from_counters(result.metrics().query()["counters"]).count("read"))


if __name__ == "__main__":
    main(*sys.argv[1:])
