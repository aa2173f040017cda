"""The authority and the server's certificate, verified by ``ssl`` and by OpenSSL's own program."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.onprem.certificates import (
    Signed,
    days_left,
    ending,
    hosts_of,
    make_authority,
    make_server,
    read_certificate,
    read_signed,
    utc_now,
)

DAY = timedelta(days=1)
HOSTS = ["localhost", "127.0.0.1", "fl.example.org", "2001:db8::1"]


def written(folder: Path, name: str, signed: Signed) -> tuple[Path, Path]:
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    key.write_bytes(signed.key_pem)
    certificate.write_bytes(signed.pem)
    return key, certificate


@contextmanager
def serving(folder: Path, server: Signed) -> Iterator[int]:
    """A TLS server of one thread on this machine: its port."""
    key, certificate = written(folder, "server", server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listening.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(plain, server_side=True).close()
                except OSError:
                    plain.close()

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]


def shake(port: int, authority: Path, host: str) -> None:
    context = ssl.create_default_context(cafile=str(authority))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host),
    ):
        pass


@pytest.fixture(scope="module")
def authority() -> Signed:
    return make_authority("lab", utc_now())


@pytest.mark.parametrize("host", HOSTS)
def test_a_client_that_trusts_the_authority_alone_takes_every_name_of_the_server(
    host: str, authority: Signed, tmp_path: Path
) -> None:
    _, trusted = written(tmp_path, "ca", authority)
    with serving(tmp_path, make_server(authority, HOSTS, utc_now(), 30)) as port:
        shake(port, trusted, host)


@pytest.mark.parametrize(
    ("host", "made", "words"),
    [
        ("other.example.org", utc_now(), "Hostname mismatch"),
        ("localhost", utc_now() - 31 * DAY, "expired"),
        ("localhost", utc_now() + 2 * DAY, "not yet valid"),
    ],
)
def test_another_name_a_past_one_and_one_of_tomorrow_are_refused(
    host: str, made: datetime, words: str, authority: Signed, tmp_path: Path
) -> None:
    _, trusted = written(tmp_path, "ca", authority)
    with (
        serving(tmp_path, make_server(authority, HOSTS, made, 30)) as port,
        pytest.raises(ssl.SSLCertVerificationError, match=words),
    ):
        shake(port, trusted, host)


def test_another_federations_authority_of_the_same_name_is_refused(authority: Signed, tmp_path: Path) -> None:
    _, trusted = written(tmp_path, "ca", make_authority("lab", utc_now()))
    with (
        serving(tmp_path, make_server(authority, HOSTS, utc_now(), 30)) as port,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        shake(port, trusted, "localhost")


@pytest.mark.parametrize(("trusted_is_new", "signer_is_new"), [(True, False), (False, True), (True, True)])
def test_a_renewed_authority_and_the_one_before_are_trusted_for_each_other(
    trusted_is_new: bool, signer_is_new: bool, authority: Signed, tmp_path: Path
) -> None:
    renewed = make_authority("lab", utc_now() + timedelta(minutes=30), 5000, authority.key)
    _, trusted = written(tmp_path, "ca", renewed if trusted_is_new else authority)
    signer = renewed if signer_is_new else authority
    with serving(tmp_path, make_server(signer, HOSTS, utc_now(), 30)) as port:
        shake(port, trusted, "localhost")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_itself_verifies_it_strictly_and_the_authority_signs_no_other_authority(
    authority: Signed, tmp_path: Path
) -> None:
    _, trusted = written(tmp_path, "ca", authority)
    _, server = written(tmp_path, "server", make_server(authority, HOSTS, utc_now(), 30))
    verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(trusted), str(server)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        ["openssl", "x509", "-in", str(trusted), "-noout", "-text"], capture_output=True, text=True, check=True
    ).stdout
    assert "CA:TRUE, pathlen:0" in shown
    assert "Certificate Sign, CRL Sign" in shown


def test_no_certificate_outlives_its_authority(authority: Signed) -> None:
    short = make_authority("lab", utc_now(), 10)
    with pytest.raises(ConfigError, match=r"30 days for the server's certificate, and the authority ends in 10"):
        make_server(short, HOSTS, utc_now(), 30)


def test_what_was_written_is_read_back(authority: Signed, tmp_path: Path) -> None:
    server = make_server(authority, HOSTS, utc_now(), 30)
    assert hosts_of(server.certificate) == HOSTS
    assert read_signed(*written(tmp_path, "ca", authority)).certificate == authority.certificate
    assert days_left(server.certificate.not_valid_after_utc, utc_now() + timedelta(hours=1)) == 29


@pytest.mark.parametrize(("days", "words"), [(60, ""), (90, "ends on"), (101, "is past since")])
def test_the_coordinator_is_told_thirty_days_before_its_certificate_ends(
    days: int, words: str, authority: Signed, tmp_path: Path
) -> None:
    written(tmp_path, "ca", authority)
    written(tmp_path, "server", make_server(authority, HOSTS, utc_now(), 100))
    told = ending(tmp_path, utc_now() + days * DAY)
    assert [words in line for line in told] == [True] * bool(words)


def test_keys_and_certificates_that_do_not_belong_together_are_told(authority: Signed, tmp_path: Path) -> None:
    key, certificate = written(tmp_path, "ca", authority)
    other, _ = written(tmp_path, "other", make_authority("lab", utc_now()))
    with pytest.raises(ConfigError, match="is not the key of"):
        read_signed(other, certificate)
    with pytest.raises(ConfigError, match="is no private key"):
        read_signed(tmp_path / "gone", certificate)
    with pytest.raises(ConfigError, match="is no certificate"):
        read_certificate(key)
