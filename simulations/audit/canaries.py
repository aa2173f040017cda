"""Planted people, each in with probability 1/2, trained on for several rounds: can an attacker tell who was there?

The strongest attacker that the guarantee covers: it sees every update, and each canary pushes along a direction that
nobody else touches. If even this one does better than the ledger's own events allow, the claim is false.

Two judges, each on a site of its own. The profile test needs independent scores and then sees most; the one-run bound
holds however the run disturbs the canaries together. It must not be asked what no attacker could show: 160 right
guesses of 160 about 800 canaries refute no epsilon above 3.1, so its site claims less than that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from llmchain_fl.core.privacy.accounting import Spent
from llmchain_fl.privacy.audit.f_dp import one_run
from llmchain_fl.privacy.audit.finding import Finding
from llmchain_fl.privacy.audit.profile import profile
from simulations.audit.effort import Effort
from simulations.audit.practice import PracticeSite, plan_for

RECORDS = 8

PROFILE_NOISE, ONE_RUN_NOISE = 1.0, 4.0
"""Noise multipliers of the two sites. ONE_RUN_NOISE claims epsilon 1.3 after three rounds: without any noise, or with
eight contributions of a person, 800 canaries refute it always; with a quarter of the noise, every other time."""

GUESSES = 0.2
"""Share of the canaries that the one-run audit guesses about; of 1,000 ideal ones 0.1 to 0.3 show most."""


def canaries(folder: Path, effort: Effort) -> list[Finding]:
    """Eight records a person, each of norm 2 C; the score is the model's way along the person's direction."""
    scores, included, spent = _played(folder, "profile", PROFILE_NOISE, effort)
    finding = profile(scores, included, spent.events, spent.delta)
    scores, included, spent = _played(folder, "one-run", ONE_RUN_NOISE, effort)
    return [finding, one_run(scores, included, int(GUESSES * effort.canaries), (spent.events, spent.delta))]


def _played(
    folder: Path, name: str, noise: float, effort: Effort
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], Spent]:
    """(scores, who was in, what the ledger says) of a site of its own."""
    planted = effort.canaries
    included = np.random.default_rng().random(planted) < 0.5
    inside = np.flatnonzero(included)
    rows = np.zeros((len(inside) * RECORDS, planted), dtype=np.float32)
    rows[np.arange(len(rows)), np.repeat(inside, RECORDS)] = 2.0
    owners = [f"person-{i}" for i in inside for _ in range(RECORDS)]
    site = PracticeSite(folder, name, rows, owners, plan_for(0.25, noise, 8), rows=1024)
    adapter = np.zeros(planted)
    for _ in range(effort.canary_rounds):
        adapter = adapter + site.play(adapter).update
    return site.sums(adapter), included, site.ledger.spent()
