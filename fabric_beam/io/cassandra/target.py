"""What a `cassandra:` URL names: nodes, a keyspace and a table, and how they are reached."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

from fabric_beam.endpoints import Endpoint
from fabric_beam.errors import MissingExtraError, UsageError, nearest
from fabric_beam.option_kinds import boolean

if TYPE_CHECKING:
    from cassandra.cluster import Cluster, Session

_PORT = 9042
_NAME = re.compile(r"\w{1,48}", re.ASCII)
_CONSISTENCIES = ("ANY", "ONE", "TWO", "THREE", "QUORUM", "ALL", "LOCAL_QUORUM", "EACH_QUORUM", "LOCAL_ONE")
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
OPTIONS = ("consistency", "datacenter", "tls", *_TLS)
#: Seconds between trials of a node that went away, and after which an idle connection is asked whether it lives.
_RECONNECT, _HEARTBEAT = 1.0, 10.0


@dataclass(frozen=True)
class Target:
    """A table, and how it is reached.

    Args:
        endpoint: the URL.
        nodes: hosts and ports of some of the cluster's nodes; the client finds the others.
        keyspace: the keyspace's name.
        table: the table's name.
        consistency: how many replicas must have answered.
        datacenter: the nearest one; empty for that of the first node.
        tls: files for TLS by the names of their options; None for a connection without.
    """

    endpoint: Endpoint
    nodes: list[tuple[str, int]]
    keyspace: str
    table: str
    consistency: str
    datacenter: str
    tls: dict[str, str] | None

    @classmethod
    def parse(cls, endpoint: Endpoint, consistency: str) -> Self:
        """Take the client's options out of an endpoint.

        Args:
            endpoint: the URL.
            consistency: where it does not say.

        Raises:
            UsageError: something is missing or wrong in it.
            MissingExtraError: the client is not installed.
        """
        try:
            import cassandra  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(f"{endpoint.scheme}:", "cassandra") from error
        authority, _, path = _rest(endpoint).partition("/")
        nodes = [_node(text) for text in authority.rpartition("@")[2].split(",")]
        names = [unquote(part) for part in path.split("/")]
        if None in nodes or len(names) != 2 or not all(_NAME.fullmatch(name) for name in names):
            raise UsageError(
                f"{endpoint.url} is not {endpoint.scheme}://user:${{PASSWORD}}@host:{_PORT}/keyspace/table (names have "
                "letters, digits and _, at most 48; further hosts follow the first with a comma)."
            )
        wanted = endpoint.option("consistency", str, consistency).upper()
        if wanted not in _CONSISTENCIES:
            raise UsageError(f"{endpoint.url}: there is no consistency={wanted}. {nearest(wanted, _CONSISTENCIES)}")
        files = {name: path for name in _TLS if (path := endpoint.option(name, str, ""))}
        tls = files if endpoint.option("tls", boolean, bool(files)) else None
        if tls is None and files:
            raise UsageError(f"{endpoint.url}: {next(iter(files))} is for TLS, and tls=false says that there is none.")
        datacenter = endpoint.option("datacenter", str, "")
        keyspace, table = names
        return cls(endpoint, [node for node in nodes if node], keyspace, table, wanted, datacenter, tls)

    def session(self, timeout: float) -> tuple[Cluster, Session]:
        """A client that is connected, and its session.

        Args:
            timeout: seconds that any call may take.

        Raises:
            Exception: whatever the client raises; nothing is left open then.
        """
        cluster = self._cluster(timeout)
        try:
            return cluster, cluster.connect()
        except BaseException:
            cluster.shutdown()
            raise

    def _cluster(self, timeout: float) -> Cluster:
        from cassandra import ConsistencyLevel
        from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
        from cassandra.connection import DefaultEndPoint
        from cassandra.policies import (
            ConstantReconnectionPolicy,
            DCAwareRoundRobinPolicy,
            FallthroughRetryPolicy,
            TokenAwarePolicy,
        )
        from cassandra.query import tuple_factory

        profile = ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(self.datacenter)),
            # Whoever calls tries again.
            retry_policy=FallthroughRetryPolicy(),
            consistency_level=ConsistencyLevel.name_to_value[self.consistency],
            request_timeout=timeout,
            row_factory=tuple_factory,
        )
        return Cluster(
            [DefaultEndPoint(host, port) for host, port in self.nodes],
            port=self.nodes[0][1],
            auth_provider=self._account(),
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            # The newest one whose frames are not cut up and summed in Python; every server since 2.2 speaks it.
            protocol_version=4,
            connect_timeout=timeout,
            control_connection_timeout=timeout,
            idle_heartbeat_interval=_HEARTBEAT,
            idle_heartbeat_timeout=timeout,
            reconnection_policy=ConstantReconnectionPolicy(_RECONNECT, max_attempts=None),
            ssl_context=self._context(),
            ssl_options=None,
            application_name="fabric-beam",
        )

    def _account(self) -> Any:
        from cassandra.auth import PlainTextAuthProvider

        user, colon, password = _rest(self.endpoint).partition("/")[0].rpartition("@")[0].partition(":")
        return PlainTextAuthProvider(unquote(user), unquote(password)) if user or colon else None

    def _context(self) -> ssl.SSLContext | None:
        if self.tls is None:
            return None
        context = ssl.create_default_context(cafile=self.tls.get("ssl_ca_certs"))
        if "ssl_certfile" in self.tls:
            context.load_cert_chain(self.tls["ssl_certfile"], self.tls.get("ssl_keyfile"))
        return context


def transient(error: BaseException) -> bool:
    """Whether an error of the client may pass: nodes are down, slow, or have too much to do."""
    from cassandra import (
        AuthenticationFailed,
        CoordinationFailure,
        OperationTimedOut,
        Timeout,
        Unauthorized,
        Unavailable,
    )
    from cassandra.cluster import NoHostAvailable
    from cassandra.connection import ConnectionException
    from cassandra.pool import NoConnectionsAvailable
    from cassandra.protocol import (
        IsBootstrappingErrorMessage,
        OverloadedErrorMessage,
        ServerError,
        TruncateError,
    )

    if isinstance(error, NoHostAvailable):
        causes = list(error.errors.values()) if isinstance(error.errors, dict) else []
        return not any(
            isinstance(cause, (AuthenticationFailed, Unauthorized, ssl.SSLCertVerificationError)) for cause in causes
        )
    if isinstance(error, (AuthenticationFailed, Unauthorized)):
        return False
    passing = (
        *(ConnectionException, CoordinationFailure, NoConnectionsAvailable, OperationTimedOut, OSError, Timeout),
        *(Unavailable, IsBootstrappingErrorMessage, OverloadedErrorMessage, ServerError, TruncateError),
    )
    return isinstance(error, passing)


def quoted(name: str) -> str:
    """A name as CQL takes any: in quotation marks."""
    return '"' + name.replace('"', '""') + '"'


def _rest(endpoint: Endpoint) -> str:
    return endpoint.target.partition(":")[2].removeprefix("//")


def _node(text: str) -> tuple[str, int] | None:
    """A host and its port; None if it is not one."""
    found = re.fullmatch(r"(\[[\da-fA-F:.]+\]|[\w.-]+)(?::(\d{1,5}))?", text)
    if not found or not 0 < int(found[2] or _PORT) < 1 << 16:
        return None
    return found[1].strip("[]"), int(found[2] or _PORT)
