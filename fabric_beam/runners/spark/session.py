"""A SparkContext for a run, with an executor to run on and the project shipped to it."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fabric_beam.errors import FabricBeamError
from fabric_beam.runners.own_sources import own_files
from fabric_beam.runners.spark import processes
from fabric_beam.runners.spark.processes import hadoop_settings, is_local, unreachable

_ARCHIVE = "fabric_beam_project"


def context(
    master: str,
    *,
    name: str = "fabric-beam",
    conf: Mapping[str, str] | None = None,
    executor_seconds: float = 20.0,
    log_level: str = "OFF",
) -> Any:
    """Make a SparkContext, or tell in a sentence why there is none.

    Args:
        master: `local[*]`, `local[N]`, `spark://host:port`, or any other of Spark's.
        name: of the application.
        conf: Spark's own settings, which go before ours.
        executor_seconds: how long a cluster may take to give a first executor.
        log_level: of Spark's log on standard error.

    Raises:
        MissingExtraError: PySpark is not installed.
        UsageError: the master's URL or a setting is not one.
        FabricBeamError: there is no Java, no master, or no executor.
    """
    settings = {**_settings(master), **(conf or {})}
    processes.start(master, settings.get("spark.driver.memory", "1g"), log_level)
    gateway = processes.connect()

    from pyspark import SparkConf, SparkContext

    handler = signal.getsignal(signal.SIGINT)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark_conf = SparkConf(loadDefaults=True, _jvm=gateway.jvm)
    spark_conf.setMaster(_with_retries(master)).setAppName(name).setAll(list(settings.items()))
    if master == "yarn":
        _check_resource_manager(gateway.jvm, spark_conf)
    try:
        made = SparkContext(conf=spark_conf, gateway=gateway)
    except Exception as error:
        raise FabricBeamError(f"Spark did not start on {master}: {_first_line(error)}.") from error
    finally:
        # Spark's own would cancel everything in the process, and once it is stopped fail.
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, handler)
    if not is_local(master):
        try:
            _ship(made)
            _await_executor(made, master, executor_seconds)
        except BaseException:
            made.stop()
            raise
    return made


def _with_retries(master: str) -> str:
    """A local master that tries a task again when its worker dies, as a cluster does."""
    if master == "local":
        return "local[1,4]"
    return re.sub(r"^local\[\s*(\d+|\*)\s*\]$", r"local[\1,4]", master)


def _settings(master: str) -> dict[str, str]:
    settings = {
        "spark.python.daemon.module": "fabric_beam.runners.spark.daemon",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.task.maxFailures": "4",
        "spark.python.worker.faulthandler.enabled": "true",
    }
    if is_local(master):
        settings |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            # Blocks that never leave the machine cost more to compress than to write.
            "spark.shuffle.compress": "false",
            "spark.broadcast.compress": "false",
        }
    else:
        if re.match(r"spark://(127\.|localhost)", master):
            settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
        settings["spark.executorEnv.PYTHONPATH"] = _ARCHIVE
    return settings


def _first_line(error: BaseException) -> str:
    text = str(getattr(error, "java_exception", None) or error)
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else type(error).__name__


def _check_resource_manager(jvm: Any, spark_conf: Any) -> None:
    """Ask for YARN at the address that its settings have: its own client would try again for a quarter of an hour."""
    hadoop = jvm.org.apache.spark.deploy.SparkHadoopUtil.get().newConfiguration(spark_conf._jconf)
    yarn = jvm.org.apache.hadoop.yarn.conf.YarnConfiguration(hadoop)
    ids = list(yarn.getStringCollection("yarn.resourcemanager.ha.rm-ids"))
    manager = "yarn.resourcemanager"
    addresses = [
        yarn.get(f"{manager}.address{suffix}") or f"{yarn.get(f'{manager}.hostname{suffix}')}:8032"
        for suffix in [f".{id_}" for id_ in ids] or [""]
    ]
    problems = [problem for address in addresses if (problem := unreachable(address))]
    if len(problems) == len(addresses):
        raise FabricBeamError(
            f"There is no YARN ResourceManager: {'; '.join(problems)}. The address is yarn.resourcemanager.address "
            f"(or .hostname) of yarn-site.xml in {hadoop_settings()[0]}; check it, that YARN runs, and that no "
            "firewall is between."
        )


def _await_executor(spark: Any, master: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    # The first of the list is the driver's own.
    while spark._jsc.sc().isStopped() or spark._jsc.sc().getExecutorMemoryStatus().size() < 2:
        if spark._jsc.sc().isStopped():
            raise FabricBeamError(
                f"{master} gave up on the application: its executors did not start. Their workers' logs say why; "
                "mostly it is another version of Spark or Java there than here."
            )
        if time.monotonic() > until:
            raise FabricBeamError(
                f"{master} gave no executor within {seconds:.0f} s: its workers have no free cores or less "
                f"than {spark.getConf().get('spark.executor.memory', '1g')} of free memory, or there are none. Wait "
                "for other applications to end, add workers, or take less by --spark_conf spark.executor.memory=600m "
                "and --spark_conf spark.cores.max=1."
            )
        time.sleep(0.1)


def _ship(spark: Any) -> None:
    """Send the modules that are loaded here and not installed to the executors, in one archive."""
    # Executors fetch it when they have their first task: it must stay.
    folder = Path(tempfile.mkdtemp(prefix="fabric-beam-ship-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    archive = folder / f"{_ARCHIVE}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for file, name in own_files():
            out.write(file, name)
    spark.addArchive(f"{archive}#{_ARCHIVE}")
