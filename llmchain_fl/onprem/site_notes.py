"""Lines of a site's audit log that no message's answer writes: its executor began, ended, or turned a message away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmchain_fl.cli.apps import tool
from llmchain_fl.core.audit import Ledger, by_whom

if TYPE_CHECKING:
    from flwr.app import Message


def declined(site: Any, message: Message | None, decision: str, bundle: str) -> None:
    """Enter that a message (None: one that cannot be read) was turned away by the site's executor, and why.

    Raises:
        PrivacyError: the disk failed, or the end of the log cannot be trusted.
    """
    from llmchain_fl.core.fingerprint import fingerprint, place_of  # Flower's, whose version is checked first

    readable = message is not None and message.has_content()
    place = {"kind": "", "run": "", "round": 0} if message is None else place_of(message)
    task = fingerprint(message.content).sha256 if message is not None and readable else ""
    fields = {**place, "task": task, "decision": decision, "bundle": bundle}
    site.audit.enter("declined", site.policy, lambda last: _standing(site, last), **fields)


def note(site: Any, kind: str, **values: str) -> None:
    """Enter that somebody at this site has ``started``, ``stopped`` or ``approved`` something (``core/audit.py``).

    Raises:
        PrivacyError: the disk failed, or the end of the log cannot be trusted.
    """
    site.audit.enter(kind, site.policy, lambda last: _standing(site, last), by=by_whom(), **values)


def _standing(site: Any, last: Ledger | None) -> Ledger | None:
    stands: Ledger | None = tool("client.audit").standing(site, last)
    return stands
