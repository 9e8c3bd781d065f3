"""`pinot:` written: through Kafka into a table that is fed from there, or segment by segment."""

from __future__ import annotations

from fabric_beam.endpoints import Endpoint
from fabric_beam.io.pinot.realtime import WriteRealtime
from fabric_beam.io.pinot.segments import WriteSegments
from fabric_beam.io.store_sink import StoreSink


def write_pinot(endpoint: Endpoint, job: str) -> StoreSink:
    """Write batches to a table of Pinot: through Kafka where the URL names it (`kafka=`), else segment by segment.

    Args:
        endpoint: `pinot://[user:password@]controller[:port]/table`: see `WriteRealtime` and `WriteSegments`.
        job: names the segments of rows that have no provenance.
    """
    return (WriteRealtime if "kafka" in endpoint.options else WriteSegments)(endpoint, job)
