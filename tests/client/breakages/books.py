"""Broken here: what is booked, for whom, and what it comes to.

Each fault is done to the real code; ``test_gate_breakages.py`` tries them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from client import app, outbox, rounds, scores
from client.local import train_round
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy import accounting, entry, register, totals
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.noise import SecureNoise

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_ADDED = SecureNoise.added
REAL_TRAIN = train_round
REAL_CHARGES = outbox.training_charges
REAL_SCORE_CHARGE = scores.score_charge
REAL_RESERVE = FileLedger.reserve
REAL_SEAL = FileLedger.seal
REAL_COMPOSED = accounting._composed


def real(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
    """Good noise alone."""
    return REAL_ADDED(self, torch.zeros_like(values), std)


def everybody(people: Any) -> list[Any]:
    return [np.ones(len(names), dtype=bool) for _, names in people]


def every_other_round_unrecorded(patch: Patch) -> None:
    def odd(key: str) -> bool:
        return int(key.rsplit("/", 1)[1]) % 2 == 1

    def reserve(self: Any, release: Any, people: Any = ()) -> Any:
        return REAL_RESERVE(self, release, people) if odd(release.key) else everybody(people)

    patch.setattr(FileLedger, "reserve", reserve)
    patch.setattr(FileLedger, "seal", lambda self, key, data: REAL_SEAL(self, key, data) if odd(key) else None)


def paid_afterwards(patch: Patch) -> None:
    late: list[Any] = []

    def reserve(self: Any, release: Any, people: Any = ()) -> Any:
        late.append((self, release, people))
        return everybody(people)

    def train(*told: Any) -> Any:
        result = REAL_TRAIN(*told)
        if late:
            REAL_RESERVE(*late.pop())
        return result

    patch.setattr(FileLedger, "reserve", reserve)
    patch.setattr(rounds, "loop_of", {**rounds.LOOPS, "local": train}.__getitem__)


def booked_too_cheap(patch: Patch) -> None:
    def cheap(plan: Any, *rest: Any) -> Any:
        return REAL_CHARGES(replace(plan, noise_multiplier=2 * plan.noise_multiplier), *rest)

    patch.setattr(outbox, "training_charges", cheap)


def only_the_present_stage_pays(patch: Patch) -> None:
    patch.setattr(outbox, "training_charges", lambda plan, stage, earlier=(): REAL_CHARGES(plan, stage))
    patch.setattr(rounds, "_allowed", lambda site, ledger, release, parts: _paid(ledger, release, parts))


def _paid(ledger: Any, release: Any, parts: Any) -> Any:
    groups = {charge.group for charge in release.charges}
    ledger.reserve(release, [(p.group, p.records.names) for p in parts if p.group in groups and p.records.names])
    return [np.ones(len(part.records.units), dtype=bool) for part in parts]


def never_asked(patch: Patch) -> None:
    """The site pays, enters nobody, and lets everybody take part."""

    def allowed(site: Any, ledger: Any, release: Any, parts: Any) -> Any:
        ledger.reserve(release)
        return [np.ones(len(part.records.units), dtype=bool) for part in parts]

    patch.setattr(rounds, "_allowed", allowed)


def in_every_group(patch: Patch) -> None:
    for module in (register, entry):
        patch.setattr(module, "excluded", lambda profile, group: False)


def sealed_rounds_trained_again(patch: Patch) -> None:
    seen: set[str] = set()

    def reserve(self: Any, release: Any, people: Any = ()) -> Any:
        return everybody(people) if release.key in seen else REAL_RESERVE(self, release, people)

    patch.setattr(FileLedger, "reserve", reserve)
    patch.setattr(FileLedger, "afford", lambda self, release: None)
    patch.setattr(FileLedger, "seal", lambda self, key, payload: seen.add(key))
    patch.setattr(FileLedger, "sealed", lambda self, key: None)


def nobody_is_left_out_for_the_budget(patch: Patch) -> None:
    patch.setattr(totals.Totals, "fits", lambda self, profile: True)


def left_out_is_refused(patch: Patch) -> None:
    """A release is refused if somebody may not take part in it."""

    def reserve(self: Any, release: Any, people: Any = ()) -> Any:
        masks = REAL_RESERVE(self, release, people)
        if any(not mask.all() for mask in masks):
            raise PrivacyError("too much for somebody", remedy="")
        return masks

    patch.setattr(FileLedger, "reserve", reserve)


def merge_drops(patch: Patch) -> None:
    for module in (accounting, totals):
        patch.setattr(module, "merge", lambda events: tuple(dict.fromkeys(events)))


def half_epsilon(patch: Patch) -> None:
    patch.setattr(accounting, "_composed", lambda *told: REAL_COMPOSED(*told) / 2)


def smallest_group(patch: Patch) -> None:
    def smallest(groups: Any, delta: float, accountant: str = "pld") -> float:
        return min([accounting.epsilon(events, delta, accountant) for events in groups.values()] or [0.0])

    patch.setattr(totals, "groups_epsilon", smallest)


def nameless_pay_for_themselves(patch: Patch) -> None:
    """What units without names pay is not added to the persons'."""
    real = totals.Totals.events

    def events(self: Any, profile: Any) -> Any:
        if not profile:
            return real(self, profile)
        kept = self._groups.pop("*", None)
        try:
            return real(self, profile)
        finally:
            if kept is not None:
                self._groups["*"] = kept

    patch.setattr(totals.Totals, "events", events)


def at_another_delta(patch: Patch) -> None:
    patch.setattr(accounting, "_composed", lambda events, delta, kind: REAL_COMPOSED(events, 20 * delta, kind))


def scores_for_one(patch: Patch) -> None:
    patch.setattr(scores, "score_charge", lambda plan, count: REAL_SCORE_CHARGE(plan, 1))


def own_epsilon_of_the_plan(patch: Patch) -> None:
    """The site counts at the delta of the plan, not at its own."""
    real = app.Site.open_ledger

    def opened(self: Any, unit: str) -> Any:
        return real(self.model_copy(update={"limits": self.limits.model_copy(update={"delta": 1e-3})}), unit)

    patch.setattr(app.Site, "open_ledger", opened)


BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "every other round not recorded": (every_other_round_unrecorded, "books", "steps on record"),
    "recorded after training": (paid_afterwards, "books", "computed before paid"),
    "recorded as cheaper than it is": (booked_too_cheap, "accounts", "least epsilon on record"),
    "a stage that is rehearsed does not pay": (only_the_present_stage_pays, "accounts", "least epsilon on record"),
    "a sealed round trained again": (sealed_rounds_trained_again, "books", "a second update of a round"),
    "many scores for the price of one": (scores_for_one, "own scores", "scores on record (small)"),
    "the register is never asked": (never_asked, "taking part", "others' people in a round"),
    "the register lets everybody into every group": (in_every_group, "taking part", "others' people in a round"),
    "nobody's own budget counts": (nobody_is_left_out_for_the_budget, "taking part", "a person's own budget"),
    "a refusal depends on who is registered": (
        left_out_is_refused,
        "taking part",
        "a refusal tells who is registered",
    ),
    "the limit is never enforced": (
        lambda patch: patch.setattr(totals.Totals, "afford", lambda self: None),
        "accounts",
        "rounds beyond the limit",
    ),
    "only the smallest group counts": (smallest_group, "accounts", "least epsilon on record"),
    "equal events counted once": (merge_drops, "accounts", "least epsilon on record"),
    "half of epsilon": (half_epsilon, "accounts", "least epsilon on record"),
    "epsilon at another delta": (at_another_delta, "accounts", "least epsilon on record"),
    "units without names pay for themselves": (nameless_pay_for_themselves, "accounts", "least epsilon on record"),
    "counted at another delta than the site's": (own_epsilon_of_the_plan, "accounts", "least epsilon on record"),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""
