"""Settings from public numbers: a valid run that keeps the budget; better numbers never give more noise."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchain_fl.config.read import read_config
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.planning.forecast import forecast
from llmchain_fl.planning.recommend import FEWEST, ROUNDS, TRAVEL, Public, Recommendation, recommend
from llmchain_fl.planning.signal import LITTLE, NOTHING
from llmchain_fl.scenario import find_scenario


def public(**told: Any) -> Public:
    return Public(**{"persons": 400, "sites": 10, "epsilon": 3.0, **told})


def laid_over(scenario: Path, found: Recommendation) -> RunConfig:
    told = [f"{key}={json.dumps(value)}" for key, value in found.settings.items()]
    return read_config(scenario, [*told, f"stage.rounds={found.rounds}"])


@pytest.mark.parametrize("scenario", ["banking77", "sentiment"])
def test_the_settings_laid_over_a_shipped_scenario_are_a_run(scenario: str) -> None:
    run = laid_over(find_scenario(scenario), recommend(public()))
    assert (run.sites.count, run.privacy.noise, run.secure.sum, run.total_rounds) == (10, "sum", True, ROUNDS)


@pytest.mark.parametrize("sites", [1, 2, 3, 10])
def test_the_run_spends_its_budget_and_no_more_with_the_noise_that_was_told(sites: int) -> None:
    asked = public(sites=sites, rounds=12)
    found = recommend(asked)
    run = laid_over(find_scenario("banking77"), found)
    plan = forecast(run)
    assert plan is not None
    assert 2.98 <= plan.epsilon_after(plan.rounds) <= 3.0
    assert plan.round_event.noise_multiplier == found.z
    in_a_step = plan.people_per_step(asked.persons) if sites > 2 else sites * 400
    assert in_a_step == asked.counted
    assert plan.divisor == asked.persons
    assert run.privacy.noise == ("sum" if sites > 2 else "site")


@given(st.integers(3, 60_000))
def test_the_sites_that_are_sure_to_be_in_a_sum_are_those_of_the_configuration(sites: int) -> None:
    run = RunConfig.model_validate({"sites": {"count": sites}})
    assert public(sites=sites).shares == run.survivors


NUMBERS = st.fixed_dictionaries(
    {
        "persons": st.integers(1, 10**5),
        "sites": st.integers(1, 1000),
        "labels": st.integers(2, 1000),
        "width": st.integers(1, 5000),
    }
)


@given(NUMBERS, st.sampled_from(["persons", "labels", "width"]), st.integers(2, 9))
@settings(max_examples=60)
def test_more_persons_are_less_noise_and_more_trained_numbers_are_more(
    told: dict[str, int], name: str, factor: int
) -> None:
    one, other = (recommend(public(**{**told, name: told[name] * times})) for times in (1, factor))
    first, second = (other, one) if name == "persons" else (one, other)
    for before, after in zip((*first.step, *first.run), (*second.step, *second.run), strict=True):
        assert before < after
    assert all(alone < both for alone, both in (one.step, one.run))


@given(NUMBERS, st.integers(1, 9))
@settings(max_examples=60)
def test_another_site_never_adds_noise(told: dict[str, int], more: int) -> None:
    one, other = (recommend(public(**{**told, "sites": told["sites"] + extra})) for extra in (0, more))
    assert other.run[0] <= one.run[0] * 1.001  # the integers of shared noise cost one in some thousand
    if told["sites"] <= 2 < told["sites"] + more:
        assert other.run[0] < one.run[0]


def test_a_larger_budget_is_less_noise_and_more_rounds_are_more_in_each_but_not_in_all() -> None:
    by_budget = [recommend(public(epsilon=epsilon)).z for epsilon in (0.3, 1.0, 3.0, 8.0)]
    assert by_budget == sorted(by_budget, reverse=True)
    by_rounds = [recommend(public(rounds=rounds)) for rounds in (1, 5, 15, 30)]
    assert [found.z for found in by_rounds] == sorted(found.z for found in by_rounds)
    for found in by_rounds:
        assert found.run[0] == pytest.approx(by_rounds[0].run[0], rel=0.02)


@pytest.mark.parametrize(
    ("rounds", "taken", "lr"), [(1, 1, TRAVEL / FEWEST), (15, 15, TRAVEL / 15), (30, 30, 0.01), (1000, ROUNDS, 0.01)]
)
def test_the_learning_rate_falls_with_the_rounds_and_both_have_an_end(rounds: int, taken: int, lr: float) -> None:
    found = recommend(public(rounds=rounds))
    assert (found.rounds, found.settings["train.lr"]) == (taken, pytest.approx(lr, rel=0.01))


@pytest.mark.parametrize(
    ("persons", "words", "slower"), [(400, "", False), (150, "less than half", True), (20, "hardly anything", True)]
)
def test_who_has_too_few_persons_is_told_so_in_plain_words(persons: int, words: str, slower: bool) -> None:
    found = recommend(public(persons=persons))
    bounds = {"": (0.0, LITTLE), "less than half": (LITTLE, NOTHING), "hardly anything": (NOTHING, math.inf)}[words]
    assert bounds[0] < found.run[0] <= bounds[1]
    assert [words in sentence for sentence in found.warnings] == [True] * bool(words)
    assert (found.settings["train.lr"] == 0.005) is slower


def test_a_delta_at_which_one_person_could_be_published_is_warned_of() -> None:
    assert any("Delta" in sentence for sentence in recommend(public(delta=1e-4)).warnings)
    assert recommend(public(delta=2e-5)).warnings == ()


def test_every_reason_is_one_of_a_setting() -> None:
    found = recommend(public())
    known = {key.partition(".")[2] for key in found.settings} | {"rounds"}
    assert {what for what, _ in found.reasons} <= known
    assert all(why.strip() and "\n" not in why for _, why in found.reasons)


@pytest.mark.parametrize(
    "wrong",
    [
        {"persons": 0},
        {"persons": True},
        {"persons": 10**7},
        {"sites": 0},
        {"sites": 10**6},
        {"epsilon": 0.0},
        {"epsilon": math.nan},
        {"epsilon": math.inf},
        {"epsilon": -1.0},
        {"epsilon": 101.0},
        {"delta": 0.0},
        {"delta": 0.1},
        {"labels": 1},
        {"width": 0},
        {"rounds": 0},
        {"rounds": 2.5},
    ],
)
def test_a_number_out_of_its_bounds_is_refused_by_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(PrivacyError, match=next(iter(wrong))):
        public(**wrong)


def test_all_bad_numbers_are_told_at_once() -> None:
    with pytest.raises(PrivacyError) as caught:
        public(persons=0, epsilon=-1.0, labels=1)
    assert all(name in str(caught.value) for name in ("persons", "epsilon", "labels"))


def test_a_budget_that_no_noise_reaches_is_refused() -> None:
    with pytest.raises(PrivacyError, match="no noise multiplier"):
        recommend(public(epsilon=1e-4))
