"""The noise of further rounds: every site stays within its budget, with what it has spent; computed by another road."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.plan import PrivacyPlan
from server.further_noise import MOST, further_plan, rounds_ahead
from server.privacy_book import PrivacyBook, make_plan

STAGES = [{"name": "a", "rounds": 3}, {"name": "b", "rounds": 2}]
SITES = ["north", "south"]


def config(stages: list[dict[str, Any]] = STAGES, held_out: float = 0.0, **sections: Any) -> RunConfig:
    privacy = {"enabled": True, "epsilon": 3.0, "accountant": "rdp", **sections.pop("privacy", {})}
    return build(
        {
            "task": {"labels": ["x"]},
            "data": {"train": "x"},
            "sites": {"count": 2, "minimum": 2, "held_out": held_out},
            "train": {"sampling_rate": 0.05, "steps": 4, "batch_size": 8},
            "privacy": privacy,
            "stage": stages,
            **sections,
        }
    )


def played(run: RunConfig, sites: dict[str, list[str]]) -> PrivacyBook:
    """A book in which each site took part in these rounds."""
    book = PrivacyBook(run, make_plan(run))
    for site, stages in sites.items():
        for stage in stages:
            book.charge([site], stage)
    return book


COURSE = ["a", "a", "a", "b", "b"]
MORE = [*STAGES, {"name": "c", "rounds": 4}]


def plan_of(new: RunConfig, book: PrivacyBook, done: int = 5) -> PrivacyPlan:
    plan = further_plan(new, book, SITES, done, {})
    assert plan is not None
    return plan


def test_with_a_larger_budget_the_site_that_spent_most_comes_just_up_to_it() -> None:
    book = played(config(), {"north": COURSE, "south": COURSE[:2]})
    plan = plan_of(config(MORE, privacy={"epsilon": 4.0}), book)
    old = book.plan
    assert old is not None
    spent = [Event("poisson-gaussian", 0.05, old.noise_multiplier, 5 * 4)]
    total = epsilon([*spent, Event("poisson-gaussian", 0.05, plan.noise_multiplier, 4 * 4)], 1e-5, "rdp")
    assert 3.985 < total <= 4.0
    assert replace(plan, noise_multiplier=old.noise_multiplier) == old


def test_with_disjoint_stages_a_new_stage_has_a_budget_of_its_own_and_the_noise_is_of_its_rounds_alone() -> None:
    run = config(privacy={"stages": "disjoint"})
    plan = plan_of(config(MORE, privacy={"stages": "disjoint"}), played(run, dict.fromkeys(SITES, COURSE)))
    assert 2.985 < epsilon([Event("poisson-gaussian", 0.05, plan.noise_multiplier, 4 * 4)], 1e-5, "rdp") <= 3.0


def test_with_the_unit_site_a_round_is_one_release() -> None:
    unit = {"privacy": {"unit": "site", "epsilon": 9.0}}
    book = played(config(**unit), dict.fromkeys(SITES, COURSE))
    plan = plan_of(config(MORE, privacy={"unit": "site", "epsilon": 12.0}), book)
    old = book.plan
    assert old is not None
    events = [Event("gaussian", 1.0, old.noise_multiplier, 5), Event("gaussian", 1.0, plan.noise_multiplier, 4)]
    assert 11.985 < epsilon(events, 1e-5, "rdp") <= 12.0


def test_a_budget_that_is_spent_is_refused_and_what_it_would_take_is_said() -> None:
    book = played(config(), dict.fromkeys(SITES, COURSE))
    old = book.plan
    assert old is not None
    with pytest.raises(PrivacyError, match=r"4 more rounds do not fit into privacy\.epsilon = 3") as refused:
        plan_of(config(MORE), book)
    enough = epsilon([Event("poisson-gaussian", 0.05, old.noise_multiplier, 9 * 4)], 1e-5, "rdp")
    assert f"it would come to epsilon {enough:.2f}"[:-1] in refused.value.remedy
    plan = plan_of(config(MORE, privacy={"epsilon": enough + 0.02}), book)
    assert plan.noise_multiplier <= old.noise_multiplier * 1.01 < MOST * old.noise_multiplier


def test_a_site_that_is_excluded_or_has_left_does_not_bind() -> None:
    book = played(config(), {"north": COURSE, "south": []})
    leaves = {"arrival": {"north": {"leaves": 5}}}
    for new in (config(MORE, stream=leaves), config(MORE, sites={"count": 2, "minimum": 2, "excluded": ["north"]})):
        plan = plan_of(new, book)
        assert 2.985 < epsilon([Event("poisson-gaussian", 0.05, plan.noise_multiplier, 4 * 4)], 1e-5, "rdp") <= 3.0


def test_noise_that_is_given_is_taken_and_where_nothing_is_to_come_it_stays() -> None:
    given = {"privacy": {"epsilon": 0.0, "noise_multiplier": 2.0}}
    book = played(config(**given), dict.fromkeys(SITES, COURSE))
    assert plan_of(config(MORE, privacy={"epsilon": 0.0, "noise_multiplier": 3.5}), book).noise_multiplier == 3.5
    book = played(config(), {})
    assert plan_of(config(), book).noise_multiplier == book.plan.noise_multiplier  # type: ignore[union-attr]


def test_with_privacy_off_there_is_no_plan() -> None:
    run = config(privacy={"enabled": False})
    assert further_plan(run, PrivacyBook(run, None), SITES, 5, {}) is None


def test_noised_scores_have_a_budget_of_their_own_and_end_with_it() -> None:
    run = config(held_out=0.2)
    book = played(run, dict.fromkeys(SITES, COURSE))
    book.charge_scores(SITES, 3)  # after each stage one for each so far: all that was planned
    assert plan_of(config(MORE, 0.2, privacy={"epsilon": 30.0}), book).score_noise > 0
    assert plan_of(config(MORE, 0.2, privacy={"epsilon": 0.0, "noise_multiplier": 9.0}), book).score_noise > 0
    disjoint = {"stages": "disjoint"}
    book = played(config(held_out=0.2, privacy=disjoint), dict.fromkeys(SITES, COURSE))
    book.charge_scores(SITES, 3)
    assert plan_of(config(MORE, 0.2, privacy=disjoint), book).score_noise == 0.0


def test_the_rounds_to_come_are_counted_by_each_sites_own_calendar() -> None:
    run = config(MORE, stream={"arrival": {"south": {"joins": 8}}}, privacy={"stages": "disjoint"})
    plan = make_plan(run)
    assert plan is not None
    assert rounds_ahead(run, plan, "north", 4, {}) == {"training:b": 1, "training:c": 4}
    assert rounds_ahead(run, plan, "south", 4, {}) == {"training:c": 2}
    assert rounds_ahead(run, plan, "north", 9, {}) == {}
    rehearsed = replace(plan, rehearsal="earlier")
    assert rounds_ahead(run, rehearsed, "north", 4, {}) == {"training:a": 5, "training:b": 5, "training:c": 4}
