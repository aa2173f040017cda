"""What a run will cost, said before it: the same numbers the ledger comes to, and the noise they need."""

from __future__ import annotations

from typing import Any

import pytest

from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import epsilon, groups_epsilon
from llmchain_fl.core.privacy.charges import training_charges, training_event
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.planning.forecast import Forecast, calibrated_noise, forecast, score_noise, scores_asked, warnings
from llmchain_fl.planning.work import plan_from

ROUNDS = (2, 5, 3)


def config(**privacy: Any) -> RunConfig:
    return build(
        {
            "task": {"labels": ["a", "b"]},
            "data": {"train": "somewhere"},
            "sites": {"count": 4, "minimum": 3},
            "train": {"steps": 6, "sampling_rate": 0.08, "batch_size": 20.0},
            "privacy": {"enabled": True, "epsilon": 4.0, **privacy},
            "stage": [{"name": f"s{n}", "rounds": rounds} for n, rounds in enumerate(ROUNDS)],
        }
    )


def told(**privacy: Any) -> Forecast:
    found = forecast(config(**privacy))
    assert found is not None
    return found


def booked(run: RunConfig, after: int) -> float:
    """What a site's ledger comes to: one charge a round, as the client books it."""
    plan = plan_from(run, calibrated_noise(run), 0.0)
    assert plan is not None
    names = [stage.name for stage in run.stage for _ in range(stage.rounds)]
    groups: dict[str, list[Event]] = {}
    for name in names[:after]:
        charge = training_charges(plan, name)[0]
        groups.setdefault(charge.group, []).append(charge.event)
    return groups_epsilon(groups, plan.delta, run.privacy.accountant)


WAYS: list[dict[str, Any]] = [{}, {"stages": "disjoint"}, {"unit": "record"}, {"unit": "site", "epsilon": 9.0}]


@pytest.mark.parametrize("privacy", WAYS)
def test_the_forecast_is_what_the_ledger_of_a_site_in_every_round_will_say(privacy: dict[str, Any]) -> None:
    run = config(**privacy)
    plan = told(**privacy)
    for after in (0, 1, 3, 8, 10):
        assert plan.epsilon_after(after) == pytest.approx(booked(run, after), rel=1e-9)


@pytest.mark.parametrize("privacy", WAYS)
def test_a_round_is_the_event_that_the_ledger_is_charged(privacy: dict[str, Any]) -> None:
    run = config(**privacy)
    plan = plan_from(run, calibrated_noise(run), 0.0)
    assert plan is not None
    assert told(**privacy).round_event == training_event(plan)
    assert told(**privacy).divisor == plan.divisor


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
@pytest.mark.parametrize("privacy", WAYS)
def test_the_calibrated_noise_meets_the_budget_and_hardly_more(privacy: dict[str, Any], accountant: str) -> None:
    plan = told(accountant=accountant, **privacy)
    assert plan.target is not None
    assert plan.target - 0.03 <= plan.epsilon_after(plan.rounds) <= plan.target


def test_a_given_multiplier_is_taken_as_it_is_and_no_privacy_needs_none() -> None:
    assert calibrated_noise(config(noise_multiplier=1.5)) == 1.5
    off = config().model_copy(update={"privacy": config().privacy.model_copy(update={"enabled": False})})
    assert calibrated_noise(off) == 0.0
    assert score_noise(off, 3) == 0.0
    assert forecast(off) is None


def test_disjoint_stages_need_the_noise_of_the_largest_stage_alone() -> None:
    shared, disjoint, site = (calibrated_noise(config(**way)) for way in ({}, {"stages": "disjoint"}, {"unit": "site"}))
    assert disjoint < shared
    alone = Event("poisson-gaussian", 0.08, disjoint, 6 * max(ROUNDS))
    assert 3.99 <= epsilon([alone], 1e-5) <= 4.0
    assert 3.99 <= epsilon([Event("gaussian", 1.0, site, sum(ROUNDS))], 1e-5) <= 4.0


@pytest.mark.parametrize(
    ("after", "shared", "disjoint"),
    [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 2), (5, 5, 3), (7, 7, 5), (10, 10, 5), (99, 10, 5)],
)
def test_rounds_add_up_for_those_who_are_in_them(after: int, shared: int, disjoint: int) -> None:
    assert told().counted(after) == shared
    assert told(stages="disjoint").counted(after) == disjoint


def test_epsilon_never_falls_and_the_replace_one_reading_is_above_it() -> None:
    plan = told(stages="disjoint")
    course = [plan.epsilon_after(after) for after in range(plan.rounds + 1)]
    assert course == sorted(course)
    assert course[0] == 0.0
    assert plan.replacing(plan.rounds) > course[-1]
    assert plan.replacing(0) == 0.0


def test_milestones_are_round_numbers_and_every_end_of_a_stage() -> None:
    assert told().milestones() == [1, 2, 5, 7, 10]
    assert told().ends == [2, 7, 10]


def test_the_multiplier_for_a_target_keeps_it_and_an_unreachable_one_is_said_to_be() -> None:
    plan = told()
    z = plan.multiplier_for(2.0)
    assert z is not None
    assert 1.99 <= epsilon([Event("poisson-gaussian", 0.08, z, 60)], 1e-5) <= 2.0
    assert plan.multiplier_for(1e-9) is None


def test_signal_and_noise_are_counted_in_persons() -> None:
    plan = told(noise_multiplier=2.0, clip_norm=0.5)
    assert plan.people_per_step(1000) == pytest.approx(80)
    assert plan.noise_per_coordinate == pytest.approx(2.0 * 0.5 / 20)
    assert plan.pull_over_noise(1000) == pytest.approx(40)


def test_scores_have_the_budget_of_the_run_for_themselves() -> None:
    z = score_noise(config(), 6)
    assert 3.99 <= epsilon([Event("gaussian", 1.0, z, 6)], 1e-5) <= 4.0
    assert score_noise(config(), 0) == 0.0
    assert score_noise(config(), 12) == pytest.approx(z * 2**0.5, rel=0.01)


def test_scores_are_asked_of_held_out_persons_only_and_of_every_stage_so_far() -> None:
    kept = {"sites": config().sites.model_copy(update={"held_out": 0.1})}
    assert scores_asked(config()) == 0
    assert scores_asked(config().model_copy(update=kept)) == 1 + 2 + 3
    assert scores_asked(config(unit="record").model_copy(update=kept)) == 0


def test_scores_of_a_run_with_given_noise_cost_what_its_training_costs() -> None:
    run = config(epsilon=0.0, noise_multiplier=1.2)
    plan = forecast(run)
    assert plan is not None
    spent = plan.epsilon_after(plan.rounds)
    assert spent - 0.02 <= epsilon([Event("gaussian", 1.0, score_noise(run, 4), 4)], 1e-5) <= spent


def test_scores_are_refused_where_a_whole_site_is_the_unit_and_for_a_negative_number() -> None:
    with pytest.raises(PrivacyError, match="held_out"):
        score_noise(config(unit="site"), 2)
    with pytest.raises(PrivacyError, match="-1"):
        score_noise(config(), -1)


def test_a_sound_plan_earns_no_warning() -> None:
    assert warnings(told(), 1000) == []


@pytest.mark.parametrize(
    ("privacy", "people", "word"),
    [
        ({"delta": 1e-3}, 1000, "Delta"),
        ({"unit": "record"}, None, "record"),
        ({"unit": "site"}, None, "server"),
        ({"epsilon": 12.0}, None, "above 10"),
        ({"noise_multiplier": 0.001}, None, "no finite bound"),
    ],
)
def test_each_weakness_is_named(privacy: dict[str, Any], people: int | None, word: str) -> None:
    (sentence,) = warnings(told(**privacy), people)
    assert word in sentence
