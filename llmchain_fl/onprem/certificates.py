"""The federation's own certificate authority and the coordinator's certificate: made, renewed, read.

Sites trust the authority alone. It lives for years; the server's certificate for ``days`` and is renewed at the
coordinator without a word to the sites. The authority is renewed with the key and the name that it has: what it signs
is then trusted by sites with the old file and by sites with the new one, so no day comes on which all must change.

=============================================  =======================================================
case                                           outcome
=============================================  =======================================================
a certificate that would outlive its authority  ConfigError: renew the authority first
a file that is no certificate, or gone          ConfigError
the machine's clock is an hour slow             valid: ``not before`` is an hour ago
=============================================  =======================================================
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from llmchain_fl.core.errors import ConfigError

SLACK = timedelta(hours=1)
AUTHORITY_DAYS = 3650
WARN_DAYS = 30
"""Days before its end at which a certificate is warned of."""


@dataclass(frozen=True)
class Signed:
    """A certificate and its private key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        """The private key, PKCS 8."""
        plain = serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def make_authority(
    federation: str, now: datetime, days: int = AUTHORITY_DAYS, key: ec.EllipticCurvePrivateKey | None = None
) -> Signed:
    """An authority that signs servers and no other authority. ``key``: of the one that it renews."""
    key = key or ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{federation} authority"[:64])])
    builder = _builder(name, name, key.public_key(), now, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    return Signed(key, builder.sign(key, hashes.SHA384()))


def make_server(authority: Signed, hosts: Sequence[str], now: datetime, days: int) -> Signed:
    """A certificate of a server that is reached by ``hosts``: names, and addresses as digits.

    Raises:
        ConfigError: it would outlive the authority.
    """
    end = authority.certificate.not_valid_after_utc
    if now + timedelta(days=days) > end:
        left = max(0, (end - now).days)
        raise ConfigError(
            [f"{days} days for the server's certificate, and the authority ends in {left}"],
            remedy="renew the authority first: llmchain-fl provision renew DIR --authority; or lower days",
        )
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    builder = _builder(name, authority.certificate.subject, key.public_key(), now, days)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([_name_of(host) for host in hosts]), critical=False)
    builder = builder.add_extension(issuer, critical=False)
    return Signed(key, builder.sign(authority.key, hashes.SHA384()))


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name_of(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def read_signed(key: Path, certificate: Path) -> Signed:
    """A certificate with its private key, from two files.

    Raises:
        ConfigError: one of them is gone, or is none, or they do not belong together.
    """
    public, private = read_certificate(certificate), read_private(key)
    if private.public_key() != public.public_key():
        raise ConfigError([f"{key} is not the key of {certificate}"], remedy="put back the two that belong together")
    return Signed(private, public)


def read_private(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a file.

    Raises:
        ConfigError: gone, or none.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError([f"{path} is no private key that can be read"], remedy="put it back from where you keep it")
    return key


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in a file.

    Raises:
        ConfigError: gone, or none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise ConfigError([f"{path} is no certificate that can be read"], remedy="put it back from the kit") from None


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The names and addresses that a server's certificate is for."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def days_left(end: datetime, now: datetime) -> int:
    """Whole days until ``end``; negative when it is past."""
    return (end - now) // timedelta(days=1)


def ending(folder: Path, now: datetime) -> list[str]:
    """A sentence for each certificate of the coordinator's kit that ends within ``WARN_DAYS``, or has ended.

    Raises:
        ConfigError: one cannot be read.
    """
    warnings = []
    for name, remedy in (("server.crt", "provision renew"), ("ca.crt", "provision renew --authority")):
        end = read_certificate(folder / name).not_valid_after_utc
        if days_left(end, now) <= WARN_DAYS:
            state = "is past since" if end < now else "ends on"
            warnings.append(f"{folder / name} {state} {end.date()}: llmchain-fl {remedy}")
    return warnings


def utc_now() -> datetime:
    """Now, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
