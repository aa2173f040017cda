"""Why a coordinator cannot be reached, in words: each row of the table, over sockets of this machine."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llmchain_fl.onprem.reach import unreachable

NOW = 1_800_000_000.0


def write_certificate(folder: Path, address: str = "127.0.0.1", days: int = 1) -> tuple[Path, Path]:
    """One that is its own CA; (certificate, key). ``days``: until it ends, counted from now."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir()
    certificate, private = folder / "server.crt", folder / "server.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*form))
    return certificate, private


@contextmanager
def coordinator(files: tuple[Path, Path] | None = None, ahead: float = 0.0) -> Iterator[str]:
    """Answers ``/health`` as a SuperLink does; ``ahead``: seconds by which its clock is before this one's."""

    class Health(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(200 if self.path == "/health" else 404)
            self.send_header("date", formatdate(NOW + ahead, usegmt=True))
            self.end_headers()

        def log_message(self, format: str, *words: object) -> None:
            """Nothing."""

    class Quiet(HTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Nothing."""

    with Quiet(("127.0.0.1", 0), Health) as server:
        if files is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*files)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("ahead", [0.0, -4.0, 299.0])
def test_a_coordinator_that_answers_with_a_clock_that_agrees_can_be_reached(ahead: float) -> None:
    with coordinator(ahead=ahead) as address:
        assert unreachable(address, None, True, lambda: NOW) == ""


def test_one_with_tls_can_be_reached_with_its_ca(tmp_path: Path) -> None:
    files = write_certificate(tmp_path / "a")
    with coordinator(files) as address:
        assert unreachable(address, files[0], False, lambda: NOW) == ""


@pytest.mark.parametrize(("ahead", "words"), [(-8.0, "8 s fast"), (400.0, "400 s slow")])
def test_a_clock_that_flower_would_turn_away_without_a_word_is_named(ahead: float, words: str) -> None:
    with coordinator(ahead=ahead) as address:
        assert f"this machine's clock is {words}" in unreachable(address, None, True, lambda: NOW)


def test_a_site_without_tls_is_told_that_the_coordinator_has_it(tmp_path: Path) -> None:
    with coordinator(write_certificate(tmp_path / "a")) as address:
        assert "give --root-certificates" in unreachable(address, None, True)


def test_a_site_with_tls_is_told_that_the_coordinator_has_none(tmp_path: Path) -> None:
    certificate, _ = write_certificate(tmp_path / "a")
    with coordinator() as address:
        assert "does not speak TLS" in unreachable(address, certificate, False)


@pytest.mark.parametrize(
    ("other", "address", "days", "words"),
    [
        (False, "127.0.0.1", -1, "has expired"),
        (False, "127.0.0.2", 1, "for another address"),
        (True, "127.0.0.1", 1, "not signed by this CA"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_named(
    tmp_path: Path, other: bool, address: str, days: int, words: str
) -> None:
    files = write_certificate(tmp_path / "a", address, days)
    ca = write_certificate(tmp_path / "b")[0] if other else files[0]
    with coordinator(files) as reached:
        assert words in unreachable(reached, ca, False)


def test_a_port_on_which_nobody_listens_is_named(free: Callable[[], int]) -> None:
    assert "nobody listens there" in unreachable(f"127.0.0.1:{free()}", None, True)


def test_a_name_that_does_not_exist_is_named() -> None:
    assert "its name is unknown here" in unreachable("nowhere.invalid:8000", None, True)


@pytest.fixture
def free() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
