"""Pinot's controller, over REST: tables are made or checked there, and segments handed in."""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl
import requests

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import OutputError, UsageError
from fabric_beam.io.pinot.tables import Table
from fabric_beam.option_kinds import boolean

_PORT = 9000
_REDIRECT, _ABSENT, _TIMEOUT, _CONFLICT, _TOO_MANY, _BROKEN = 300, 404, 408, 409, 429, 500
_SPECS = ("dimensionFieldSpecs", "metricFieldSpecs", "dateTimeFieldSpecs")
#: How long servers may take to finish the segments that they are filling.
_COMMIT_SECONDS = 60
#: How long it may take to delete a segment; it waits for 2 s before it begins.
_DELETE_SECONDS = 30
#: Without which a table would be another than the URL says.
_TOPIC = "stream.kafka.topic.name"


class ControllerError(Exception):
    """The controller answered that something went wrong on its side."""


class Controller:
    """A controller of Pinot and a table's name, `pinot://[user:password@]host[:port]/table`.

    Args:
        endpoint: the URL; the option `https` is taken out of it.

    Attributes:
        OPTIONS: its name.
        table: the table's name.
        timeout: seconds that a call may take.

    Raises:
        UsageError: the URL has another form.

    Source: https://docs.pinot.apache.org/configuration-reference/controller
    """

    OPTIONS = ("https",)

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._protocol = "https" if endpoint.option("https", boolean, False) else "http"
        self.table = urlsplit(f"pinot:{endpoint.path}").path.strip("/")
        self.timeout = 15.0
        try:
            parts = urlsplit(endpoint.target)
            ok = bool(parts.hostname) and parts.port != 0 and re.fullmatch(r"/\w+", parts.path, re.ASCII)
        except ValueError:
            ok = False
        if not ok:
            raise UsageError(
                f"{endpoint.url} is not pinot://controller:port/table, where the table's name has letters, digits and "
                "underscores (pinot://localhost:9000/events?kafka=localhost:9092)."
            )

    def ping(self) -> None:
        """Make sure that it answers, and knows the user.

        Raises:
            OutputError: it refuses the user.
            ControllerError, OSError: it does not answer as it should.
        """
        self._call("GET", f"/schemas/{self.table}", absent_ok=True)

    def ensure(self, table: Table, schema: pl.Schema) -> None:
        """Create a table, or make sure that the one that is there takes rows of a schema.

        Raises:
            OutputError: it does not, or the controller refuses to make it.
            ControllerError, OSError: it does not answer as it should.
        """
        wanted = table.schema(schema)
        found = self._call("GET", f"/schemas/{self.table}", absent_ok=True)
        if found is None:
            self._call("POST", "/schemas", json=wanted)
        elif missing := self._missing(found, wanted):
            if not table.alter:
                raise self._error(f"has no column {missing[0][1]['name']!r}. Add it, or let it be added: alter=true")
            for kind, spec in missing:
                found.setdefault(kind, []).append(spec)
            self._call("PUT", f"/schemas/{self.table}", json=found)
        config = table.config(schema)
        there = (self._call("GET", f"/tables/{self.table}") or {}).get(table.type)
        if there is None:
            self._call("POST", "/tables", json=config, conflict_ok=True)
            return
        self._check(there, config)
        if found is not None and missing:
            # What segments have of a new column is made when they are loaded.
            self._call("POST", f"/segments/{self.table}/reload")
            if table.type == "REALTIME":
                self._begin_segments()

    def upload(self, segment: str, rows: bytes) -> None:
        """Make a segment of rows, in place of the one of this name.

        Args:
            segment: its name.
            rows: JSON, a row a line.

        Raises:
            OutputError: it refuses it.
            ControllerError, OSError: it does not answer as it should.
        """
        names = {"segmentNameGenerator.type": "fixed", "segmentNameGenerator.configs.segment.name": segment}
        self._call(
            "POST",
            "/ingestFromFile",
            params={
                "tableNameWithType": f"{self.table}_OFFLINE",
                "batchConfigMapStr": json.dumps({"inputFormat": "json", **names}),
            },
            files={"file": ("rows.json", rows)},
        )
        ideal = (self._call("GET", f"/tables/{self.table}/idealstate") or {}).get("OFFLINE") or {}
        if segment not in ideal:
            # One that was killed on the way to it has left it so, and would only refresh it for ever.
            self._delete(segment)
            raise ControllerError(f"it knew the segment {segment}, which no server was given; it is made anew")

    def transient(self, error: Exception) -> bool:
        """Whether an error may pass."""
        if isinstance(error, requests.exceptions.SSLError):
            return False
        return isinstance(error, ControllerError | requests.ConnectionError | requests.Timeout)

    def _delete(self, segment: str) -> None:
        """Delete a segment, and wait until nothing is left: what is uploaded before that is deleted with it."""
        name = f"{self.table}_OFFLINE/{segment}"
        self._call("DELETE", f"/segments/{name}")
        until = time.monotonic() + _DELETE_SECONDS
        # First what is known of it is deleted, then its file.
        while any(
            self._call("HEAD", f"/segments/{part}", absent_ok=True) is not None for part in (f"{name}/metadata", name)
        ):
            if time.monotonic() > until:
                raise ControllerError(f"it did not delete the segment {segment} within {_DELETE_SECONDS} s")
            time.sleep(0.2)

    def _begin_segments(self) -> None:
        """Let the servers go on in new segments: those they are filling would leave the values of new columns out."""
        until = time.monotonic() + _COMMIT_SECONDS
        self._call("POST", f"/tables/{self.table}/pauseConsumption")
        try:
            while self._call("GET", f"/tables/{self.table}/pauseStatus").get("consumingSegments"):
                if time.monotonic() > until:
                    raise self._error(
                        f"has new columns, but its servers did not finish their segments within {_COMMIT_SECONDS} s: "
                        "until they do, rows are without the values of these columns"
                    )
                time.sleep(0.2)
        finally:
            self._call("POST", f"/tables/{self.table}/resumeConsumption")

    def _missing(self, found: dict[str, Any], wanted: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """The columns that a schema lacks, each with the list of the schema that it belongs to.

        Raises:
            OutputError: a column of that name has another type, or the rows' identity is another.
        """
        there = {spec["name"]: spec for kind in _SPECS for spec in found.get(kind) or []}
        missing = []
        for kind in _SPECS:
            for spec in wanted.get(kind, []):
                has = there.get(spec["name"])
                if has is None:
                    missing.append((kind, spec))
                elif _kind(has) != _kind(spec):
                    raise self._error(f"has a column {spec['name']!r} of {_kind(has)}; the rows' is {_kind(spec)}")
        has, wants = (each.get("primaryKeyColumns") or [] for each in (found, wanted))
        if has != wants:
            raise self._error(
                f"has the primary key {has}, not {wants}: it was not made for this way in. Name another table"
            )
        return missing

    def _check(self, there: dict[str, Any], config: dict[str, Any]) -> None:
        for section, name in (("segmentsConfig", "timeColumnName"), ("upsertConfig", "comparisonColumn")):
            has, wanted = ((each.get(section) or {}).get(name) for each in (there, config))
            if has != wanted:
                raise self._error(f"is there with {name}={has}, not {wanted}. Name another table")
        streams = (each["tableIndexConfig"].get("streamConfigs") or {} for each in (there, config))
        has, wanted = (stream.get(_TOPIC) for stream in streams)
        if has != wanted:
            raise self._error(f"is fed from the topic {has}, not {wanted}. Say so: kafka=HOST:PORT/{has}")

    def _call(
        self, method: str, path: str, *, absent_ok: bool = False, conflict_ok: bool = False, **arguments: Any
    ) -> Any:
        """The answer's JSON; None if what was asked for is not there."""
        parts = urlsplit(self._endpoint.target)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        url = f"{self._protocol}://{host}:{parts.port or _PORT}{path}"
        answer = requests.request(method, url, auth=auth, timeout=self.timeout, allow_redirects=False, **arguments)
        if answer.status_code < _REDIRECT:
            return answer.json() if answer.content else {}
        if (answer.status_code == _ABSENT and absent_ok) or (answer.status_code == _CONFLICT and conflict_ok):
            return None
        said = f"{answer.status_code}: {_reason(answer)}"
        if answer.status_code >= _BROKEN or answer.status_code in (_TIMEOUT, _TOO_MANY):
            raise ControllerError(said)
        raise OutputError(self._endpoint.clean(f"{self._endpoint.url}: the controller refuses {method} {path}: {said}"))

    def _error(self, text: str) -> OutputError:
        return OutputError(f"{self._endpoint.url}: the table {self.table} {text}.")


def _kind(spec: dict[str, Any]) -> str:
    return f"{spec['dataType']}{'' if spec.get('singleValueField', True) else ' (several values)'}"


def _reason(answer: requests.Response) -> str:
    try:
        return str(answer.json()["error"])[:1000]
    except (ValueError, KeyError, TypeError):
        return str(answer.text.strip()[:1000] or answer.reason)
