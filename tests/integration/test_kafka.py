"""What `kafka:` reads from a real broker: every message once, whatever happens meanwhile."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from apache_beam.io.restriction_trackers import OffsetRange
from confluent_kafka import Consumer, KafkaException, TopicPartition

from fabric_beam import Read
from fabric_beam.batches import from_batch
from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import InputError
from fabric_beam.io.kafka.columns import SCHEMA
from fabric_beam.io.kafka.source import _PartitionTracker, _ReadPartition, _work
from fabric_beam.runners.prism import binary_path
from fabric_beam.schemes import SOURCES
from fabric_beam.testing import check_source
from fabric_beam.testing.batches import read_all
from fabric_beam.testing.servers.kafka import KafkaServer
from tests.integration.kafka_topic import NOON, Topic, delivered, eventually
from tests.integration.logs_command import generate, run, tables


def bodies(url: str) -> list[str]:
    """All bodies of a topic of one partition, in order."""
    return [str(body) for body in read_all(Read(url)).sort("offset")["body"]]


def test_rows_are_the_messages_of_every_partition(kafka: KafkaServer) -> None:
    """Keys, values, headers and times as they were produced, once each, however they are batched."""
    topic = Topic(kafka).create(3)
    messages: list[tuple[Any, ...]] = [
        (0, b"k1", b"first", []),
        (0, None, b"", [("a", b"1"), ("b", None), ("a", b"")]),
        (1, b"", None, []),
        (1, b"\xff\xfe", "grüße".encode(), [("häder", "wört".encode())]),
        # The two halves of one character: each is wrong by itself.
        (1, None, b"caf\xc3", []),
        (1, b"\xa9", b"\xa9", [("x", b"\x00\xff")]),
        (1, "ключ", "a value that is longer than a view", [("n", b"n" * 100)]),
    ]
    producer = topic.producer()
    for number, (partition, key, value, headers) in enumerate(messages):
        producer.produce(
            topic.name, value, key, partition, headers=headers, timestamp=NOON + number, on_delivery=delivered
        )
    assert producer.flush(120) == 0

    def text(raw: Any) -> str | None:
        return raw.decode(errors="replace") if isinstance(raw, bytes) else raw

    offsets: dict[int, int] = {}
    rows = []
    for number, (partition, key, value, headers) in enumerate(messages):
        offsets[partition] = offsets.get(partition, -1) + 1
        rows.append(
            {
                "key": text(key),
                "body": text(value),
                "headers": [{"key": name, "value": text(raw)} for name, raw in headers],
                "timestamp": datetime.fromtimestamp((NOON + number) / 1000, UTC),
                "source": f"{topic.name}-{partition}",
                "offset": offsets[partition],
            }
        )
    expected = pl.DataFrame(rows, schema=SCHEMA)
    found = read_all(Read(topic.url()))
    assert found.schema == SCHEMA
    assert found.sort("source", "offset").equals(expected)
    check_source(f"{topic.url()}max_rows=2", expected.drop("headers"))


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_messages_are_read(kafka: KafkaServer, codec: str) -> None:
    """Whatever the producer compressed them with."""
    topic = Topic(kafka).create()
    lines = [f"a line that is like the others {n}" for n in range(5000)]
    producer = topic.producer(**{"compression.type": codec})
    for line in lines:
        producer.produce(topic.name, line)
    assert producer.flush(120) == 0
    assert bodies(topic.url()) == lines


def test_an_empty_topic_has_no_rows(kafka: KafkaServer) -> None:
    """And the source's schema all the same."""
    topic = Topic(kafka).create(2)
    check_source(topic.url(), pl.DataFrame(schema=SCHEMA).drop("headers"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("start=3", range(3, 10)),
        ("start=10", range(0)),
        ("stop=0", range(0)),
        ("start=2&stop=5", range(2, 5)),
        ("start=2026-01-01T00:00:00.004Z", range(4, 10)),
        ("start=2026-01-01T01:00:00.0071%2B01:00", range(8, 10)),
        ("start=2026-01-01T00:00:00.002Z&stop=2026-01-01T00:00:00.006Z", range(2, 6)),
        ("start=2027-01-01T00:00:00Z", range(0)),
        ("stop=2025-01-01T00:00:00Z", range(0)),
        ("start=7&stop=2027-01-01T00:00:00Z", range(7, 10)),
    ],
)
def test_offsets_and_times_bound_a_read(kafka: KafkaServer, options: str, expected: range) -> None:
    """From the first message at or after `start` to the last before `stop`."""
    topic = Topic(kafka).create()
    topic.write([str(n) for n in range(10)])
    assert bodies(f"{topic.url()}{options}") == [str(n) for n in expected]


@pytest.mark.parametrize("options", ["start=11", "stop=11", "start=5&stop=12"])
def test_offsets_that_are_not_there_yet_are_an_error(kafka: KafkaServer, options: str) -> None:
    """Fewer rows than asked for are never given in silence."""
    topic = Topic(kafka).create()
    topic.write(["x"] * 10)
    with pytest.raises(InputError, match="holds the offsets 0 to 9"):
        Read(f"{topic.url()}{options}")


def test_committed_is_where_the_group_was_and_nothing_is_committed(kafka: KafkaServer) -> None:
    """The same read gives the same rows again; where the group has committed nothing it begins at the earliest."""
    topic = Topic(kafka).create(2)
    topic.write([str(n) for n in range(10)])
    topic.write([str(n) for n in range(10, 15)], partition=1)
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": f"of-{topic.name}"})
    # The first group of a broker waits for its coordinator.
    eventually(lambda: _committed(consumer, TopicPartition(topic.name, 0, 7)))
    consumer.close()
    url = f"{topic.url()}start=committed&group=of-{topic.name}"
    for _ in range(2):
        found = read_all(Read(url))
        assert sorted(map(int, found["body"])) == [7, 8, 9, 10, 11, 12, 13, 14]


def _committed(consumer: Consumer, place: TopicPartition) -> bool:
    try:
        return bool(consumer.commit(offsets=[place], asynchronous=False))
    except KafkaException:
        return False


def test_what_is_written_meanwhile_is_not_read(kafka: KafkaServer) -> None:
    """The end is where it was when the run began."""
    topic = Topic(kafka).create()
    topic.write(["before"] * 1000)
    source = Read(topic.url())
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            topic.write(["after"] * 500)

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        try:
            found = read_all(source)
        finally:
            done.set()
        writing.result()
    assert found["body"].to_list() == ["before"] * 1000


def test_a_transaction_is_read_once_committed(kafka: KafkaServer) -> None:
    """Aborted messages and control records are gaps in the offsets, at the end too; an open one is not waited for."""
    topic = Topic(kafka).create()
    producer = topic.producer(**{"transactional.id": topic.name})
    producer.init_transactions(120)
    for name, commit in (("a", True), ("b", False), ("c", True), ("d", False)):
        producer.begin_transaction()
        for number in range(10):
            producer.produce(topic.name, f"{name}{number}")
        producer.flush(120)
        (producer.commit_transaction if commit else producer.abort_transaction)(120)
    expected = [f"{name}{number}" for name in "ac" for number in range(10)]
    assert bodies(f"{topic.url()}max_rows=7") == expected
    producer.begin_transaction()
    producer.produce(topic.name, "open")
    producer.flush(120)
    assert bodies(topic.url()) == expected
    assert len(bodies(f"{topic.url()}librdkafka.isolation.level=read_uncommitted")) == 41
    producer.abort_transaction(120)


def test_an_end_that_is_told_with_the_last_messages_is_the_end(kafka: KafkaServer) -> None:
    """Control records behind the last message are passed over, without waiting for what does not come."""
    topic = Topic(kafka).create()
    producer = topic.producer(**{"transactional.id": topic.name})
    producer.init_transactions(120)
    producer.begin_transaction()
    producer.produce(topic.name, "one")
    producer.flush(120)
    producer.commit_transaction(120)
    [work] = _work(Endpoint.parse(f"{topic.url()}timeout=20", SOURCES))
    for seconds in (1, 2, 4, 8, 16):
        with work.open(0) as reader:
            # Messages and end are there at once then, unless the broker is slow.
            time.sleep(seconds)
            found = [reader.read(2, max_rows=10, max_wait=0)["body"].to_list() for _ in range(2) if reader.position < 2]
        assert ([body for each in found for body in each], reader.position) == (["one"], 2)
        if len(found) == 1:
            return
    pytest.fail("message and end never came together")


def test_a_topic_that_is_all_aborted_ends(kafka: KafkaServer) -> None:
    """Its end is a position, not a number of messages."""
    topic = Topic(kafka).create()
    producer = topic.producer(**{"transactional.id": topic.name})
    producer.init_transactions(120)
    producer.begin_transaction()
    producer.produce(topic.name, "never")
    producer.flush(120)
    producer.abort_transaction(120)
    assert read_all(Read(topic.url())).height == 0


def test_a_misspelt_topic_names_the_nearest(kafka: KafkaServer) -> None:
    """Nothing is created by asking."""
    topic = Topic(kafka).create()
    # Every broker knows of a topic that was written to; of one that was just made it may not.
    topic.write(["a line"])
    wrong = f"{topic.name}x"
    with pytest.raises(InputError, match=f"no topic '{wrong}'. Did you mean '{topic.name}'"):
        Read(f"kafka://{kafka.address}/{wrong}")
    assert wrong not in topic.admin.list_topics(timeout=10).topics


def test_big_messages_make_short_batches(kafka: KafkaServer) -> None:
    """A batch's memory is bounded, whatever `max_rows` says."""
    topic = Topic(kafka).create()
    topic.write(["x" * 500_000] * 300)
    [work] = _work(Endpoint.parse(topic.url(), SOURCES))
    batches = _restriction(work, OffsetRange(0, 300))[0]
    assert sum(table.height for table in batches) == 300
    assert max(table.height for table in batches) < 250


def _restriction(
    work: Any, restriction: OffsetRange, split: float | None = None
) -> tuple[list[pl.DataFrame], OffsetRange | None]:
    """Process a restriction, which is split at that fraction of what is left once the first batch is there."""
    tracker, batches, residual = _PartitionTracker(restriction), [], None
    for batch in _ReadPartition("Read").process(work, tracker):
        batches.append(from_batch(batch))
        if split is not None and len(batches) == 1:
            found = tracker.try_split(split)
            residual = found[1] if found else None
    tracker.check_done()
    return batches, residual


@pytest.mark.parametrize("split", [0.0, 0.001, 0.3, 0.999])
def test_a_split_restriction_gives_each_message_once(kafka: KafkaServer, split: float) -> None:
    """In the primary or in the residual, wherever a runner splits."""
    topic = Topic(kafka).create()
    topic.write([str(n) for n in range(1000)])
    [work] = _work(Endpoint.parse(f"{topic.url()}max_rows=64", SOURCES))
    tables, residual = _restriction(work, OffsetRange(0, 1000), split)
    assert residual
    tables += _restriction(work, residual)[0]
    assert pl.concat(tables)["offset"].to_list() == list(range(1000))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated fleet's access logs, malformed lines among them."""
    return generate(tmp_path_factory.mktemp("demo"), 20_000, 5)


@pytest.fixture(scope="module")
def from_files(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """What the logs pipeline makes of them as files."""
    out = tmp_path_factory.mktemp("files")
    code, printed = run(out, "--input", str(logs), "--format=combined")
    assert code == 0, printed[-3000:]
    return tables(out)


@pytest.fixture(scope="module")
def log_topic(kafka: KafkaServer, logs: Path) -> Topic:
    """A topic of those logs, a file to a partition."""
    files = sorted(logs.glob("*.log"))
    topic = Topic(kafka).create(len(files))
    for number, path in enumerate(files):
        topic.write(path.read_bytes().splitlines(), partition=number)
    return topic


@pytest.mark.parametrize("runner", ["DirectRunner", "SparkRunner", "FlinkRunner", "PrismRunner"])
def test_the_logs_pipeline_reads_a_topic(
    runner: str, from_files: dict[str, pl.DataFrame], log_topic: Topic, tmp_path: Path
) -> None:
    """The same events, metrics and dead letters as from the files, on every runner, and a ledger that balances."""
    if runner == "PrismRunner" and not binary_path().exists():
        pytest.skip("Prism is not built: that takes Go")
    pytest.importorskip({"SparkRunner": "pyspark", "FlinkRunner": "pyflink"}.get(runner, "confluent_kafka"))
    code, printed = run(tmp_path, f"--runner={runner}", "--input", log_topic.url(), "--format=combined")
    assert code == 0, printed[-3000:]
    found = tables(tmp_path)
    for name in ("events", "metrics"):
        columns = [
            column for column in from_files[name].columns if column not in ("source", "offset", "observed_timestamp")
        ]
        expected = from_files[name].select(columns).sort(columns)
        assert found[name].select(columns).sort(columns).equals(expected), name
    assert found["dead_letters"].height == from_files["dead_letters"].height > 0


def test_an_error_ends_a_pipeline_without_a_traceback(kafka: KafkaServer, tmp_path: Path) -> None:
    """A misspelt topic is one line on the terminal, and exit code 1."""
    code, printed = run(tmp_path, "--input", f"kafka://{kafka.address}/nothing-like-it", "--format=combined")
    assert code == 1
    assert "there is no topic 'nothing-like-it'" in printed
    assert "Traceback" not in printed


def test_a_sample_of_messages_tells_a_schema(kafka: KafkaServer) -> None:
    """Tombstones are left out, and no more is read than asked for."""
    topic = Topic(kafka).create(2)
    topic.write(['{"a": 1}', None, '{"a": 2}'])
    topic.write(['{"a": 3}'] * 5, partition=1)
    source: Any = Read(topic.url()).source
    assert source.sample(4) == ['{"a": 1}', '{"a": 2}', '{"a": 3}', '{"a": 3}']
    assert read_all(Read(topic.url(), limit=4)).height == 4
