"""Whose noise a site's ledger counts, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmchain_fl.core.privacy.events import DISCRETE
from llmchain_fl.report import wording
from llmchain_fl.report.noised import COUNTED

if TYPE_CHECKING:
    from llmchain_fl.privacy.reading import Reading


def counted_in_words(peers: int) -> str:
    """What the ledger counts of noise that sites share, by the policy as it is now."""
    policy = f"(secure.counted_peers = {peers})"
    if not peers:
        return f"of noise that sites share its own share only: epsilon holds whoever is with the server {policy}"
    others = wording.count(peers, "other site")
    return (
        f"of noise that sites share its own share and those of {others}, less those that may drop out: epsilon holds "
        f"against the server together with all sites but {'that one' if peers == 1 else f'those {peers}'} {policy}"
    )


def noise_of(reading: Reading) -> str:
    """Who has added the noise of what stands in a ledger: a value of ``report/noised.py``.

    =======================================================  ===========
    releases                                                 value
    =======================================================  ===========
    unit ``site``, of some the noise was the server's        ``server``
    of some, noise was shared                                ``counted``
    any other                                                ``site``
    =======================================================  ===========
    """
    shared = {charge.event.kind in DISCRETE for line in reading.lines for charge in line.release.charges}
    if reading.terms.unit == "site" and shared != {True}:
        return "server"
    return COUNTED if True in shared else "site"
