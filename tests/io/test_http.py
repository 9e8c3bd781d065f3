"""`http:` looked up in: a real server of the standard library."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import polars as pl
import pytest

from fabric_beam.errors import InputError, SchemaError, UsageError
from fabric_beam.lookups.options import Cache
from fabric_beam.testing import collect_with_dead_letters
from fabric_beam.testing.servers.process import free_port
from transforms import Enrich

EVENTS = pl.DataFrame({"host.name": ["a", "x", "ü /?&", None, "a"]})
HOSTS: dict[str, Any] = {
    "a": {"rack": 1, "owner": {"team": "web"}},
    "ü /?&": {"rack": 2.0, "owner": None, "more": [1]},
    "listed": [{"rack": 3}],
    "wrong": {"rack": "three"},
    "text": "a text",
}
COLUMNS = {"rack": pl.Int64, "owner.team": pl.String}


class Service(BaseHTTPRequestHandler):
    """Answers by path: `/hosts/NAME`, `/find?name=NAME`, POST `/bulk`."""

    protocol_version = "HTTP/1.1"
    server: Server  # type: ignore[assignment]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        self.server.asked.append((self.path, dict(self.headers)))
        name = query["name"][0] if "name" in query else unquote(url.path.rpartition("/")[2])
        if self.server.status:
            self.answer(self.server.status, None)
        elif name in HOSTS:
            self.answer(200, HOSTS[name])
        else:
            self.answer(404, {"error": "no such host"})

    def do_POST(self) -> None:
        keys = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((keys, dict(self.headers)))
        if self.path.startswith("/bulk"):
            self.answer(200, {key: HOSTS[key] for key in keys if key in HOSTS})
        elif isinstance(keys[0], dict):
            self.answer(200, [{**key, "rack": key["port"] + 1} for key in keys if key["host.name"] == "a"])
        else:
            self.answer(200, [{"host": {"name": key}, **HOSTS[key]} for key in keys if key in HOSTS])

    def answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode() if status == 200 else b"no"
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None: ...


class Server(ThreadingHTTPServer):
    """The service, what it was asked, and the status that it answers with, if it is not to work."""

    daemon_threads = True
    asked: list[Any]
    status = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def service() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Service) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def enrich(url: str, events: pl.DataFrame = EVENTS, on: Any = "host.name", **options: Any) -> Any:
    """The rows and the dead letters of events enriched by a service."""
    return collect_with_dead_letters(events, Enrich(url, on, columns=options.pop("columns", COLUMNS), **options))


FOUND = [("a", 1, "web"), ("x", None, None), ("ü /?&", 2, None), (None, None, None), ("a", 1, "web")]


@pytest.mark.parametrize("form", ["/hosts/{host.name}", "/find?name={host.name}&view=short", "/find?name={host.name}"])
def test_a_get_for_each_key(form: str, service: Server) -> None:
    """Keys are filled in where they are named, quoted as the place wants; each is asked for once."""
    kept, letters = enrich(service.url + form)
    assert kept.rows() == FOUND
    assert not letters.height
    assert len(service.asked) == 3
    if "view" in form:
        assert all("view=short" in path for path, _ in service.asked)


@pytest.mark.parametrize("path", ["/bulk", "/array?limit=9"])
def test_one_post_for_all_keys(path: str, service: Server) -> None:
    """The answer is an object by key, or an array of objects with their keys."""
    sign = "&" if "?" in path else "?"
    kept, letters = enrich(f"{service.url}{path}{sign}fabric.bulk=true")
    assert kept.rows() == FOUND
    assert not letters.height
    assert [keys for keys, _ in service.asked] == [["a", "x", "ü /?&"]]


def test_several_key_columns_in_bulk(service: Server) -> None:
    """Keys are objects then."""
    events = pl.DataFrame({"host.name": ["a", "a", "b"], "port": [1, 2, 1]})
    kept, _ = enrich(f"{service.url}/array?fabric.bulk=true", events, ["host.name", "port"], columns={"rack": pl.Int64})
    assert kept["rack"].to_list() == [2, 3, None]


def test_values_that_are_no_rows(service: Server) -> None:
    """An array with one object is that; what is not of its type, or no object, is a dead letter."""
    events = pl.DataFrame({"host.name": ["listed", "wrong", "text", "a"]})
    kept, letters = enrich(f"{service.url}/hosts/{{host.name}}", events, miss="reject")
    assert kept["host.name"].to_list() == ["listed", "a"]
    assert kept["rack"].to_list() == [3, 1]
    assert letters["rule"].to_list() == ["lookup", "lookup"]
    assert letters["message"].to_list() == [
        f"{service.url}/hosts/{{host.name}}: rack is not Int64: 'three'",
        f"{service.url}/hosts/{{host.name}}: is no JSON object: 'a text'",
    ]


def test_headers_come_from_the_environment(service: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are sent, and shown nowhere."""
    monkeypatch.setenv("TOKEN", "hunter2")
    url = f"{service.url}/hosts/{{host.name}}?key=${{TOKEN}}&fabric.header.Authorization=Bearer ${{TOKEN}}"
    kept, _ = enrich(url)
    assert kept.rows() == FOUND
    assert all(
        headers["Authorization"] == "Bearer hunter2" and "key=hunter2" in path for path, headers in service.asked
    )
    service.status = 503
    _, letters = enrich(url, cache=Cache(timeout=0.3))
    assert letters.height
    assert not any("hunter2" in text for text in letters["message"])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_service_that_is_overloaded_is_asked_again(status: int, service: Server) -> None:
    """Until the time limit; then its rows are dead letters, and those without a key are not."""
    service.status = status
    kept, letters = enrich(f"{service.url}/hosts/{{host.name}}", cache=Cache(timeout=0.5))
    assert kept.rows() == [(None, None, None)]
    assert set(letters["rule"]) == {"lookup"}
    assert f"did not answer: {status}" in letters["message"][0]
    assert len(service.asked) > 3


def test_a_service_that_is_not_there() -> None:
    """Its rows are dead letters, or misses."""
    url = f"http://127.0.0.1:{free_port()}/hosts/{{host.name}}?api_key=hunter2"
    kept, letters = enrich(url, cache=Cache(timeout=0.3))
    assert (kept.height, letters.height) == (1, 4)
    assert "Connection refused" in letters["message"][0]
    assert "hunter2" not in letters["message"][0]
    kept, letters = enrich(url, cache=Cache(timeout=0.3, unavailable="miss"))
    assert (kept.height, letters.height) == (5, 0)


def test_a_service_that_lets_nobody_in_ends_the_run(service: Server) -> None:
    """401 is of all keys."""
    service.status = 401
    with pytest.raises(InputError, match="401 Unauthorized"):
        Enrich(f"{service.url}/hosts/{{host.name}}", "host.name", columns=COLUMNS).bind(EVENTS.schema)(EVENTS)


def test_an_answer_for_one_key_alone(service: Server) -> None:
    """400 is of its key."""
    service.status = 400
    _, letters = enrich(f"{service.url}/hosts/{{host.name}}")
    assert letters["message"][0].endswith("400 Bad Request")


@pytest.mark.parametrize(
    ("url", "options", "error", "said"),
    [
        ("http://h/{host.name}", {}, UsageError, "cannot tell the types"),
        ("http://h/{host.nam}", {"columns": COLUMNS}, SchemaError, "Did you mean 'host.name'"),
        ("http://h/all", {"columns": COLUMNS}, SchemaError, "fabric.bulk=true"),
        ("http://h/{host.name}?fabric.bulk=true", {"columns": COLUMNS}, UsageError, "in the body"),
        ("http://h/{host.name}?fabric.bulk=yes", {"columns": COLUMNS}, UsageError, "true or false"),
        ("http://h/{host.name}?fabric.blk=true", {"columns": COLUMNS}, UsageError, "fabric.bulk"),
        ("http://h/{host.name}?fabric.concurrency=0", {"columns": COLUMNS}, UsageError, "1 to 256"),
        ("http://h/{host.name}?a=${NOT_SET}", {"columns": COLUMNS}, UsageError, "NOT_SET"),
        ("http://h/{host.name}?fabric.columns=rack:integer", {}, UsageError, "names with types"),
    ],
)
def test_what_is_wrong_with_a_url(url: str, options: dict[str, Any], error: type[Exception], said: str) -> None:
    """It is said while the pipeline is built."""
    with pytest.raises(error, match=said):
        Enrich(url, "host.name", **options).bind(EVENTS.schema)
