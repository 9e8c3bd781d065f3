"""Jars of servers that are published at Maven only: fetched once, into the user's cache.

`python -m fabric_beam.testing.servers.maven` fetches them all, so that no test waits for them.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from fabric_beam.errors import FabricBeamError

_DOWNLOAD_SECONDS = 600
#: What a server says, and what of it is kept: warnings, in its own output.
LOG4J = """\
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{HH:mm:ss,SSS} %-5p %c{1} - %m%n
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
"""


def jars(server: str, version: str) -> Path:
    """The folder of a server's jars, fetched by Maven into the user's cache where they are not there.

    Args:
        server: the server's name, such as `Kafka`: beside this file, `kafka.xml` says what Maven is to fetch.
        version: of the server.

    Raises:
        FabricBeamError: Maven is missing, or cannot fetch them.
    """
    name = server.lower()
    folder = Path.home() / ".cache" / "fabric-beam" / f"{name}-{version}"
    if folder.exists():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise FabricBeamError(
            f"{server}'s jars are fetched by Maven, and there is no mvn on the PATH. Install it (apt install maven, "
            f"brew install maven), or put the jars of {server} {version} into {folder}."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as fetched:
        jars = Path(fetched) / "jars"
        command = [maven, "--quiet", "--batch-mode", "--file", str(Path(__file__).with_name(f"{name}.xml"))]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False, cwd=fetched
            )
        except subprocess.TimeoutExpired as error:
            raise FabricBeamError(f"Maven did not fetch {server}'s jars within {_DOWNLOAD_SECONDS} s.") from error
        if result.returncode:
            said = (result.stdout + result.stderr)[-2000:]
            raise FabricBeamError(f"Maven could not fetch {server}'s jars. Is its repository reached? It says: {said}")
        try:
            # All of them or none; another process may have been faster.
            jars.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    return folder


if __name__ == "__main__":
    from fabric_beam.testing.servers import cassandra, kafka, pinot, yarn

    jars("Kafka", kafka.VERSION)
    jars("Cassandra", cassandra.VERSION)
    jars("Pinot", pinot.VERSION)
    jars("YARN", yarn.VERSION)
