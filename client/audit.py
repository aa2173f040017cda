"""This site's half of the audit log: every message that comes in, and every reply before it leaves.

============================================  ====================================================================
case                                          outcome
============================================  ====================================================================
a reply, a refusal                            its line is on the disk before it may leave
the line cannot be written                    a refusal of one word leaves instead, and the site's own log says why
the site file cannot be read                  the same: without it nobody knows where the log is
a message whose run or round is none          entered without them; its digest tells which it was
the ledger cannot be trusted                  the line says how it stood when it last could be
a private round that broke off before it      what it paid is in the next line
gave a reply
============================================  ====================================================================
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from flwr.app import Message, RecordDict

from client import outbox
from client.site import Site
from llmchain_fl.core.audit import Ledger
from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.core.fingerprint import decision_of, fingerprint, place_of, work_of
from llmchain_fl.core.privacy.store import unit_of

log = logging.getLogger("llmchain_fl.client")


def recorded(site: Site, message: Message, work: Callable[[], RecordDict]) -> RecordDict:
    """What ``work`` lets out in reply to ``message``, entered before it leaves; see the table of the module."""
    task, place = fingerprint(message.content), place_of(message)
    content = work()
    reply = fingerprint(content)
    try:
        site.audit.enter(
            "answered",
            site.policy,
            lambda last: standing(site, last),
            **place,
            task=task.sha256,
            task_bytes=task.size,
            work=work_of(message.content),
            decision=decision_of(content),
            reply=reply.sha256,
            reply_bytes=reply.size,
        )
    except Exception as error:
        log.error("nothing leaves, for it cannot be entered in the audit log: %s", outbox.describe(error))
        return outbox.refuse(LlmchainError("", remedy=""))
    return content


def standing(site: Site, last: Ledger | None) -> Ledger | None:
    """How the site's ledger stands; composed anew only where it, or how it is counted, has changed since ``last``."""
    if not (site.ledger_folder / "events.jsonl").exists():
        return last
    unit, secure = unit_of(site.ledger_folder), site.secure
    terms = {"delta": site.limits.delta, "unit": unit, "accountant": "pld"}
    trust = {"counted_peers": secure.counted_peers if secure.peers else 0, "listed": site.listed}
    same = last is not None and all(last[name] == value for name, value in terms.items())
    try:
        account = site.open_ledger(unit).account(last["head"] if last is not None and same else "")
    except LlmchainError:
        return last
    if account is None:
        return {**(last or {}), **trust}
    epsilon = account.spent.epsilon if math.isfinite(account.spent.epsilon) else None
    profiles = [name for name, _ in account.spent.groups]
    return {"seq": account.seq, "head": account.head, "epsilon": epsilon, "profiles": profiles, **terms, **trust}
