"""What this machine has and lacks: `python -m fabric_beam doctor`."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from fabric_beam.errors import FabricBeamError
from fabric_beam.runners.java import find_java

_MEMORY_MIB, _DISK_MIB = 2048, 1024
#: Package → what it is for; the extra that installs it, empty if it comes with the base.
_PACKAGES = {
    "apache-beam": ("", "everything"),
    "pyarrow": ("", "everything"),
    "polars": ("", "everything"),
    "numba": ("", "lines and access logs"),
    "pyspark": ("spark", "SparkRunner"),
    "apache-flink": ("flink", "FlinkRunner"),
    "scikit-learn": ("sklearn", "--detector isolation_forest"),
}
#: What a cluster started with the defaults of its engine listens on.
_PORTS = {7077: "a Spark master", 8081: "a Flink JobManager"}
_DEFAULT_PORTS = {
    "cassandra": 9042,
    "http": 80,
    "https": 443,
    "kafka": 9092,
    "mongodb": 27017,
    "pinot": 9000,
    "redis": 6379,
    "spark": 7077,
    "flink": 8081,
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: the thing.
        state: `ok`, `note` (something is not there that not everybody needs) or `problem`.
        text: what was found and, if it is not ok, what to do.
    """

    what: str
    state: str
    text: str


def examine(urls: Sequence[str] = ()) -> Iterator[Finding]:
    """Look at Python, memory, disk, packages, Java, engines, ports, and the servers that are named.

    Args:
        urls: servers to reach, such as `kafka://host:9092/topic` or `spark://host:7077`.

    Example:
        >>> next(examine()).what
        'Python'
    """
    yield _python()
    yield from _room()
    yield from _packages()
    yield _java()
    yield _prism()
    yield from _ports()
    for url in urls:
        yield reach(url)


def reach(url: str, seconds: float = 3.0) -> Finding:
    """Whether something answers where a URL points.

    Args:
        url: `scheme://host:port/…`; a scheme's usual port may be left out.
        seconds: how long to wait.

    Example:
        >>> reach("kafka://localhost:1").state
        'problem'
    """
    parts = urlsplit(url)
    try:
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        port = None
    # Without the user and the password that a URL may have.
    name = f"{parts.scheme}://{parts.hostname}:{port}"
    if not parts.hostname or not port:
        return Finding(name, "problem", "not a server's URL: scheme://host:port expected")
    try:
        with socket.create_connection((parts.hostname, port), timeout=seconds):
            return Finding(name, "ok", "answers")
    except socket.gaierror:
        return Finding(name, "problem", f"there is no host {parts.hostname}: check the name and the resolver")
    except TimeoutError:
        return Finding(name, "problem", f"no answer in {seconds:g} s: is a firewall between?")
    except OSError as error:
        return Finding(name, "problem", f"{error.strerror or error}: is it running, and on this port?")


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("Python", "ok", version)
    return Finding("Python", "problem", f"{version}: Beam and its engines need 3.11, 3.12 or 3.13")


def _room() -> Iterator[Finding]:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    free = _available_mib()
    advice = "" if free >= _MEMORY_MIB else f": engines need about {_MEMORY_MIB:,} MiB; stop something else"
    yield Finding("memory", "problem" if advice else "ok", f"{free:,} of {total:,} MiB free{advice}")
    folder = tempfile.gettempdir()
    room = shutil.disk_usage(folder).free >> 20
    advice = "" if room >= _DISK_MIB else ": engines spill there; free some, or point TMPDIR elsewhere"
    yield Finding("disk", "problem" if advice else "ok", f"{room:,} MiB free in {folder}{advice}")
    yield Finding("cores", "ok", str(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()))


def _available_mib() -> int:
    """Memory that can be had, with what the kernel uses for files and gives back when asked."""
    with contextlib.suppress(OSError), Path("/proc/meminfo").open(encoding="ascii") as file:
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith("MemAvailable"))
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def _packages() -> Iterator[Finding]:
    for package, (extra, purpose) in _PACKAGES.items():
        try:
            yield Finding(package, "ok", metadata.version(package))
        except metadata.PackageNotFoundError:
            name = f"fabric-beam[{extra}]" if extra else "fabric-beam"
            yield Finding(
                package, "note" if extra else "problem", f'not installed: {purpose} needs pip install "{name}"'
            )


def _java() -> Finding:
    try:
        return Finding("Java", "ok", str(find_java("SparkRunner and FlinkRunner")))
    except FabricBeamError as error:
        return Finding("Java", "note", str(error))


def _prism() -> Finding:
    from fabric_beam.runners.prism import binary_path

    built = binary_path()
    if built.exists():
        return Finding("Prism", "ok", str(built))
    if go := shutil.which("go"):
        return Finding("Prism", "note", f"not built yet: PrismRunner builds it once with {go}, which takes minutes")
    return Finding("Prism", "note", "PrismRunner needs Go to build it, or --prism_location")


def _ports() -> Iterator[Finding]:
    for port, owner in _PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                yield Finding(f"port {port}", "ok", f"free for {owner}")
            except OSError:
                yield Finding(f"port {port}", "note", f"taken: by {owner}, or by something in its place")
