"""Stores over TLS: with the authority named rows arrive; without, the server is not trusted, and waiting is no help."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fabric_beam import Read, WriteTo
from fabric_beam.errors import InputError, OutputError
from fabric_beam.testing import read_all, run
from fabric_beam.testing.servers.cassandra import CassandraServer
from fabric_beam.testing.servers.mongodb import MongoServer
from fabric_beam.testing.servers.pinot import PinotServer
from fabric_beam.testing.servers.redis import RedisServer
from tests.integration.store_suite import events, write

ROWS = events(2000)


@pytest.fixture(scope="module")
def cassandra_tls(certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A node that speaks TLS, and without it to those that do not."""
    pytest.importorskip("cassandra")
    store = tmp_path_factory.mktemp("tls") / "store.p12"
    command = ["openssl", "pkcs12", "-export", "-in", str(certificate[0]), "-inkey", str(certificate[1])]
    subprocess.run([*command, "-passout", "pass:secret", "-out", str(store)], check=True, capture_output=True)
    keys = {"keystore": str(store), "keystore_password": "secret", "store_type": "PKCS12"}
    encryption = {"enabled": True, "optional": True, "protocol": "TLS", **keys}
    with CassandraServer(settings={"client_encryption_options": encryption}) as server:
        yield server


def test_cassandra(cassandra_tls: CassandraServer, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    """Rows are written and read back."""
    url = cassandra_tls.url("tls/events?tls=true")
    named = f"{url}&ssl_ca_certs={certificate[0]}"
    run(ROWS, WriteTo(f"{named}&replication=1"))
    assert read_all(Read(named)).select(ROWS.columns).sort("offset").equals(ROWS)
    with pytest.raises(OutputError, match="CERTIFICATE_VERIFY_FAILED"):
        write(ROWS, f"jsonl:{tmp_path}", url)
    with pytest.raises(InputError, match="CERTIFICATE_VERIFY_FAILED"):
        read_all(Read(url))


def test_redis(redis_server: RedisServer, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    """Rows are written and read back."""
    with _behind_tls(redis_server.port, certificate) as address:
        url = f"rediss://{address}/9?prefix=tls"
        named = f"{url}&ssl_ca_certs={certificate[0]}"
        run(ROWS, WriteTo(named))
        assert read_all(Read(named)).height == ROWS.height
        with pytest.raises(OutputError, match="CERTIFICATE_VERIFY_FAILED"):
            write(ROWS, f"jsonl:{tmp_path}", url)


def test_mongodb(mongodb: MongoServer, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    """Rows are written and read back."""
    with _behind_tls(mongodb.port, certificate) as address:
        url = f"mongodb://{address}/tls/events?directConnection=true&tls=true&call_timeout=5"
        named = f"{url}&tlsCAFile={certificate[0]}"
        run(ROWS, WriteTo(named))
        assert read_all(Read(named)).height == ROWS.height
        with pytest.raises(OutputError, match="CERTIFICATE_VERIFY_FAILED"):
            write(ROWS, f"jsonl:{tmp_path}", url)


def test_pinot(
    pinot: PinotServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The controller takes a segment; its authority is named as for every client of requests."""
    with _behind_tls(pinot.port, certificate) as address:
        url = f"pinot://admin:secret@{address}/tls?https=true"
        with pytest.raises(OutputError, match="CERTIFICATE_VERIFY_FAILED"):
            write(ROWS, f"jsonl:{tmp_path}", url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
        counters = write(ROWS, f"jsonl:{tmp_path}", url)
        assert [n for name, n in counters.items() if name.startswith("written:") and n] == [ROWS.height]


@contextlib.contextmanager
def _behind_tls(port: int, certificate: tuple[Path, Path]) -> Iterator[str]:
    """The address where TLS is taken off every connection, which is passed on to a server that has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_terminate, args=(listener, context, port), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def _terminate(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    while True:
        try:
            secured = context.wrap_socket(listener.accept()[0], server_side=True)
        except ssl.SSLError:
            continue
        except OSError:
            return
        plain = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=pump, args=(secured, plain), daemon=True).start()
        threading.Thread(target=pump, args=(plain, secured), daemon=True).start()
