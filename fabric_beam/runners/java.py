"""The Java that Spark and Flink run on."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from fabric_beam.errors import FabricBeamError

VERSION = 17


def find_java(users: str) -> Path:
    """The `java` to use: that of `JAVA_HOME`, or the one on the path.

    Args:
        users: who needs it, for the message.

    Raises:
        FabricBeamError: there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if found is None:
        where = f"JAVA_HOME is {home}, and has no bin/java" if home else "there is no java on the PATH"
        raise FabricBeamError(
            f"{users}: Java {VERSION} or newer is needed, and {where}. Install it (apt install "
            f"openjdk-{VERSION}-jre-headless, brew install openjdk@{VERSION}), or set JAVA_HOME to where it is."
        )
    version = java_version(Path(found))
    if version < VERSION:
        raise FabricBeamError(
            f"{users}: Java {VERSION} or newer is needed, and {found} is Java {version}. Install a newer one, or set "
            "JAVA_HOME to where it is."
        )
    return Path(found)


def java_version(java: Path) -> int:
    """The major version of a `java`, read from the file beside it where there is one: asking it takes a while.

    Raises:
        FabricBeamError: it cannot be run.
    """
    text = ""
    with contextlib.suppress(OSError):
        text = (java.resolve().parent.parent / "release").read_text(encoding="utf-8", errors="replace")
    found = re.search(r'JAVA_VERSION="(\d+)(?:\.(\d+))?', text)
    if not found:
        try:
            result = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FabricBeamError(f"Java cannot be run: {java}: {error}.") from error
        found = re.search(r'version "(\d+)(?:\.(\d+))?', result.stderr + result.stdout)
    if not found:
        raise FabricBeamError(f"Java cannot be run: {java} does not say its version.")
    # Java 8 calls itself 1.8.
    major = int(found[1])
    return int(found[2] or 0) if major == 1 else major
