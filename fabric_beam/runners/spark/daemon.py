"""PySpark's daemon with Beam imported before it forks workers: each of them would take seconds for that otherwise.

On this machine the imports are made by a process that the client starts while Spark's own is starting (`nursery`): the
daemon that Spark then asks for is a fork of it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import pickle
import select
import shutil
import signal
import socket
import sys
import warnings

#: Names the socket of the nursery, if there is one.
NURSERY = "FABRIC_BEAM_NURSERY"
#: What every stage needs, and what ours need.
_PRELOADED = (
    "fabric_beam.runners.spark.task",
    "fabric_beam.io.lines",
    "fabric_beam.io.parquet",
    "fabric_beam.io.jsonl",
    "pyspark.worker",
    "transforms",
)


def main() -> None:
    """Serve as PySpark's own daemon does."""
    path = os.environ.get(NURSERY)
    if path and _hand_over(path):
        return
    _preload()
    _serve()


def nursery(path: str) -> None:
    """Import what workers need, then become a daemon for each process that asks for it, until standard input ends.

    Args:
        path: of the Unix socket to listen on.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    daemons: list[int] = []
    while True:
        ready, _, _ = select.select([0, listener.fileno()], [], [])
        if 0 in ready:
            for daemon in daemons:
                # Its workers are of its group: one that is in the middle of a file must not go on with it.
                with contextlib.suppress(OSError):
                    os.killpg(daemon, signal.SIGKILL)
            # The client may have ended without a word; what it left is of no more use to anyone.
            shutil.rmtree(os.path.dirname(path), ignore_errors=True)  # noqa: PTH120
            return
        connection, _ = listener.accept()
        daemon = os.fork()
        if daemon == 0:
            listener.close()
            _become(connection)
            os._exit(0)
        daemons.append(daemon)
        connection.close()


def _preload() -> None:
    warnings.filterwarnings("ignore")
    # What a transform raises comes to the client as an error, with its traceback.
    logging.getLogger("apache_beam.runners").setLevel(logging.CRITICAL)
    for name in _PRELOADED:
        # A module that cannot be imported here fails where it is used, with an error that names the transform.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    # PySpark collects garbage after every task: what was imported need not be looked through each time, nor copied by
    # each worker because its reference counts are touched.
    gc.collect()
    gc.freeze()


def _serve() -> None:
    from pyspark.daemon import manager

    manager()


def _hand_over(path: str) -> bool:
    """Give the nursery what this process is to Spark, and stay until its fork ends."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        return False
    state = pickle.dumps((dict(os.environ), os.getcwd(), sys.argv, sys.path))  # noqa: PTH109
    socket.send_fds(connection, [len(state).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(state)
    # Nothing ever comes but the end.
    connection.recv(1)
    return True


def _become(connection: socket.socket) -> None:
    """Take the place of the process that asked."""
    header, files, _, _ = socket.recv_fds(connection, 8, 3)
    state = b""
    while len(state) < int.from_bytes(header, "big"):
        state += connection.recv(1 << 16)
    environment, folder, sys.argv, path = pickle.loads(state)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:] = path
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _serve()


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1] == "nursery":
        nursery(sys.argv[2])
    else:
        main()
