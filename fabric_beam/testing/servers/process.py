"""What every server has in common: a process on the loopback interface that is started, hurt and ended."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from fabric_beam.errors import FabricBeamError

_STOP_SECONDS = 10.0
#: Ports that systems do not give to outgoing connections: one of those could take a server's port while it is down.
_PORTS = range(15_000, 32_000)
#: Ends the server's process group and removes its folder once the process that started it is gone, however it went:
#: the pipe that `cat` reads is closed then.
_WATCH = 'cat >/dev/null; kill -KILL -"$0"; rm -rf "$1"'


class ServerProcess(ABC):
    """A server: one process (and its children), a free port of the loopback interface, a temporary folder; a context
    manager.

    It is ended, and its folder removed, when the process that started it ends, even if that one is killed. A kind of
    server is a subclass that says how it is started (`command`) and when it answers (`is_ready`).

    Args:
        port: to listen on; 0 is a free one. It stays the same over restarts.

    Attributes:
        name: what messages call it.
        ready_seconds: how long it may take to answer.
        folder: of its data and its log, `server.log`; made by `start`, kept by `kill` and `restart`, removed by `stop`.
    """

    name = "server"
    ready_seconds = 60.0

    def __init__(self, port: int = 0) -> None:
        self.port = port or free_port()
        self.folder = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port, where it is reached."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of its process.

        Raises:
            FabricBeamError: it does not run.
        """
        if self._process is None:
            raise FabricBeamError(f"{self.name} on port {self.port} does not run: start it first.")
        return self._process.pid

    @abstractmethod
    def command(self) -> list[str]:
        """The command that runs it in the foreground; called at every start, with `folder` there."""

    def is_ready(self) -> bool:
        """Whether it answers: that its port is open, unless a subclass knows better."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            FabricBeamError: it runs already, or ends or does not answer within `ready_seconds`.
        """
        if self._process is not None:
            raise FabricBeamError(f"{self.name} on port {self.port} runs already.")
        if not self.folder.name:
            self.folder = Path(tempfile.mkdtemp(prefix=f"fabric-beam-{self.name.lower()}-"))
        try:
            self._launch()
            self._await()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it and remove its folder; does nothing if it was not started."""
        self._end(signal.SIGTERM)
        if self.folder.name:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = Path()

    def restart(self) -> Self:
        """Start it again on the same port and data, ended in an orderly way if it still runs."""
        self._end(signal.SIGTERM)
        return self.start()

    def kill(self) -> None:
        """End it at once, as a crash does (SIGKILL); its data stay."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it answer nothing while its connections stay open (SIGSTOP)."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on (SIGCONT)."""
        os.killpg(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self) -> None:
        command = self.command()
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A process group of its own: signals reach its children, and Ctrl-C in a terminal does not reach it.
                start_new_session=True,
            )
        self._watch = subprocess.Popen(
            ["sh", "-c", _WATCH, str(self._process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _await(self) -> None:
        until = time.monotonic() + self.ready_seconds
        while not self.is_ready():
            assert self._process is not None
            ended = self._process.poll() is not None
            if ended or time.monotonic() > until:
                what = "ended" if ended else f"did not answer within {self.ready_seconds:.0f} s"
                log = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                raise FabricBeamError(f"{self.name} on port {self.port} {what}. Its log ends: {log}")
            time.sleep(0.05)

    def _end(self, how: signal.Signals) -> None:
        if self._watch is not None and self._watch.stdin is not None:
            # First the one that would act on its end: the process id may be another's afterwards.
            os.killpg(self._watch.pid, signal.SIGKILL)
            self._watch.wait()
            self._watch.stdin.close()
            self._watch = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)
                # One that is frozen gets what was sent to it only when it goes on.
                os.killpg(self._process.pid, signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback interface that nothing listens on, all different."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            probe, port = stack.enter_context(socket.socket()), random.choice(_PORTS)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
    return found


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on."""
    return free_ports(1)[0]
