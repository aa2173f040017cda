"""The coordinator as this machine sees it: reachable, by TLS, under the kit's authority; certificates; the clock.

What is seen is what ``reach.py`` sees, whose words these are.

======================================================  ==========================================================
seen                                                    line
======================================================  ==========================================================
a handshake under the kit's authority                   ok, with the day on which the certificate ends
it cannot be reached                                    refusal, in the words of ``reach.py``
a certificate, or the authority, that ends in 30 days   warning
the authority is past                                   refusal
this clock 6 s fast or 300 s slow, or more              refusal: the SuperLink turns it away
3 s fast or 60 s slow                                   warning
a proxy in the environment                              warning: Flower goes through it, as this check did
======================================================  ==========================================================
"""

from __future__ import annotations

from datetime import datetime
from urllib.request import getproxies, proxy_bypass

from llmchain_fl.onprem.certificates import WARN_DAYS, days_left, read_certificate
from llmchain_fl.onprem.federation import split
from llmchain_fl.onprem.kit import AUTHORITY
from llmchain_fl.onprem.reach import FAST, SLOW, look
from llmchain_fl.onprem.site_check.subject import Subject
from llmchain_fl.planning.findings import Findings

SECONDS = 10.0
BIT_FAST, BIT_SLOW = 3.0, 60.0
RENEW = "tell the coordinator: llmchain-fl provision renew"


def check_coordinator(subject: Subject, findings: Findings) -> None:
    """See the table of the module."""
    if subject.kit is None:
        return
    file = subject.folder / AUTHORITY
    authority = findings.attempt("certificate", read_certificate, file)
    if authority is None:
        return
    _check_end(findings, "the authority (ca.crt)", authority.not_valid_after_utc, subject.now, "ask for the new ca.crt")
    seen = look(subject.kit.coordinator, file, seconds=SECONDS)
    if seen.fault:
        findings.fault("coordinator", f"{subject.kit.coordinator}: {seen.fault}", seen.remedy)
    else:
        findings.fact("coordinator", f"{subject.kit.coordinator} answers by TLS, under the kit's authority")
    _check_proxy(findings, split(subject.kit.coordinator)[0])
    if seen.ends is not None:
        _check_end(findings, "the coordinator's certificate", seen.ends, subject.now, RENEW)
    if seen.offset is not None:
        _check_clock(findings, seen.offset)


def _check_proxy(findings: Findings, host: str) -> None:
    """Flower's client goes through a proxy that the environment names."""
    named = getproxies()
    if ("https" in named or "all" in named) and not proxy_bypass(host):
        findings.warn(
            "coordinator",
            "the environment names a proxy: the site would go through it, as this check did",
            f"set NO_PROXY={host}, or see that the proxy hands TLS through untouched",
        )


def _check_end(findings: Findings, subject: str, end: datetime, now: datetime, remedy: str) -> None:
    left, text = days_left(end, now), f"{subject} ends on {end.date()}"
    if left < 0:
        findings.fault("certificate", f"{subject} is past since {end.date()}", remedy)
    elif left <= WARN_DAYS:
        findings.warn("certificate", f"{text}, in {left} days", remedy)
    else:
        findings.fact("certificate", text)


def _check_clock(findings: Findings, offset: float) -> None:
    text = f"this clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} the coordinator's"
    remedy = "set it by a time server (chrony, systemd-timesyncd): Flower turns away 5 s fast and 305 s slow"
    if offset >= FAST or offset <= -SLOW:
        findings.fault("clock", text, remedy)
    elif offset >= BIT_FAST or offset <= -BIT_SLOW:
        findings.warn("clock", text, remedy)
    else:
        findings.fact("clock", text)
