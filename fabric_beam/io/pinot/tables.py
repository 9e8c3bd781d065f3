"""Tables of Pinot made from the schema of rows: columns, and the indexes that make a kind of query fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import OutputError, SchemaError, nearest
from fabric_beam.io.pinot.columns import Column, column_of, time_column
from fabric_beam.option_kinds import boolean, one_of, seconds_to_live

#: The identity of a row that upserts go by, and when it was written, in milliseconds: the last one stays.
ID, WRITTEN = "_id", "_written"
LAYOUTS = ("analytics", "dashboards", "reports")
_UPSERT = (Column(ID, "dimension", "STRING"), Column(WRITTEN, "dateTime", "LONG", format="1:MILLISECONDS:EPOCH"))
#: Columns of few values, that queries filter and group by; the names are OpenTelemetry's and this library's own.
_FEW = (
    *("service.name", "service.namespace", "deployment.environment.name", "host.name", "severity_text"),
    *("severity_number", "http.request.method", "http.response.status_code", "network.protocol.version"),
    *("name", "unit", "step", "rule", "detector", "is_anomaly"),
)
#: Columns of very many values, that queries look one up of.
_MANY = (ID, "source", "trace_id", "span_id", "client.address", "user.name", "user.id", "session.id")
_NUMBERS = ("INT", "LONG", "FLOAT", "DOUBLE")
_BODY = "body"
_DAY = "DAYS"


@dataclass(frozen=True)
class Table:
    """A table, as the URL and the rows' schema want it.

    Args:
        name: without its type.
        type: `REALTIME` or `OFFLINE`.
        layout: one of `LAYOUTS`.
        dimensions: the columns that queries filter and group by; None: those of a known name.
        ttl: seconds after which rows are removed; 0: never.
        alter: whether columns may be added to a table that is there.
        stream: Pinot's settings for its reading of Kafka.
    """

    name: str
    type: str
    layout: str
    dimensions: tuple[str, ...] | None
    ttl: int
    alter: bool
    stream: dict[str, str]

    #: Options of the URL.
    OPTIONS = ("layout", "dimensions", "ttl", "alter")

    @classmethod
    def of(cls, endpoint: Endpoint, name: str, type: str, stream: dict[str, str]) -> Table:
        """Take a table's options out of an endpoint."""
        layout = endpoint.option("layout", one_of(*LAYOUTS), name if name in LAYOUTS else LAYOUTS[0])
        dimensions = endpoint.option("dimensions", str, "")
        return cls(
            name,
            type,
            layout,
            tuple(dimensions.split(",")) if dimensions else None,
            endpoint.option("ttl", seconds_to_live, 0),
            endpoint.option("alter", boolean, False),
            stream,
        )

    def columns(self, schema: pl.Schema) -> list[Column]:
        """The columns for rows of a schema.

        Raises:
            OutputError: a column has no place there.
            SchemaError: a column that an option names is missing.
        """
        columns = []
        for name, dtype in schema.items():
            column = column_of(name, dtype)
            if column is None:
                raise OutputError(
                    f"Pinot's table {self.name} cannot hold column {name!r}: {dtype} is not a type of Pinot. Cast or "
                    "drop it."
                )
            if name in (ID, WRITTEN) or name.startswith("$"):
                raise OutputError(
                    f"Pinot's table {self.name} cannot hold column {name!r}: the name is Pinot's or ours."
                )
            if name.lower().startswith(f"{self.name.lower()}."):
                raise OutputError(
                    f"Pinot's table {self.name} cannot hold column {name!r}: in queries it would be the table's column "
                    f"{name.partition('.')[2]!r}. Name the table otherwise."
                )
            columns.append(column)
        for name in self.dimensions or ():
            if name not in schema:
                raise SchemaError(
                    f"pinot: dimensions={','.join(self.dimensions or ())}: there is no column {name!r}. "
                    f"{nearest(name, schema)}"
                )
        return [*columns, *(_UPSERT if self.type == "REALTIME" else ())]

    def schema(self, schema: pl.Schema) -> dict[str, Any]:
        """The table's schema as the controller takes it."""
        made: dict[str, Any] = {"schemaName": self.name}
        for column in self.columns(schema):
            made.setdefault(f"{column.role}FieldSpecs", []).append(column.spec())
        if self.type == "REALTIME":
            made["primaryKeyColumns"] = [ID]
        return made

    def config(self, schema: pl.Schema) -> dict[str, Any]:
        """The table's configuration as the controller takes it."""
        # Rows without a time of their own, such as dead letters, have that of their writing.
        time = time_column(schema) or (WRITTEN if self.type == "REALTIME" else None)
        segments = {"schemaName": self.name, "replication": "1", "segmentPushType": "APPEND"}
        if time is not None:
            segments["timeColumnName"] = time
        if self.ttl:
            segments |= {"retentionTimeUnit": "SECONDS", "retentionTimeValue": str(self.ttl)}
        made: dict[str, Any] = {
            "tableName": self.name,
            "tableType": self.type,
            "segmentsConfig": segments,
            "tableIndexConfig": {"loadMode": "MMAP", "nullHandlingEnabled": True, **self._indexes(schema)},
            "fieldConfigList": [],
            "tenants": {},
            "metadata": {},
        }
        if self.layout == "analytics" and isinstance(schema.get(_BODY), pl.String):
            made["fieldConfigList"] = [{"name": _BODY, "encodingType": "RAW", "indexType": "TEXT"}]
        if self.type == "REALTIME":
            segments["replicasPerPartition"] = "1"
            made["tableIndexConfig"]["streamConfigs"] = self.stream
            made["upsertConfig"] = {"mode": "FULL", "comparisonColumn": WRITTEN}
            made["routing"] = {"instanceSelectorType": "strictReplicaGroup"}
        return made

    def _indexes(self, schema: pl.Schema) -> dict[str, Any]:
        columns = {column.name: column for column in self.columns(schema)}
        single = {name: column for name, column in columns.items() if not column.is_list}
        groups = [name for name in self.dimensions or _FEW if name in single and columns[name].type != "JSON"]
        time = time_column(schema)
        numbers = [
            name for name, column in single.items() if column.type in _NUMBERS and name not in (*groups, WRITTEN)
        ]
        made: dict[str, Any] = {
            "invertedIndexColumns": groups,
            "rangeIndexColumns": numbers if self.layout == "analytics" else [time] if time else [],
            "noDictionaryColumns": [name for name in (_BODY, WRITTEN) if name in columns],
        }
        if self.layout != "dashboards":
            made["bloomFilterColumns"] = [name for name in _MANY if name in single]
            made["jsonIndexColumns"] = [name for name, column in columns.items() if column.type == "JSON"]
        if self.layout == "reports" and groups:
            made["sortedColumn"], made["invertedIndexColumns"] = groups[:1], groups[1:]
        # Rows that replace others could not be taken out of what a star-tree has summed up.
        if self.layout == "dashboards" and self.type == "OFFLINE" and groups:
            window = [time] if time == "window_start" else []
            measures = [name for name in numbers if columns[name].role != "dateTime" and name != "offset"]
            pairs = ["COUNT__*", *(f"{kind}__{name}" for name in measures for kind in ("SUM", "MIN", "MAX"))]
            made["starTreeIndexConfigs"] = [
                {"dimensionsSplitOrder": [*window, *groups], "functionColumnPairs": pairs, "maxLeafRecords": 10_000}
            ]
        return made
