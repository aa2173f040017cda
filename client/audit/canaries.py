"""Planted people, each in with probability 1/2, trained on for several rounds: can an attacker tell who was there?

The strongest attacker that the guarantee covers: it sees every update, and each canary pushes along a direction that
nobody else touches. If even this one does better than the ledger's own events allow, the claim is false.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from client.audit.effort import Effort
from client.audit.practice import PracticeSite, plan_for
from llmchain_fl.privacy.audit.finding import ALPHA, Finding
from llmchain_fl.privacy.audit.one_run import one_run
from llmchain_fl.privacy.audit.profile import profile

RECORDS = 8
DELTA = 1e-7
"""Small, because the one-run bound says nothing below 2 m delta: it could not be confident enough for a gate."""
GUESSES = 0.5
"""Share of the canaries that the one-run audit guesses about."""


def canaries(folder: Path, effort: Effort) -> list[Finding]:
    """Eight records a person, each of norm 2 C; the score is the model's way along the person's direction."""
    planted = effort.canaries
    included = np.random.default_rng().random(planted) < 0.5
    inside = np.flatnonzero(included)
    rows = np.zeros((len(inside) * RECORDS, planted), dtype=np.float32)
    rows[np.arange(len(rows)), np.repeat(inside, RECORDS)] = 2.0
    owners = [f"person-{i}" for i in inside for _ in range(RECORDS)]
    site = PracticeSite(folder, "canaries", rows, owners, plan_for(0.25, 1.0, 8, delta=DELTA), micro_batch=1024)
    adapter = np.zeros(planted)
    for _ in range(effort.canary_rounds):
        adapter = adapter + site.play(adapter).update
    scores, spent = site.sums(adapter), site.ledger.spent()
    findings = [profile(scores, included, spent.events, spent.delta)]
    if np.isfinite(scores).all():
        guesses = int(GUESSES * planted)
        findings.append(one_run(scores, included, guesses, (spent.epsilon, spent.delta), ALPHA))
    return findings
