"""What the tests on real engines share: their clusters, started once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Know the markers of Beam's own tests."""
    for marker in ("it_validatesrunner", "no_xdist"):
        config.addinivalue_line("markers", f"{marker}: of Beam's own tests")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give an engine's tests to one process, so that each engine is started once."""
    for item in items:
        for engine in ("spark", "flink"):
            if "integration" in item.nodeid and engine in item.nodeid.lower():
                item.add_marker(pytest.mark.xdist_group(engine))


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
    """A Flink session cluster of one TaskManager with two slots, and the means to kill and add TaskManagers."""
    pytest.importorskip("pyflink")
    from fabric_beam.testing.clusters.flink import FlinkCluster

    cluster = FlinkCluster(tmp_path_factory.mktemp("flink") / "cluster")
    cluster.start()
    yield cluster
    cluster.stop()
