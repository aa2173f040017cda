"""One promotion, from the folder of a candidate to a signed verdict and, where it passed, the new pointer."""

from __future__ import annotations

from pathlib import Path

from llmchain_fl.core.secure.identity import Identity
from llmchain_fl.hub.door import verified
from llmchain_fl.hub.layout import GATE
from llmchain_fl.hub.recompute import check_card
from llmchain_fl.hub.strict_json import parse_object
from llmchain_fl.hub.trust import Trust
from llmchain_fl.promote.asking import asked, probe_rows
from llmchain_fl.promote.gate import Verdict, compared, promised, related
from llmchain_fl.promote.line import MOST, Line
from llmchain_fl.promote.policy import Policy


def promote(folder: Path, line: Line, policy: Policy, trust: Trust, identity: Identity, base: str = "") -> Verdict:
    """Compare a candidate with what is served, sign what came out, and serve it where it passed.

    ==================================================  =============================================================
    case                                                then
    ==================================================  =============================================================
    nothing is served yet                               compared with the base model alone
    the candidate is what is served                     compared with itself; lineage fails
    its card cannot be computed anew, signature, ...    HubError, no verdict
    a check fails                                       the verdict says so, the pointer stays
    ==================================================  =============================================================

    Args:
        folder: of the candidate, as ``hub pull`` left it.
        line: that it is to join.
        policy: probes and bounds.
        trust: of this machine.
        identity: signs the verdict.
        base: the base model's folder; "" as published.

    Raises:
        HubError: the candidate or what is served does not pass the door.
        DataError: a probe cannot be read.
    """
    candidate = verified(folder, trust)
    check_card(candidate)
    address = line.current
    current = line.adapter(address, trust) if address else None
    work = candidate.work_on(base)
    sets = probe_rows(policy, work)
    before = asked(current.work_on(base) if current else work, current, sets, policy)
    after = asked(work, candidate, sets, policy)
    gate = parse_object(candidate.files[GATE], GATE, MOST * 4) if GATE in candidate.files else {}
    checks = (
        *compared(after, before, policy),
        *promised(candidate.card, gate, policy),
        *related(candidate.manifest, current.manifest if current else None),
    )
    verdict = Verdict(candidate.address, address, checks)
    line.decide(candidate, verdict, identity, trust)
    return verdict
