"""What Flink starts in the place of a Python worker when the driver's process is to be the worker.

Run as a script by `launcher`; a fresh PyFlink worker imports Beam, which takes seconds of CPU time, once for each slot.
It says to the driver which worker is wanted, and lives as long as the driver serves it. Standard library only.
"""

from __future__ import annotations

import json
import shlex
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path


def serve(folder: Path, run_worker: Callable[[str, str], None]) -> Path:
    """Wait for workers to be asked for, and run each in a thread of this process.

    Args:
        folder: a private folder for the socket and the script.
        run_worker: takes the worker's id and the endpoint of its provisioning service.

    Returns:
        The script to be Flink's `python.executable`.
    """
    address = folder / "boot"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(address))
    server.listen()
    threading.Thread(target=_accept, args=(server, run_worker), daemon=True).start()
    import pyflink

    bin_folder = Path(pyflink.__file__).parent / "bin"
    script = folder / "python"
    command = shlex.join([sys.executable, "-I", "-S", __file__, str(address)])
    # With -c, Flink asks where PyFlink's scripts are, for every subtask of every stage.
    asks = f'[ "$1" = -c ] && exec echo {shlex.quote(str(bin_folder))}'
    script.write_text(f'#!/bin/sh\n{asks}\nexec {command} "$@"\n', encoding="utf-8")
    script.chmod(0o700)
    return script


def _accept(server: socket.socket, run_worker: Callable[[str, str], None]) -> None:
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_serve, args=(connection, run_worker), daemon=True).start()


def _serve(connection: socket.socket, run_worker: Callable[[str, str], None]) -> None:
    with connection, connection.makefile("rw", encoding="utf-8") as file:
        try:
            run_worker(*json.loads(file.readline()))
        except Exception as error:
            file.write(f"{type(error).__name__}: {error}")


def _main(address: str, *arguments: str) -> int:
    options = dict(argument.split("=", 1) for argument in arguments if argument.startswith("--"))
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rw", encoding="utf-8") as file:
        connection.connect(address)
        file.write(json.dumps([options["--id"], options["--provision_endpoint"]]) + "\n")
        file.flush()
        error = file.read()
    print(error)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
