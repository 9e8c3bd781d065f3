"""What the tests on real engines share: their clusters, started once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Know the markers of Beam's own tests."""
    for marker in (
        "it_postcommit",
        "it_validatesrunner",
        "no_xdist",
        "no_sickbay_batch",
        "no_sickbay_streaming",
        "sickbay_direct",
    ):
        config.addinivalue_line("markers", f"{marker}: of Beam's own tests")


#: What a test's id has in it → the group of tests that one process runs.
_GROUPS = {
    "stores": "kafka",
    "pinot": "kafka",
    **{name: name for name in ("kafka", "redis", "mongodb", "cassandra", "spark", "flink")},
}


def pytest_sessionfinish() -> None:
    """End the last Prism: what runs tests side by side leaves without the process's own end."""
    if "fabric_beam.runners.prism" in sys.modules:
        from fabric_beam.runners.prism import stop_finished

        stop_finished()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[Any]) -> Iterator[None]:
    """Give an engine's or a server's tests to one process, so that each is started once."""
    for item in items:
        for name, group in _GROUPS.items():
            if "integration" in item.nodeid and name in item.nodeid.lower():
                item.add_marker(pytest.mark.xdist_group(group))
                break
    yield
    for item in items:
        # xdist 3.8 notes the group where pytest 9.2 does not look for a test's id any more.
        named = item.__dict__.get("_nodeid", item.nodeid)
        if named != item.nodeid:
            item._id = type(item.id).parse(named)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that it signed itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return made, key


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A SparkContext on this machine, which every SparkRunner of this process then uses."""
    from fabric_beam.runners.spark import session

    context = session.context("local[2]")
    yield context
    context.stop()


@pytest.fixture(scope="session")
def spark_cluster() -> Iterator[Any]:
    """A Spark standalone master and a worker with two cores."""
    pytest.importorskip("pyspark")
    from fabric_beam.testing.clusters.spark import SparkCluster

    with SparkCluster(workers=1, cores=2, memory="2g") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def flink_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Flink session cluster of two TaskManagers with a slot each, and the means to kill and add TaskManagers."""
    pytest.importorskip("pyflink")
    from fabric_beam.testing.clusters.flink import FlinkCluster

    cluster = FlinkCluster(tmp_path_factory.mktemp("flink") / "cluster")
    cluster.start(slots=1, task_managers=2)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def kafka() -> Iterator[Any]:
    """A Kafka broker, which tests may kill, freeze and restart but leave running."""
    from fabric_beam.testing.servers.kafka import KafkaServer

    with KafkaServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Any]:
    """A Redis-compatible server, which tests may kill, freeze and restart but leave running."""
    pytest.importorskip("redis")
    from fabric_beam.testing.servers.redis import RedisServer

    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def mongodb() -> Iterator[Any]:
    """A server that speaks MongoDB's protocol."""
    pytest.importorskip("pymongo")
    pytest.importorskip("secantus")
    from fabric_beam.testing.servers.mongodb import MongoServer

    with MongoServer() as server:
        yield server


@pytest.fixture(scope="session")
def cassandra() -> Iterator[Any]:
    """A Cassandra node, which tests may kill, freeze and restart but leave running."""
    pytest.importorskip("cassandra")
    from fabric_beam.testing.servers.cassandra import CassandraServer

    with CassandraServer() as server:
        yield server


@pytest.fixture(scope="session")
def pinot() -> Iterator[Any]:
    """Pinot in one process, which tests may kill, freeze and restart but leave running; `admin` has `secret`."""
    from fabric_beam.testing.servers.pinot import PinotServer

    with PinotServer(password="secret") as server:
        yield server
