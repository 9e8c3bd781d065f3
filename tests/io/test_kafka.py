"""What of `kafka:` needs no server: URLs, options, and the offsets that a restriction claims."""

from __future__ import annotations

import pytest
from apache_beam.io.restriction_trackers import OffsetRange

from fabric_beam import Read
from fabric_beam.endpoints import Endpoint, masked
from fabric_beam.errors import InputError, UsageError
from fabric_beam.io.kafka.source import _PartitionTracker
from fabric_beam.io.kafka.topic import Bound, Topic
from fabric_beam.schemes import SOURCES
from fabric_beam.testing.servers.process import free_port


def topic(url: str) -> Topic:
    """The topic that a URL names."""
    return Topic.of(Endpoint.parse(url, SOURCES))


def test_a_url_names_servers_topic_and_settings() -> None:
    """Everything under `librdkafka.` goes to the client."""
    found = topic("kafka://a:9092,b:9093/my-logs.v1?librdkafka.security.protocol=SSL&librdkafka.fetch.min.bytes=1")
    assert found.name == "my-logs.v1"
    assert found.settings() == {
        "bootstrap.servers": "a:9092,b:9093",
        "security.protocol": "SSL",
        "fetch.min.bytes": "1",
    }


def test_secrets_are_filled_in_only_for_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept and shown has the variable's name; an unset one is told by it."""
    found = topic("kafka://a:9092/logs?librdkafka.sasl.password=${FABRIC_BEAM_TEST_SECRET}")
    with pytest.raises(UsageError, match="FABRIC_BEAM_TEST_SECRET"):
        found.settings()
    monkeypatch.setenv("FABRIC_BEAM_TEST_SECRET", "x&y z")
    assert found.settings()["sasl.password"] == "x&y z"
    assert "x&y z" not in repr(found)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("kafka://a/t?librdkafka.sasl.password=pw&start=1", "kafka://a/t?librdkafka.sasl.password=***&start=1"),
        ("kafka://a/t?x=1&librdkafka.ssl.key.pem=---a%0Ab", "kafka://a/t?x=1&librdkafka.ssl.key.pem=***"),
        (
            "kafka://a/t?librdkafka.sasl.oauthbearer.client.secret=${A}b",
            "kafka://a/t?librdkafka.sasl.oauthbearer.client.secret=***",
        ),
        ("kafka://a/t?librdkafka.sasl.password=${NAME}",) * 2,
        ("kafka://a/t?group=monkey",) * 2,
    ],
)
def test_secrets_in_options_are_masked(url: str, shown: str) -> None:
    """Passwords, keys and tokens are not shown; names of variables and what is no secret are."""
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("kafka:logs", "not of the form kafka://HOST"),
        ("kafka://a:9092", "not of the form kafka://HOST"),
        ("kafka://a:9092/", "not of the form kafka://HOST"),
        ("kafka://a:9092/t/u", "not of the form kafka://HOST"),
        ("kafka://ann:pw@a:9092/t", "librdkafka.sasl.username"),
        ("kafka://a:9092/t?strat=1", "Did you mean 'start'"),
        ("kafka://a:9092/t?stop=never", "ends"),
        ("kafka://a:9092/t?start=latest", "start='latest' is none of earliest, committed"),
        ("kafka://a:9092/t?start=-1", "start='-1' is none of"),
        ("kafka://a:9092/t?stop=2026-01-01T00:00:00", "stop='2026-01-01T00:00:00' is none of"),
        ("kafka://a:9092/t?stop=2026-13-01T00:00:00Z", "stop='2026-13-01T00:00:00Z' is none of"),
        ("kafka://a:9092/t?start=committed", "group"),
        ("kafka://a:9092/t?group=g", "committed"),
        ("kafka://a:9092/t?max_rows=0", "max_rows"),
        ("kafka://a:9092/t?max_wait=nan", "max_wait"),
        ("kafka://a:9092/t?librdkafka.no.such=1", "no.such"),
        ("kafka://a:9092/t?librdkafka.fetch.min.bytes=x", "fetch.min.bytes"),
        ("kafka://a:9092/t?start=5&stop=4", "start=5 is after stop=4"),
    ],
)
def test_wrong_urls_are_usage_errors(url: str, message: str) -> None:
    """They are found before anything connects, and say what is wrong, but no password."""
    with pytest.raises(UsageError) as error:
        Read(url)
    assert message in str(error.value)
    assert "pw" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01T01:00:00 01:00", 0),
        ("1970-01-01T00:00:00.0001Z", 1),
    ],
)
def test_times_are_in_milliseconds(text: str, milliseconds: int) -> None:
    """A plus sign that became a space is one again; a part of a millisecond is the next one."""
    assert Bound.parse("start", text).milliseconds == milliseconds


def test_a_batch_is_claimed_up_to_where_a_split_has_cut() -> None:
    """A claim beyond the end fails and is no attempt, so that the rest before the end can be claimed."""
    tracker = _PartitionTracker(OffsetRange(0, 100))
    assert tracker.try_claim(9)
    primary, residual = tracker.try_split(0.5)  # type: ignore[misc]
    assert not tracker.try_claim(99)
    assert tracker.try_claim(primary.stop - 1)
    tracker.check_done()
    assert (primary.stop, residual.stop) == (residual.start, 100)


def test_a_tracker_is_not_done_before_the_end() -> None:
    """Offsets that nobody claimed are an error, never lost."""
    tracker = _PartitionTracker(OffsetRange(0, 100))
    assert tracker.try_claim(98)
    with pytest.raises(ValueError, match="not done"):
        tracker.check_done()
    tracker.try_claim(99)
    tracker.check_done()


def test_nobody_listening_is_said() -> None:
    """A server that is not there is an InputError with its address, within seconds."""
    port = free_port()
    with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port}.*refused"):
        Read(f"kafka://127.0.0.1:{port}/logs")
