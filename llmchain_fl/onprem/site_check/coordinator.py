"""The coordinator as this machine sees it: reachable, by TLS, under the kit's authority; certificates; the clock.

An empty ``HEAD /`` is sent, to read the time of the answer; nothing of the site.

======================================================  ==========================================================
seen                                                    line
======================================================  ==========================================================
a handshake under the kit's authority                   ok, with the day on which the certificate ends
no such name; refused; no answer                        refusal, each in its words
no TLS there                                            refusal
another authority; past; not begun; another name        refusal, each in its words
a certificate, or the authority, that ends in 30 days   warning
the authority is past                                   refusal
this clock 6 s fast or 300 s slow, or more              refusal: the SuperLink turns it away
3 s fast or 60 s slow                                   warning
a proxy in the environment                              warning: Flower goes through it, this check does not
======================================================  ==========================================================
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

from llmchain_fl.onprem.certificates import WARN_DAYS, days_left, read_certificate, utc_now
from llmchain_fl.onprem.federation import split
from llmchain_fl.onprem.kit import AUTHORITY
from llmchain_fl.onprem.site_check.subject import Subject
from llmchain_fl.planning.findings import Findings

SECONDS = 10.0
FAST, SLOW, BIT_FAST, BIT_SLOW = 6.0, 300.0, 3.0, 60.0
"""Flower takes signatures up to 5 s of the future and 305 s of the past; what is read here is a second or two high."""
RENEW = "tell the coordinator: llmchain-fl provision renew"
_VERIFY = {
    10: ("the coordinator's certificate is past", RENEW),
    9: ("the coordinator's certificate is not valid yet", "look at this machine's clock"),
    62: ("the coordinator's certificate is for another name", "the address in kit.toml must be one that it is for"),
    64: ("the coordinator's certificate is for another address", "the address in kit.toml must be one that it is for"),
}
"""OpenSSL's number of a fault -> words, remedy."""


@dataclass(frozen=True)
class Seen:
    """Of a handshake."""

    ends: datetime | None = None
    offset: float | None = None
    """Seconds that this clock is ahead of the coordinator's; None: it did not say."""
    fault: str = ""
    remedy: str = ""


def check_coordinator(subject: Subject, found: Findings) -> None:
    """See the table of the module."""
    if subject.kit is None:
        return
    file = subject.folder / AUTHORITY
    authority = found.attempt("certificate", read_certificate, file)
    if authority is None:
        return
    _check_end(found, "the authority (ca.crt)", authority.not_valid_after_utc, subject.now, "ask for the new ca.crt")
    seen = look(subject.kit.coordinator, file)
    if seen.fault:
        found.fault("coordinator", f"{subject.kit.coordinator}: {seen.fault}", seen.remedy)
    else:
        found.fact("coordinator", f"{subject.kit.coordinator} answers by TLS, under the kit's authority")
    _check_proxy(found, split(subject.kit.coordinator)[0])
    if seen.ends is not None:
        _check_end(found, "the coordinator's certificate", seen.ends, subject.now, RENEW)
    if seen.offset is not None:
        _check_clock(found, seen.offset)


def _check_proxy(found: Findings, host: str) -> None:
    """Flower's client goes through a proxy that the environment names; this check does not."""
    named = getproxies()
    if ("https" in named or "all" in named) and not proxy_bypass(host):
        found.warn(
            "coordinator",
            "the environment names a proxy: the site would go through it, and this check went around it",
            f"set NO_PROXY={host}, or see that the proxy hands TLS through untouched",
        )


def _check_end(found: Findings, what: str, end: datetime, now: datetime, remedy: str) -> None:
    left, told = days_left(end, now), f"{what} ends on {end.date()}"
    if left < 0:
        found.fault("certificate", f"{what} is past since {end.date()}", remedy)
    elif left <= WARN_DAYS:
        found.warn("certificate", f"{told}, in {left} days", remedy)
    else:
        found.fact("certificate", told)


def _check_clock(found: Findings, offset: float) -> None:
    told = f"this clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} the coordinator's"
    remedy = "set it by a time server (chrony, systemd-timesyncd): Flower turns away 5 s fast and 305 s slow"
    if offset >= FAST or offset <= -SLOW:
        found.fault("clock", told, remedy)
    elif offset >= BIT_FAST or offset <= -BIT_SLOW:
        found.warn("clock", told, remedy)
    else:
        found.fact("clock", told)


def look(address: str, authority: Path, seconds: float = SECONDS) -> Seen:
    """Shake hands with HOST:PORT under the authority in a file. Never raises for what the other side does."""
    host, port = split(address)
    try:
        context = ssl.create_default_context(cafile=str(authority))
        with (
            socket.create_connection((host, port), timeout=seconds) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            return Seen(_end(secured), _offset(secured, host))
    except ssl.SSLCertVerificationError as error:
        told = ("the coordinator's certificate is not under the kit's authority", "get the kit's ca.crt anew, by hand")
        return Seen(None, None, *_VERIFY.get(error.verify_code, told))
    except ssl.SSLError:
        return Seen(fault="there is no TLS at this address", remedy="the coordinator must start with its certificate")
    except socket.gaierror:
        return Seen(fault="there is no such name", remedy="check the address in kit.toml, and this machine's DNS")
    except ConnectionRefusedError:
        return Seen(fault="nobody listens there", remedy="ask whether the coordinator is up")
    except TimeoutError:
        return Seen(fault=f"no answer in {seconds:.0f} s", remedy="let this machine out to it (firewall)")
    except OSError as error:
        return Seen(fault=f"cannot be reached ({error.strerror or type(error).__name__})", remedy="check the network")


def _end(secured: ssl.SSLSocket) -> datetime:
    told = (secured.getpeercert() or {}).get("notAfter")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(told)), UTC)


def _offset(secured: ssl.SSLSocket, host: str) -> float | None:
    """What the answer's ``Date`` says; None where there is none."""
    answer = b""
    with contextlib.suppress(OSError):
        secured.sendall(f"HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        while b"\r\n\r\n" not in answer and len(answer) < 1 << 14 and (part := secured.recv(4096)):
            answer += part
    for line in answer.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "date":
            with contextlib.suppress(ValueError, TypeError):
                return (utc_now() - parsedate_to_datetime(value.strip())).total_seconds()
    return None
