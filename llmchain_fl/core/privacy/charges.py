"""What each thing that leaves a site costs, and whom: the only bridge from a plan to the ledger.

A *group* is a set of privacy units. The server counts one run at one site and calls its groups as below; the site
counts over all its data sets and runs, and books each group as one of its own (``groups.py``) by :func:`at_site`.

====================  =========================================================  ==================================
release               group                                                      event
====================  =========================================================  ==================================
a training round      ``training``; with disjoint stages ``training:<stage>``    q, z, steps of the plan, Poisson
... with rehearsal    the same of the stage and of each earlier one              the same for each group
the same, unit site   ``site``                                                   one Gaussian release at the server
... with shared noise the same                                                   of as many shares as are counted
noised scores         ``held-out``                                               one Gaussian release per stage
====================  =========================================================  ==================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.groups import EVERYBODY, HELD_OUT, SITE, TRAINING, site_group
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.release import Charge


def training_group(plan: PrivacyPlan, stage: str) -> str:
    """Who pays for a round of ``stage``."""
    if plan.unit == "site":
        return SITE
    return f"{TRAINING}:{stage}" if plan.stages == "disjoint" else TRAINING


def training_event(plan: PrivacyPlan, rounds: int = 1, counted: int | None = None) -> Event:
    """``rounds`` rounds under ``plan``.

    With shared noise z is that of (1 + ``counted``) of the m shares: z sqrt((1 + counted) / m). None counts all of
    them, which is what holds against the server alone; 0 only the site's own.
    """
    known = plan.shares if counted is None else min(1 + counted, plan.shares)
    noise, discrete = plan.noise_multiplier * math.sqrt(known / plan.shares), "discrete-" * plan.is_shared
    if plan.unit == "site":
        return Event(f"{discrete}gaussian", 1.0, noise, rounds)
    return Event(f"poisson-{discrete}gaussian", plan.sampling_rate, noise, plan.steps_per_round * rounds)


def training_groups(plan: PrivacyPlan, stage: str, earlier: Sequence[str] = ()) -> tuple[str, ...]:
    """All who pay for a round of ``stage`` in which the stages ``earlier`` are rehearsed."""
    stages = (stage, *earlier) if plan.rehearsal != "none" else (stage,)
    return tuple(dict.fromkeys(training_group(plan, name) for name in stages))


def training_charges(
    plan: PrivacyPlan, stage: str, earlier: Sequence[str] = (), counted: int | None = None
) -> tuple[Charge, ...]:
    """One round of ``stage``: each group pays once, whatever its share of the batches."""
    event = training_event(plan, counted=counted)
    return tuple(Charge(group, event) for group in training_groups(plan, stage, earlier))


def score_event(plan: PrivacyPlan, values: int) -> Event:
    """``values`` noised scores.

    Raises:
        PrivacyError: the plan has no noise for scores.
    """
    if not plan.score_noise:
        raise PrivacyError("the plan pays for no scores", remedy="set sites.held_out, or ask for none")
    return Event("gaussian", 1.0, plan.score_noise, values)


def score_charge(plan: PrivacyPlan, values: int) -> Charge:
    """``values`` noised scores of the held-out units."""
    return Charge(HELD_OUT, score_event(plan, values))


def at_site(charges: Sequence[Charge], data_set: str, named: bool) -> tuple[Charge, ...]:
    """What the site books for ``charges`` on the records of ``data_set``.

    ==========================================  ===================================================================
    units                                       groups
    ==========================================  ===================================================================
    told apart by name                          each as the group of this data set
    not told apart (``named`` is False)         everybody: who they are will never be known
    unit ``site``                               everybody
    equal charges that come to the same group   one: each group pays once for a release, whatever its share of it
    ==========================================  ===================================================================
    """
    booked = (Charge(site_group(each.group, data_set) if named else EVERYBODY, each.event) for each in charges)
    return tuple(dict.fromkeys(booked))
