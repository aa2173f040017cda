"""Is what the ledger says the truth? Releases and steps that were seen against those that were paid for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load

from client import outbox
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.privacy.audit.conformance import equal_counts, never
from llmchain_fl.privacy.audit.finding import Finding
from llmchain_fl.replies import read_reply
from simulations.audit.effort import Effort
from simulations.audit.practice import READABLE, Floats, PracticeSite, one_hot, plan_for

PEOPLE = 64


class _Fault(BaseException):
    """What ends a process: no ordinary exception, which would count as one record that cannot be computed."""


RATE = 0.3


def _site(folder: Path, name: str, effort: Effort) -> PracticeSite:
    features = one_hot(PEOPLE, PEOPLE + 32, 4.0)
    plan = plan_for(RATE, READABLE, effort.steps)
    return PracticeSite(folder, name, features, [f"person-{i}" for i in range(PEOPLE)], plan)


def books(folder: Path, effort: Effort) -> list[Finding]:
    """Rounds played against rounds booked, what each is booked as, and what happens when one is asked for again."""
    site = _site(folder, "books", effort)
    count = effort.rounds + 2
    rounds = [site.play() for _ in range(count)]
    events = site.ledger.spent().events
    expected = Event("poisson-gaussian", site.plan.sampling_rate, site.plan.noise_multiplier, site.plan.steps_per_round)
    wrong = sum((e.kind, e.sampling_rate, e.noise_multiplier) != _what(expected) for e in events)
    seen = sum(len(played.steps) for played in rounds)
    booked = sum(event.steps for event in events)
    return [
        equal_counts("steps on record", seen, booked, "Steps in the released updates against steps in the ledger."),
        equal_counts("releases on record", count, booked / expected.steps, "Updates that left against those paid for."),
        never("other terms", wrong, "Entries in the ledger with another rate or noise than the plan's."),
        *_asked_again(site, rounds[-1].update),
        _paid_before(_site(folder, "paid-before", effort)),
        _broken_off(_site(folder, "broken-off", effort)),
    ]


def _what(event: Event) -> tuple[str, float, float]:
    return event.kind, event.sampling_rate, event.noise_multiplier


def _asked_again(site: PracticeSite, update: Floats) -> list[Finding]:
    """The last round once more: the same bytes, no new training, no new cost."""
    task, before = site.told(site.played), site.ledger.spent().events
    payload = site.ledger.sealed(task.key)
    different = 1
    if payload is not None:
        again = read_reply(outbox.release_again(site.ledger, task, payload))
        vectors = [site.task.vector(load(payload)), site.task.vector(getattr(again, "arrays", {}))]
        different = sum(not np.array_equal(vector, update) for vector in vectors)
    try:
        site.answer(task)
        trained = 1
    except PrivacyError:
        trained = 0
    extra = sum(e.steps for e in site.ledger.spent().events) - sum(e.steps for e in before)
    return [
        never("a second update of a round", different + trained, "Another update under a key that was sealed."),
        never("cost of asking again", extra, "Steps booked because a sealed round was asked for again."),
    ]


def _paid_before(site: PracticeSite) -> Finding:
    """At the first forward pass of a round the round is in the ledger already."""
    booked: list[int] = []
    site.task.watch = lambda: booked.append(sum(event.steps for event in site.ledger.spent().events))
    site.play()
    unpaid = sum(steps < site.plan.steps_per_round for steps in booked) if booked else 1
    return never("computed before paid", unpaid, "Forward passes on records while the ledger did not show the round.")


def _broken_off(site: PracticeSite) -> Finding:
    """A round that broke off is on record, and its second attempt costs nothing more."""

    def fail() -> None:
        site.task.watch = None
        raise _Fault

    site.task.watch = fail
    try:
        site.play()
    except _Fault:
        site.played -= 1
    after_fault = sum(event.steps for event in site.ledger.spent().events)
    site.play()
    after_all = sum(event.steps for event in site.ledger.spent().events)
    wrong = (after_fault != site.plan.steps_per_round) + (after_all != site.plan.steps_per_round)
    return never("a broken-off round", wrong, "Times that the ledger was wrong after a round broke off half-way.")
