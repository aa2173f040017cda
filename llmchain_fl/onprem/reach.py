"""What this machine sees of a coordinator: address, plain or TLS, certificate, clock; and in words what is wrong.

Flower says none of this: without TLS it retries for ever against a server with TLS, and a clock that is wrong ends the
SuperNode with exit code 0. Asked as Flower asks (httpx, through a proxy that the environment names): an empty ``HEAD
/health``, nothing of the site.

==============================================================  =================================================
the coordinator                                                 words
==============================================================  =================================================
answers                                                         "": when its certificate ends, how clocks differ
the name is unknown, nobody listens, no answer in time          said so
is behind a proxy, which answers alone                          said so
speaks TLS, the site does not                                   give --root-certificates, not --insecure
speaks no TLS, the site does                                    it was started with --insecure
the connection is closed within the handshake of TLS            said so
its certificate is expired, not begun, of another name or CA    said so, with the remedy
clocks differ by more than Flower takes (5 s fast, 5 min slow)  the difference, in seconds (:func:`unreachable`)
==============================================================  =================================================
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

TIMEOUT = 5.0
FAST, SLOW = 6.0, 300.0
"""Seconds by which this machine's clock may not be before or behind the coordinator's: Flower takes 5 s and 305 s, and
a date has no fractions of a second."""
GATEWAY = (502, 503, 504)
"""What a proxy answers whose coordinator is not there."""
Told = tuple[str, str]
"""What is wrong, what to do."""
NAME = "reach it by the name that stands in the certificate (--superlink, kit.toml)"
CERTIFICATE: dict[int, Told] = {
    10: ("its certificate has expired, or this machine's clock is wrong", "have it renewed, or set the clock"),
    9: ("its certificate is not valid yet, or this machine's clock is wrong", "set the clock"),
    62: ("its certificate is for another name", NAME),
    64: ("its certificate is for another address", NAME),
}
"""OpenSSL's numbers of what is wrong with a certificate."""
OTHER_CA = (
    "its certificate was not signed by this CA",
    "give the CA file of this federation (--root-certificates, the kit's ca.crt); where you have it, somebody else "
    "answers at this address",
)


@dataclass(frozen=True)
class Seen:
    """Of one question.

    Attributes:
        ends: when its certificate ends; None without TLS.
        offset: seconds that this clock is ahead of its; None where it did not say.
        fault, remedy: why it cannot be reached, and what to do; "" where it can.
    """

    ends: datetime | None = None
    offset: float | None = None
    fault: str = ""
    remedy: str = ""


def look(
    address: str,
    root_certificates: Path | None,
    *,
    insecure: bool = False,
    seconds: float = TIMEOUT,
    now: Callable[[], float] = time.time,
) -> Seen:
    """Ask HOST:PORT. Never raises for what the other side does."""
    try:
        verify = ssl.create_default_context(cafile=None if root_certificates is None else str(root_certificates))
        url = f"{'http' if insecure else 'https'}://{address}/health"
        with httpx.Client(verify=verify, timeout=seconds) as client, client.stream("HEAD", url) as answer:
            if answer.status_code in GATEWAY:
                return Seen(
                    fault="a proxy answers, and the coordinator behind it does not", remedy="ask whether it is up"
                )
            secured = answer.extensions["network_stream"].get_extra_info("ssl_object")
            return Seen(_end(secured), _ahead(answer.headers.get("date", ""), now()))
    except (OSError, httpx.HTTPError, ssl.SSLError, ValueError, httpx.InvalidURL) as fault:
        return Seen(None, None, *_words(address, insecure, seconds, fault))


def unreachable(
    address: str, root_certificates: Path | None, insecure: bool, now: Callable[[], float] = time.time
) -> str:
    """Why a SuperNode could not connect to ``address`` now, with the remedy; "" if it could."""
    seen = look(address, root_certificates, insecure=insecure, now=now)
    if seen.fault:
        return f"the coordinator {address} cannot be reached: {seen.fault}\n  -> {seen.remedy}"
    if seen.offset is None or -SLOW <= seen.offset <= FAST:
        return ""
    return (
        f"this machine's clock is {abs(seen.offset):.0f} s {'fast' if seen.offset > 0 else 'slow'} against the "
        "coordinator's; Flower takes 5 s fast and 300 s slow\n  -> set the clock (an NTP service), here or there"
    )


def _words(address: str, insecure: bool, seconds: float, fault: BaseException) -> Told:
    causes = list(_causes(fault))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CERTIFICATE.get(cause.verify_code, OTHER_CA)
        if isinstance(cause, socket.gaierror):
            return "its name is unknown here", "check the address and this machine's name service"
        if isinstance(cause, ConnectionRefusedError):
            return "nobody listens there", "wait until the coordinator is up, or check the port"
    if any(isinstance(cause, httpx.TimeoutException | TimeoutError) for cause in causes):
        return f"no answer within {seconds:g} s", "check the network and the firewalls between"
    if any(isinstance(cause, ssl.SSLEOFError) for cause in causes):
        return (
            "the connection was closed within the handshake",
            "the coordinator is just starting or ending, or a proxy or a firewall between closes it",
        )
    if insecure and _speaks_tls(address):
        return "it speaks TLS and this site does not", "give --root-certificates FILE in place of --insecure"
    if not insecure and any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "it does not speak TLS", "the coordinator was started with --insecure: send it no records' updates"
    return type(fault).__name__, "check the network, and the address HOST:PORT"


def _causes(fault: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while fault is not None and fault not in causes:
        causes.append(fault)
        fault = fault.__cause__ or fault.__context__
    return causes


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


def _end(secured: ssl.SSLObject | None) -> datetime | None:
    end = None if secured is None else (secured.getpeercert() or {}).get("notAfter")
    return None if end is None else datetime.fromtimestamp(ssl.cert_time_to_seconds(str(end)), UTC)


def _ahead(date: str, now: float) -> float | None:
    try:
        return now - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None
