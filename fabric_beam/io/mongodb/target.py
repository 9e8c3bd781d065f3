"""What a `mongodb:` URL names: hosts, a database and a collection, and what the client is to know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlencode

from fabric_beam.endpoints import Endpoint, filled
from fabric_beam.errors import UsageError

if TYPE_CHECKING:
    from pymongo import MongoClient

#: Options of a connection string that the client takes.
#: Source: https://www.mongodb.com/docs/manual/reference/connection-string-options/
# fmt: off
CLIENT_OPTIONS = (
    "appName", "authMechanism", "authMechanismProperties", "authSource", "compressors", "connectTimeoutMS",
    "directConnection", "heartbeatFrequencyMS", "journal", "loadBalanced", "localThresholdMS", "maxConnecting",
    "maxIdleTimeMS", "maxPoolSize", "maxStalenessSeconds", "minPoolSize", "readConcernLevel", "readPreference",
    "readPreferenceTags", "replicaSet", "retryWrites", "serverMonitoringMode", "serverSelectionTimeoutMS",
    "socketTimeoutMS", "srvMaxHosts", "srvServiceName", "ssl", "timeoutMS", "tls", "tlsAllowInvalidCertificates",
    "tlsAllowInvalidHostnames", "tlsCAFile", "tlsCertificateKeyFile", "tlsCRLFile", "tlsDisableOCSPEndpointCheck",
    "tlsInsecure", "w", "waitQueueTimeoutMS", "wTimeoutMS", "zlibCompressionLevel",
)
# fmt: on
#: Error codes of servers that are starting, stopping, changing their primary, slow, locked or full.
#: Source: the drivers' retryable writes specification; https://www.mongodb.com/docs/manual/reference/error-codes/
PASSING = {
    *(6, 7, 24, 46, 50, 63, 64, 89, 91, 112, 134, 146, 189, 202, 262, 317, 358, 462, 9001, 10058, 10107),
    *(11600, 11601, 11602, 13388, 13435, 13436, 14031),
}
#: Source: https://www.mongodb.com/docs/manual/reference/limits/#naming-restrictions
_DATABASE = re.compile(r'[^/\\. "$*<>:|?\0]{1,63}')
_COLLECTION = re.compile(r"(?!system\.)(?!\.)(?!.*\.\.)[^$\0]{1,190}(?<!\.)")


@dataclass(frozen=True)
class Target:
    """A collection, and how it is reached.

    Args:
        endpoint: the URL.
        database: the database's name.
        collection: the collection's name.
        options: the client's own, by the names that it gives them; secrets are still `${NAME}`.
    """

    endpoint: Endpoint
    database: str
    collection: str
    options: dict[str, str]

    @classmethod
    def parse(cls, endpoint: Endpoint) -> Self:
        """Take the client's options out of an endpoint, and check all that can be checked without connecting.

        Raises:
            UsageError: if the client would not take it.
        """
        names = {name.lower(): name for name in CLIENT_OPTIONS}
        given = [name for name in endpoint.options if name.lower() in names]
        options = {names[name.lower()]: endpoint.options.pop(name) for name in given}
        authority, _, path = _rest(endpoint).partition("/")
        database, _, collection = (unquote(part) for part in path.partition("/"))
        hosts = authority.rpartition("@")[2]
        if not hosts or not _DATABASE.fullmatch(database) or not _COLLECTION.fullmatch(collection):
            raise UsageError(
                f"{endpoint.url} does not name a host, a database and a collection as MongoDB takes them: "
                f"{endpoint.scheme}://user:${{PASSWORD}}@host:27017/logs/events"
            )
        if options.get("w") == "0":
            raise UsageError(
                f"{endpoint.url}: with w=0 nobody knows what was written. Leave it out, or say w=majority."
            )
        target = cls(endpoint, database, collection, options)
        target._check()
        return target

    def uri(self, options: dict[str, Any]) -> str:
        """The client's connection string, secrets filled in; as in any such string, users are of the database that it
        names unless `authSource` says otherwise."""
        authority = _rest(self.endpoint).partition("/")[0]
        return f"{self.endpoint.scheme}://{authority}/{self.database}?{urlencode(options | self._filled())}"

    def client(self, timeout: float, options: dict[str, str] | None = None) -> MongoClient[dict[str, Any]]:
        """A client whose every call may take so many seconds; options in the URL go before those given here."""
        from pymongo import MongoClient

        milliseconds = int(timeout * 1000)
        limits = dict.fromkeys(("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"), milliseconds)
        return MongoClient(self.uri({**limits, **(options or {}), "appName": "fabric-beam"}))

    def _filled(self) -> dict[str, str]:
        return {name: filled(text, self.endpoint.url) for name, text in self.options.items()}

    def _check(self) -> None:
        from pymongo.errors import PyMongoError
        from pymongo.uri_parser import parse_uri, split_options

        try:
            if self.options:
                split_options(urlencode(self._filled()), validate=True, warn=False)
            if self.endpoint.scheme == "mongodb":
                # The hosts behind mongodb+srv stand in the DNS.
                parse_uri(self.uri({}), warn=False)
        except (PyMongoError, ValueError, OSError) as error:
            raise UsageError(self.endpoint.clean(f"{self.endpoint.url}: {error}")) from None


def transient(error: Exception) -> bool:
    """Whether a client's error may pass: the server is down, slow, locked, full or changing its primary."""
    from pymongo.errors import ConnectionFailure, OperationFailure

    if isinstance(error, OperationFailure):
        return error.code in PASSING or error.has_error_label("RetryableWriteError")
    return isinstance(error, ConnectionFailure)


def _rest(endpoint: Endpoint) -> str:
    return endpoint.target.partition(":")[2].removeprefix("//")
