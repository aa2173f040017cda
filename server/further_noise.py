"""The noise of the rounds that an extension adds: so much that every site stays within its budget, with what it spent.

For each site and each group of its units, with E the events so far and n rounds to come (by the calendar, as if it were
asked in each of them), the multiplier z' of the rounds to come is the smallest with

    epsilon(E + n events of multiplier z') <= privacy.epsilon             for every site and group

by the run's accountant: events of several multipliers compose (``accounting.epsilon``). Groups to which nothing is
added do not bind. Noised scores are a group of their own, and have a multiplier of their own.

==============================================  ======================================================================
case                                            result
==============================================  ======================================================================
privacy off                                     no plan
``privacy.noise_multiplier`` given              that one; where there is a budget, too, the run stops when it is spent
nothing spent, nothing to come                  the multiplier so far
more than ``MOST`` times the noise so far       PrivacyError: the rounds would teach next to nothing
no budget left for noised scores                no more scores: multiplier 0
==============================================  ======================================================================
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace

from llmchain_fl.config.calendar import Ended, calendar, site_calendar, to_score, trained_as
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.charges import score_event, training_event, training_groups
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.groups import HELD_OUT
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.planning.calibrate import smallest_noise
from llmchain_fl.report.wording import epsilon_text
from server.privacy_book import PrivacyBook

MOST = 4.0
"""How many times the noise so far is still worth a round."""
Ahead = tuple[tuple[Event, ...], int]
"""What was spent of a group, and how many rounds (or scores) are still to be charged to it."""
log = logging.getLogger("llmchain_fl")


def further_plan(
    config: RunConfig, book: PrivacyBook, sites: Collection[str], done: int, ended: Ended
) -> PrivacyPlan | None:
    """The plan of the rounds after round ``done``; see the head of this file.

    Raises:
        PrivacyError: the budget does not pay for them.
    """
    plan = book.plan
    if plan is None:
        return None
    noise = config.privacy.noise_multiplier or _training_noise(config, book, plan, sites, done, ended)
    plan = replace(plan, noise_multiplier=noise)
    return replace(plan, score_noise=_score_noise(config, book, plan, sites, done, ended))


def rounds_ahead(config: RunConfig, plan: PrivacyPlan, site: str, done: int, ended: Ended) -> Counter[str]:
    """Group -> rounds that ``site`` may still be asked for."""
    ahead: Counter[str] = Counter()
    seen: list[str] = []
    for span in site_calendar(config, site, ended):
        rounds = span.last - max(span.first - 1, done)
        if rounds > 0:
            for group in training_groups(plan, trained_as(config, span.name), seen):
                ahead[group] += rounds
        seen.append(span.name)
    return ahead


def _training_noise(
    config: RunConfig, book: PrivacyBook, plan: PrivacyPlan, sites: Collection[str], done: int, ended: Ended
) -> float:
    ahead = set(_training_ahead(config, book, plan, sites, done, ended))

    def spent(z: float) -> float:
        noised = replace(plan, noise_multiplier=z)
        return max(book.epsilon({"": [*past, training_event(noised, n)]}) for past, n in ahead)

    if not ahead:
        return plan.noise_multiplier
    target, now = config.privacy.epsilon, plan.noise_multiplier
    if spent(MOST * now) > target:
        gone = epsilon_text(max(book.epsilon({"": past}) for past, _ in ahead), book.terms)
        raise PrivacyError(
            f"{max(n for _, n in ahead)} more rounds do not fit into privacy.epsilon = {target:g}: epsilon {gone} "
            f"is spent, and the rest would take more than {MOST:g} times the noise so far",
            remedy=f"with the noise so far it would come to epsilon {epsilon_text(spent(now))}: set privacy.epsilon, "
            "ask for fewer rounds, or give privacy.noise_multiplier; nothing was changed",
        )
    return smallest_noise(spent, target)


def _training_ahead(
    config: RunConfig, book: PrivacyBook, plan: PrivacyPlan, sites: Collection[str], done: int, ended: Ended
) -> Iterator[Ahead]:
    for site in set(sites) - set(config.sites.excluded):
        spent = book.spent(site)
        for group, rounds in rounds_ahead(config, plan, site, done, ended).items():
            yield tuple(spent.get(group, ())), rounds


def _score_noise(
    config: RunConfig, book: PrivacyBook, plan: PrivacyPlan, sites: Collection[str], done: int, ended: Ended
) -> float:
    target = config.privacy.epsilon
    if not (plan.score_noise and target):
        return plan.score_noise
    ends = [span.last for span in calendar(config, ended) if span.last > done]
    ahead = {
        (tuple(book.spent(site).get(HELD_OUT, ())), sum(len(to_score(config, site, end, ended)) for end in ends))
        for site in set(sites) - set(config.sites.excluded)
    }

    def spent(z: float) -> float:
        noised = replace(plan, score_noise=z)
        return max(book.epsilon({"": [*past, *([score_event(noised, n)] if n else [])]}) for past, n in ahead)

    if spent(MOST * plan.score_noise) > target:
        log.warning("sites are asked for no more scores of their own: the budget of their held-out records is used up")
        return 0.0
    return smallest_noise(spent, target)
