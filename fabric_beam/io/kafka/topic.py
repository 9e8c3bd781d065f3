"""Kafka's URLs, and the ranges of offsets that a bounded read of a topic stands for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fabric_beam.endpoints import Endpoint, filled
from fabric_beam.errors import InputError, MissingExtraError, UsageError, nearest

_PREFIX = "librdkafka."
#: Within which a broker must answer.
_SECONDS = 8.0


@dataclass(frozen=True)
class Topic:
    """A topic and how its brokers are reached.

    Attributes:
        name: its name.
        url: without options, for messages.
        configuration: librdkafka's settings by name, as the URL has them: secrets are still `${NAME}`.
    """

    name: str
    url: str
    configuration: dict[str, str]

    @classmethod
    def of(cls, endpoint: Endpoint) -> Topic:
        """Take servers, topic and librdkafka's settings out of an endpoint.

        Raises:
            UsageError: there is no server or no topic, or the servers are given with a password.

        Example:
            >>> Topic.of(Endpoint("kafka", "//a:9092,b:9092/logs", {"librdkafka.security.protocol": "SSL"}))
            ... # doctest: +NORMALIZE_WHITESPACE
            Topic(name='logs', url='kafka://a:9092,b:9092/logs',
                  configuration={'bootstrap.servers': 'a:9092,b:9092', 'security.protocol': 'SSL'})
        """
        servers, _, name = endpoint.path.removeprefix("//").partition("/")
        if "@" in servers:
            raise UsageError(
                "kafka: name and password are settings of librdkafka, not of the server: "
                "kafka://HOST:PORT/TOPIC?librdkafka.sasl.username=NAME&librdkafka.sasl.password=${VARIABLE}."
            )
        if not endpoint.path.startswith("//") or not servers or not re.fullmatch(r"[\w.-]+", name, re.ASCII):
            raise UsageError(f"kafka:{endpoint.path} is not of the form kafka://HOST:PORT[,HOST:PORT]/TOPIC.")
        names = [option for option in endpoint.options if option.startswith(_PREFIX)]
        configuration = {option.removeprefix(_PREFIX): endpoint.options.pop(option) for option in names}
        return cls(name, f"kafka:{endpoint.path}", {"bootstrap.servers": servers, **configuration})

    def settings(self) -> dict[str, str]:
        """librdkafka's settings, with what the environment has put in.

        Raises:
            UsageError: the environment lacks a variable.
        """
        return {name: filled(value, self.url) for name, value in self.configuration.items()}


@dataclass(frozen=True)
class Bound:
    """Where a read begins or ends.

    Attributes:
        text: as it was given.
        offset: in every partition, or None.
        milliseconds: a time since 1970, or None.
    """

    text: str
    offset: int | None = None
    milliseconds: int | None = None

    @classmethod
    def parse(cls, option: str, text: str, *words: str) -> Bound:
        """Read a word, an offset or a time.

        Raises:
            UsageError: it is neither.

        Example:
            >>> Bound.parse("start", "1970-01-01T00:00:01Z", "earliest").milliseconds
            1000
        """
        if text in words:
            return cls(text)
        if text.isascii() and text.isdecimal():
            return cls(text, offset=int(text))
        try:
            # A plus sign in a query string is a space.
            time = datetime.fromisoformat(text.replace(" ", "+")) if re.match(r"\d{4}-\d\d-\d\dT", text) else None
        except ValueError:
            time = None
        if time is None or time.tzinfo is None:
            known = [*words, "an offset", "a time such as 2026-01-31T12:00:00Z"]
            raise UsageError(f"kafka: option {option}={text!r} is none of {', '.join(known)}.")
        return cls(text, milliseconds=math.ceil(time.timestamp() * 1000))


@dataclass(frozen=True)
class Partition:
    """The messages of one partition with `start` <= offset < `stop`."""

    topic: Topic
    number: int
    start: int
    stop: int

    @property
    def source(self) -> str:
        """Topic and number, as in the column `source`."""
        return f"{self.topic.name}-{self.number}"


def partitions(topic: Topic, start: Bound, stop: Bound, group: str) -> list[Partition]:
    """Find the offsets to read of each partition, as they are now.

    Args:
        topic: which.
        start: `earliest`, `committed`, an offset or a time (the first message then or later).
        stop: `latest`, an offset or a time; itself not included.
        group: whose committed offsets.

    Raises:
        UsageError: a setting is wrong.
        InputError: no broker answers, there is no such topic, or it does not hold these offsets (any more).
    """
    try:
        from confluent_kafka import Consumer, KafkaException, TopicPartition
    except ImportError as error:
        raise MissingExtraError("kafka:", "kafka") from error
    said: list[str] = []
    settings: dict[str, Any] = {
        **topic.settings(),
        "group.id": group or "fabric-beam",
        "enable.auto.commit": False,
        "log_level": 0,
        "error_cb": lambda error: said.append(error.str()),
    }
    try:
        client = Consumer(settings)
    except KafkaException as error:
        raise UsageError(f"kafka: {error.args[0].str()}.") from error
    try:
        numbers = _numbers(client, topic)

        def ask(bound: Bound, there: list[int], otherwise: list[int]) -> list[int]:
            """The bound's offset in each partition: what is there, and otherwise if its time or group has none."""
            if bound.offset is not None:
                return [bound.offset] * len(numbers)
            if bound.milliseconds is not None:
                times = [TopicPartition(topic.name, number, bound.milliseconds) for number in numbers]
                found = client.offsets_for_times(times, timeout=_SECONDS)
            elif bound.text == "committed":
                found = client.committed([TopicPartition(topic.name, number) for number in numbers], timeout=_SECONDS)
            else:
                return there
            return [place.offset if place.offset >= 0 else end for place, end in zip(found, otherwise, strict=True)]

        lows, highs = zip(
            *(client.get_watermark_offsets(TopicPartition(topic.name, n), timeout=_SECONDS) for n in numbers),
            strict=True,
        )
        starts = ask(start, list(lows), list(lows if start.text == "committed" else highs))
        stops = ask(stop, list(highs), list(highs))
    except KafkaException as error:
        client.poll(0)
        reason = said[0] if said else error.args[0].str()
        raise InputError(
            f"{topic.url}: {reason}. Does a Kafka broker answer there, and do the settings "
            "librdkafka.security.protocol and librdkafka.sasl.… let you in?"
        ) from error
    finally:
        client.close()
    bounds = zip(numbers, starts, stops, lows, highs, strict=True)
    return [_partition(Partition(topic, number, *rest[:2]), start, stop, *rest[2:]) for number, *rest in bounds]


def _numbers(client: Any, topic: Topic) -> list[int]:
    found = client.list_topics(topic.name, timeout=_SECONDS).topics[topic.name]
    if found.partitions:
        return sorted(found.partitions)
    if found.error is not None and found.error.name() not in ("UNKNOWN_TOPIC_OR_PART", "TOPIC_EXCEPTION"):
        raise InputError(f"{topic.url}: the topic {topic.name!r} may not be read: {found.error.str()}.")
    topics = [name for name in client.list_topics(timeout=_SECONDS).topics if not name.startswith("__")]
    raise InputError(f"{topic.url}: there is no topic {topic.name!r}. {nearest(topic.name, topics)}")


def _partition(asked: Partition, start: Bound, stop: Bound, low: int, high: int) -> Partition:
    """The partition as it was asked for, if it holds these offsets.

    Raises:
        InputError: it does not.
    """
    source = asked.source
    if asked.start < low:
        raise InputError(gone(source, asked.start, low))
    for option, bound, offset in (("start", start, asked.start), ("stop", stop, asked.stop)):
        if offset > high:
            raise InputError(
                f"kafka: {option}={bound.text}: {source} holds the offsets {low} to {high - 1}, not {offset} (yet)."
                if high > low
                else f"kafka: {option}={bound.text}: {source} holds no messages; its next offset is {high}."
            )
    # Where times are not in the order of offsets, the first of a later time may come before that of an earlier one.
    return replace(asked, stop=max(asked.start, asked.stop))


def gone(source: str, first: int, low: int) -> str:
    """The message that offsets of a partition, from the first to those below `low`, were deleted."""
    return (
        f"kafka: offsets {first} to {low - 1} of {source} are gone: deleted by the topic's retention, or by hand. The "
        f"first that is left is {low}: read from there (start={low}), or all there is (start=earliest)."
    )
