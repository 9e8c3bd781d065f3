"""Ways to run a pipeline: one file an engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

# A runner has a worker for each core: more threads in each would only wait for one another. Polars and OpenMP read this
# when they are imported, so it is here, in what drivers and workers import first.
for _name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

#: The names that mean our own runners, by module; the others are Beam's.
OURS = {
    "DirectRunner": "fabric_beam.runners.direct",
    "FlinkRunner": "fabric_beam.runners.flink",
    "PrismRunner": "fabric_beam.runners.prism",
    "SparkRunner": "fabric_beam.runners.spark",
}
#: Options that mean Beam's portable runner of that name instead, with its Java job server.
_PORTABLE = ("--job_endpoint", "--flink_job_server_jar", "--spark_job_server_jar")


def start(name: str, arguments: Sequence[str] = ()) -> None:
    """Start what an engine needs time for, before Beam is imported: Spark or Flink on this machine.

    Args:
        name: as in `--runner`.
        arguments: Beam's own.

    Raises:
        FabricBeamError: the engine cannot be started: it is not installed, there is no Java, nobody answers.
    """
    if name not in ("SparkRunner", "FlinkRunner") or _portable(arguments):
        return
    from argparse import ArgumentParser

    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    if name == "FlinkRunner":
        from fabric_beam.runners.flink import cluster

        parser.add_argument("--flink_master", default="[auto]")
        parser.add_argument("--parallelism", type=int, default=-1)
        options, _ = parser.parse_known_args(list(arguments))
        cluster.check()
        cluster.warm_up(options.flink_master, max(options.parallelism, 0))
        return
    from fabric_beam.runners.spark import processes

    parser.add_argument("--spark_master", default="local[*]")
    parser.add_argument("--spark_log_level", default="OFF")
    parser.add_argument("--spark_conf", action="append", default=[])
    options, _ = parser.parse_known_args(list(arguments))
    conf = dict(setting.partition("=")[::2] for setting in options.spark_conf)
    processes.start(options.spark_master, conf.get("spark.driver.memory", "1g"), options.spark_log_level)


def _portable(arguments: Sequence[str]) -> bool:
    return any(argument.partition("=")[0] in _PORTABLE for argument in arguments)


def runner(name: str, arguments: Sequence[str] = ()) -> Any:
    """The runner that a name means: one of ours, or the name itself for Beam to look up.

    Args:
        name: as in `--runner`.
        arguments: Beam's own, which may ask for its portable runner.

    Example:
        >>> type(runner("SparkRunner")).__module__
        'fabric_beam.runners.spark.runner'
        >>> runner("SparkRunner", ["--job_endpoint=localhost:8099"])
        'SparkRunner'
    """
    if name not in OURS or _portable(arguments):
        return name
    return getattr(import_module(OURS[name]), name)()
