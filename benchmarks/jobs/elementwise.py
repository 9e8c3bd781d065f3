"""The job on Beam as its guides write it: an element a line, on DirectRunner."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows, TimestampedValue

LINE = re.compile(r'(\S+) (\S+) (\S+) \[([^\]]+)\] "(\S+) (\S+) HTTP/([\d.]+)" (\d{3}) (\d+|-) "([^"]*)" "([^"]*)"')
SCHEMA = pa.schema(
    [
        ("timestamp", pa.timestamp("us", "UTC")),
        ("address", pa.string()),
        ("user", pa.string()),
        ("method", pa.string()),
        ("url", pa.string()),
        ("version", pa.string()),
        ("status", pa.int32()),
        ("size", pa.int64()),
        ("referer", pa.string()),
        ("agent", pa.string()),
    ]
)


class Lossy(beam.coders.StrUtf8Coder):
    """Text that need not be UTF-8: Beam's own coder stops at the first line that is not."""

    def decode(self, value: bytes) -> str:
        return value.decode(errors="replace")


def parse(line: str) -> Iterator[dict[str, Any]]:
    match = LINE.fullmatch(line)
    if match:
        address, _, user, time, method, url, version, status, size, referer, agent = match.groups()
        yield {
            "timestamp": datetime.strptime(time, "%d/%b/%Y:%H:%M:%S %z"),
            "address": address,
            "user": user,
            "method": method,
            "url": url,
            "version": version,
            "status": int(status),
            "size": None if size == "-" else int(size),
            "referer": referer,
            "agent": agent,
        }


def main(source: str, out: str) -> None:
    with beam.Pipeline(options=PipelineOptions([], runner="DirectRunner", pickle_library="cloudpickle")) as p:
        events = p | beam.io.ReadFromText(source, coder=Lossy()) | beam.FlatMap(parse)
        events | "Events" >> beam.io.WriteToParquet(f"{out}/events/part", SCHEMA, codec="zstd")
        (
            events
            | "Keys"
            >> beam.Map(lambda e: TimestampedValue(((e["status"], e["method"]), 1), e["timestamp"].timestamp()))
            | "Minutes" >> beam.WindowInto(FixedWindows(60))
            | beam.CombinePerKey(sum)
            | "Rows"
            >> beam.Map(
                lambda kv, window=beam.DoFn.WindowParam: {
                    "minute": int(window.start),
                    "status": kv[0][0],
                    "method": kv[0][1],
                    "count": kv[1],
                }
            )
            | "All" >> beam.WindowInto(beam.window.GlobalWindows())
            | "Counts"
            >> beam.io.WriteToParquet(
                f"{out}/counts/part",
                pa.schema(
                    [("minute", pa.int64()), ("status", pa.int32()), ("method", pa.string()), ("count", pa.int64())]
                ),
            )
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
