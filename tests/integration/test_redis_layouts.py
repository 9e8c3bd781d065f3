"""What the layouts of `redis:` are on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from fabric_beam.testing.servers.redis import RedisServer
from tests.integration.store_suite import events
from tests.integration.test_redis import store

redis = pytest.importorskip("redis")


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    return redis_server


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    """A client of the server, which is empty."""
    with redis.Redis(port=redis_server.port, decode_responses=True) as client:
        client.flushall()
        yield client


def test_every_type_as_text(server: RedisServer, client: Any) -> None:
    """Times are RFC 3339, nested values JSON, bytes base64; nulls are left out."""
    berlin = datetime(2026, 1, 1, 13, tzinfo=timezone(timedelta(hours=1)))
    table = pl.DataFrame(
        {
            "utc": [datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=UTC)],
            "naive": [datetime(2026, 1, 1, 12)],
            "elsewhere": pl.Series([berlin])
            .dt.convert_time_zone("Europe/Berlin")
            .cast(pl.Datetime("ms", "Europe/Berlin")),
            "nanoseconds": pl.Series([1], dtype=pl.Datetime("ns", "UTC")),
            "date": [date(2026, 1, 1)],
            "time": [time(1, 2, 3, 4)],
            "duration": [timedelta(seconds=1.5)],
            "int": pl.Series([-(2**63)], dtype=pl.Int64),
            "uint": pl.Series([2**64 - 1], dtype=pl.UInt64),
            "float": [0.1],
            "nan": [float("nan")],
            "bool": [True],
            "decimal": [Decimal("1.50")],
            "text": ["π 😀 \r\n$3\r\n\x00"],
            "empty": [""],
            "bytes": [b"\xff\x00"],
            "list": [["a", None, '"']],
            "struct": [{"a.b": 1, "at": datetime(2026, 1, 1, tzinfo=UTC)}],
            "category": pl.Series(["x"], dtype=pl.Categorical),
            "absent": pl.Series([None], dtype=pl.String),
            "nothing": [None],
        }
    )
    assert store(server, "key=all:{int}:{text}").write(table) is None
    assert client.hgetall("all:-9223372036854775808:π 😀 \r\n$3\r\n\x00") == {
        "utc": "2026-01-01T12:00:00.000005Z",
        "naive": "2026-01-01T12:00:00.000000",
        "elsewhere": "2026-01-01T12:00:00.000Z",
        "nanoseconds": "1970-01-01T00:00:00.000000001Z",
        "date": "2026-01-01",
        "time": "01:02:03.000004",
        "duration": "PT1.5S",
        "int": "-9223372036854775808",
        "uint": "18446744073709551615",
        "float": "0.1",
        "nan": "NaN",
        "bool": "true",
        "decimal": "1.50",
        "text": "π 😀 \r\n$3\r\n\x00",
        "empty": "",
        "bytes": "/wA=",
        "list": '["a",null,"\\""]',
        "struct": '{"a.b":1,"at":"2026-01-01T00:00:00+00:00"}',
        "category": "x",
    }


def test_a_hash_is_replaced_whole(server: RedisServer, client: Any) -> None:
    """Fields that a later form of the row has no value for are gone, whether null or no column any more."""
    rows = pl.DataFrame({"host.name": ["a", "b"], "x": [1, 2], "y": [None, 3]})
    hosts = store(server, "key=host:{host.name}&ttl=100")
    hosts.write(rows.with_columns(y=9, z=9))
    client.persist("host:a")
    assert hosts.write(rows) is None
    assert client.hgetall("host:a") == {"host.name": "a", "x": "1"}
    assert client.hgetall("host:b") == {"host.name": "b", "x": "2", "y": "3"}
    assert 0 < client.ttl("host:a") <= 100


def test_the_last_row_of_a_key_stays(server: RedisServer, client: Any) -> None:
    """Also where an earlier one of the same bulk, or what was there before, had other fields."""
    client.hset("host:a", mapping={"host.name": "a", "old": "1"})
    rows = pl.DataFrame({"host.name": ["a"] * 3, "x": [1, None, 3], "y": [None, 2, None]})
    store(server, "key=host:{host.name}").write(rows)
    assert client.hgetall("host:a") == {"host.name": "a", "x": "3"}


def test_a_key_without_columns(server: RedisServer, client: Any) -> None:
    """Every row replaces the one before, though no field is in both."""
    totals = store(server, "key=totals")
    totals.write(pl.DataFrame({"a": [1]}))
    totals.write(pl.DataFrame({"b": [2]}))
    assert client.hgetall("totals") == {"b": "2"}


def test_rows_without_provenance_are_keyed_by_what_they_are(server: RedisServer, client: Any) -> None:
    """An aggregate that is computed again replaces itself."""
    minutes = store(server, "prefix=minute")
    for rate in (0.1, 0.1 + 1e-17):
        minutes.write(pl.DataFrame({"minute": [1, 2], "rate": [rate, 0.2]}))
    assert len(client.keys("minute:*")) == client.dbsize() == 2


def test_json(server: RedisServer, client: Any) -> None:
    """The row as one JSON string, which goes away after `ttl` seconds."""
    rows = events(3).with_columns(payload=pl.lit(b"\xff"), tags=pl.lit([["a"]]), nothing=None)
    store(server, "as=json&prefix=event&ttl=50").write(rows)
    assert json.loads(client.get("event:a.log:2")) == {
        "timestamp": "2026-01-01T00:00:02.000000Z",
        "body": "row 2",
        "http.response.status_code": 202,
        "source": "a.log",
        "offset": 2,
        "payload": "/w==",
        "tags": [["a"]],
        "nothing": None,
    }
    assert 0 < client.ttl("event:a.log:2") <= 50


def test_stream_entries_are_there_once(server: RedisServer, client: Any) -> None:
    """However often and in whatever bulks they are written; nulls are left out."""
    rows = events(500).with_columns(maybe=pl.when(pl.col("offset") > 0).then(1))
    entries = store(server, "as=stream&key=events:{source}")
    entries.write(rows)
    entries.write(rows.slice(100, 300))
    store(server, "as=stream&key=events:{source}").write(rows.slice(250))
    found = [fields for _, fields in client.xrange("events:a.log")]
    assert [int(fields["offset"]) for fields in found] == list(range(500))
    assert "maybe" not in found[0] and found[1]["maybe"] == "1"


def test_stream_remembers_for_a_time(server: RedisServer, client: Any) -> None:
    """The sets of what was seen go away by themselves."""
    store(server, "as=stream&key=events&seen=60").write(events(10))
    (seen,) = client.keys("events:seen:*")
    assert client.scard(seen) == 10
    assert 0 < client.ttl(seen) <= 120


@pytest.mark.parametrize(("maxlen", "least", "most"), [("100", 100, 100), ("~100", 100, 300)])
def test_stream_is_trimmed(server: RedisServer, client: Any, maxlen: str, least: int, most: int) -> None:
    """To so many entries, or about so many."""
    store(server, f"as=stream&key=events&maxlen={maxlen}").write(events(1000))
    assert least <= client.xlen("events") <= most
    assert client.xrevrange("events", count=1)[0][1]["offset"] == "999"


def test_a_refused_entry_can_be_written_later(server: RedisServer, client: Any) -> None:
    """It does not count as seen."""
    client.set("events", "not a stream")
    entries = store(server, "as=stream&key=events")
    refused = entries.write(events(2))
    assert refused is not None and refused.height == 2
    assert "WRONGTYPE" in refused["rejected.message"][0]
    client.delete("events")
    assert entries.write(events(2)) is None
    assert client.xlen("events") == 2


def test_a_lost_script_is_loaded_again(server: RedisServer, client: Any) -> None:
    """Another's SCRIPT FLUSH costs one retry."""
    entries = store(server, "as=stream&key=events")
    client.script_flush()
    with pytest.raises(redis.ResponseError) as raised:
        entries.write(events(2))
    assert entries.transient(raised.value)
    assert entries.write(events(2)) is None
    assert client.xlen("events") == 2


def test_counters_hold_the_last_value(server: RedisServer, client: Any) -> None:
    """Not a sum: an aggregate that comes again changes nothing."""
    rows = pl.DataFrame({"host.name": ["a", "b", "c"], "count": [1, 2, None]})
    counters = store(server, "as=counter&key=requests:{host.name}&value=count&ttl=90")
    for _ in range(2):
        refused = counters.write(rows)
        assert refused is not None and refused.select("host.name", "rejected.message").row(0) == ("c", "count is null")
    assert (client.get("requests:a"), client.get("requests:b"), client.exists("requests:c")) == ("1", "2", 0)
    assert 0 < client.ttl("requests:a") <= 90


def test_top_keeps_the_highest_scores(server: RedisServer, client: Any) -> None:
    """Of each key, over several writes."""
    rows = pl.DataFrame({"day": [1, 1, 1, 2], "path": ["/a", "/b", "/c", "/d"], "n": [5.5, 7.0, float("inf"), 1.0]})
    top = store(server, "as=top&key=top:{day}&member=path&score=n&limit=2&ttl=90")
    for _ in range(2):
        assert top.write(rows) is None
    assert client.zrange("top:1", 0, -1, withscores=True) == [("/b", 7.0), ("/c", float("inf"))]
    assert client.zrange("top:2", 0, -1) == ["/d"]
    assert 0 < client.ttl("top:1") <= 90


def test_a_score_that_is_no_number_is_refused(server: RedisServer, client: Any) -> None:
    """The row alone, with its key and the server's words."""
    refused = store(server, "as=top&key=top&member=path&score=n").write(
        pl.DataFrame({"path": ["/a", "/b"], "n": [float("nan"), 1.0]})
    )
    assert refused is not None and refused["path"].to_list() == ["/a"]
    assert refused["rejected.message"].to_list() == ["top: ERR value is not a valid float"]
    assert client.zrange("top", 0, -1) == ["/b"]


def test_publish(server: RedisServer, client: Any) -> None:
    """Whoever listens hears each row as JSON, in order."""
    with client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.psubscribe("alerts:*")
        while not client.pubsub_numpat():
            pass
        listener.get_message(timeout=1)
        store(server, "as=publish&key=alerts:{host.name}").write(pl.DataFrame({"host.name": ["a", "b"], "n": [1, 2]}))
        heard = [listener.get_message(timeout=60) for _ in range(2)]
    assert [(message["channel"], message["data"]) for message in heard] == [
        ("alerts:a", '{"host.name":"a","n":1}'),
        ("alerts:b", '{"host.name":"b","n":2}'),
    ]
