"""Whether a coordinator can be reached, and in words why not: address, plain or TLS, certificate, clock.

Flower says none of this: without TLS it retries for ever against a server with TLS, and a clock that is wrong ends the
SuperNode with exit code 0.

==============================================================  =================================================
the coordinator                                                 words
==============================================================  =================================================
answers, clocks agree                                           ""
the name is unknown, nobody listens, no answer in time          said so
speaks TLS, the site does not                                   give --root-certificates, not --insecure
speaks no TLS, the site does                                    it was started with --insecure
the connection is closed within the handshake of TLS            said so
its certificate is expired, of another name, of another CA      said so, with the remedy
clocks differ by more than Flower takes (5 s fast, 5 min slow)  the difference, in seconds
==============================================================  =================================================
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

TIMEOUT = 5.0
FAST, SLOW = 5.0, 300.0
"""Seconds by which this machine's clock may be before or behind the coordinator's; Flower's own bounds."""
CERTIFICATE = {
    10: "its certificate has expired, or this machine's clock is wrong\n  -> renew it, or set the clock",
    9: "its certificate is not valid yet, or this machine's clock is wrong\n  -> set the clock",
    62: "its certificate is for another name\n  -> use the name that stands in the certificate as --superlink",
    64: "its certificate is for another address\n  -> use the name that stands in the certificate as --superlink",
}
"""OpenSSL's numbers of what is wrong with a certificate."""
OTHER_CA = (
    "its certificate was not signed by this CA\n  -> give the CA file of this federation as --root-certificates; where "
    "you have it, somebody else answers at this address"
)


def unreachable(
    address: str, root_certificates: Path | None, insecure: bool, now: Callable[[], float] = time.time
) -> str:
    """Why a SuperNode could not connect to ``address`` now, with the remedy; "" if it could."""
    try:
        verify = _verify(root_certificates)
        scheme = "http" if insecure else "https"
        with httpx.Client(verify=verify, timeout=TIMEOUT) as client:
            answer = client.get(f"{scheme}://{address}/health")
    except (OSError, httpx.HTTPError, ssl.SSLError, ValueError, httpx.InvalidURL) as fault:
        return f"the coordinator {address} cannot be reached: {_words(address, insecure, fault)}"
    return _clock(answer.headers.get("date", ""), now())


def _verify(root_certificates: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=None if root_certificates is None else str(root_certificates))


def _words(address: str, insecure: bool, fault: BaseException) -> str:
    causes = list(_causes(fault))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CERTIFICATE.get(cause.verify_code, OTHER_CA)
        if isinstance(cause, socket.gaierror):
            return "its name is unknown here\n  -> check --superlink and this machine's name service"
        if isinstance(cause, ConnectionRefusedError):
            return "nobody listens there\n  -> wait until the coordinator is up, or check the port"
    if any(isinstance(cause, httpx.TimeoutException | TimeoutError) for cause in causes):
        return f"no answer within {TIMEOUT:g} s\n  -> check the network and the firewalls between"
    if any(isinstance(cause, ssl.SSLEOFError) for cause in causes):
        return (
            "the connection was closed within the handshake\n  -> the coordinator is just starting or ending, or a "
            "proxy or a firewall between closes it"
        )
    if insecure and _speaks_tls(address):
        return "it speaks TLS and this site does not\n  -> give --root-certificates FILE in place of --insecure"
    if not insecure and any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "it does not speak TLS\n  -> the coordinator was started with --insecure: send it no records' updates"
    return f"{type(fault).__name__}\n  -> check --superlink HOST:PORT"


def _causes(fault: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while fault is not None and fault not in found:
        found.append(fault)
        fault = fault.__cause__ or fault.__context__
    return found


def _speaks_tls(address: str) -> bool:
    """Whether a handshake succeeds; nothing is sent over it, so nobody needs to be trusted."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host.strip("[]"), int(port)), TIMEOUT) as plain, context.wrap_socket(plain):
            return True
    except (OSError, ValueError):
        return False


def _clock(date: str, now: float) -> str:
    try:
        ahead = now - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return ""
    if -SLOW <= ahead <= FAST + 1:  # the coordinator's date has no fractions of a second
        return ""
    way = "fast" if ahead > 0 else "slow"
    return (
        f"this machine's clock is {abs(ahead):.0f} s {way} against the coordinator's; Flower takes {FAST:g} s fast and "
        f"{SLOW:g} s slow\n  -> set the clock (an NTP service), here or there"
    )
