"""This site's keys, and those of the others.

====================================================  =============================================================
found                                                 line
====================================================  =============================================================
both keys, with the public halves of the kit          ok
a key that is not there, or damaged                   refusal
another key than the coordinator has entered          refusal
peers listed                                          ok: the line to compare by telephone
... of other names or keys than the kit knows         warning: either the site file or the kit is older
====================================================  =============================================================
"""

from __future__ import annotations

from llmchain_fl.onprem.keys import fingerprint, read_keys
from llmchain_fl.onprem.site_check.subject import Subject
from llmchain_fl.planning.findings import Findings


def check_keys(subject: Subject, findings: Findings) -> None:
    """See the table of the module."""
    kit, site = subject.kit, subject.site
    if kit is None:
        return
    if kit.name != site.name:
        findings.fault("keys", f"the kit is of {kit.name}, the site file of {site.name}", "unpack the right kit")
    own = findings.attempt("keys", read_keys, subject.folder, site.name)
    if own is None:
        return
    if (own.node_key, own.identity) != (kit.node_key, kit.identity):
        findings.fault(
            "keys",
            "the keys here are not those that the coordinator has entered for this site",
            "put back the keys of the request, or send a new one (llmchain-fl site request) and get a new kit",
        )
    else:
        findings.fact("keys", "node key and identity are those that the coordinator has entered")
    if not site.secure.peers:
        return
    line = fingerprint({**site.secure.peers, site.name: own.identity})
    count = len(site.secure.peers) + 1
    if line != kit.fingerprint:
        findings.warn(
            "keys",
            f"the site file lists other peers than the kit was made for ({count} sites: {line})",
            "take the [secure.peers] of the newest kit, or ask the other sites by telephone",
        )
    else:
        findings.fact("keys", f"{count} sites; compare by telephone, not through the coordinator: {line}")
