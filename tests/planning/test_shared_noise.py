"""Noise that the sites share, before anybody trains: both epsilons, and what sharing is worth."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from llmchain_fl.cli import privacy
from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.charges import training_event
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.planning.forecast import forecast, warnings
from llmchain_fl.planning.privacy_line import check_privacy
from llmchain_fl.planning.shared_noise import SharedNoise, shared_noise
from llmchain_fl.planning.trusted_peers import MOST, in_words, peers_to_show
from llmchain_fl.planning.work import plan_from


def config(count: int = 5, survivors: int = 4, unit: str = "person", **privacy: Any) -> RunConfig:
    lockstep = {"method": "lockstep", "steps": 1, "sampling_rate": 0.1, "batch_size": 16.0}
    return build(
        {
            "task": {"labels": ["a", "b"]},
            "data": {"train": "somewhere"},
            "sites": {"count": count, "minimum": 2, "held_out": 0.0},
            "secure": {"sum": True, "survivors": survivors},
            "train": lockstep if unit == "person" else {},
            "privacy": {"enabled": True, "noise": "sum", "unit": unit, "epsilon": 3.0, **privacy},
            "stage": [{"name": "one", "rounds": 12}],
        }
    )


def told(**settings: Any) -> SharedNoise:
    run = config(**settings)
    plan = forecast(run)
    assert plan is not None
    found = shared_noise(run, plan)
    assert found is not None
    return found


@pytest.mark.parametrize("unit", ["person", "site"])
def test_against_the_server_alone_the_run_just_meets_its_budget_and_every_colluder_costs(unit: str) -> None:
    shared = told(unit=unit)
    course = [shared.epsilon(trusted) for trusted in range(5)]
    assert 2.97 <= course[4] <= 3.0
    assert course[4] < course[3] < course[2] < course[1] == course[0]  # of 5 one may be gone: it may be the trusted one
    assert shared.forecast.epsilon_after(12) == course[4]
    own = Event(shared.forecast.round_event.kind, shared.plan.sampling_rate, shared.plan.noise_multiplier / 2, 12)
    assert course[0] == epsilon([own], 1e-5)  # one share of four: half the deviation


@pytest.mark.parametrize("unit", ["person", "site"])
def test_a_round_of_the_forecast_is_the_event_of_the_plan(unit: str) -> None:
    run = config(unit=unit)
    plan = forecast(run)
    assert plan is not None
    booked = plan_from(run, plan.round_event.noise_multiplier, 0.0)
    assert booked is not None
    assert plan.round_event == training_event(booked)


@pytest.mark.parametrize(("unit", "sites"), [("person", 4), ("person", 5), ("site", 4), ("site", 5)])
def test_the_noise_of_the_mean_step_is_what_shares_add_up_to(unit: str, sites: int) -> None:
    """By drawing it: n sites, a share each, the mean taken as the server takes it."""
    shared = told(unit=unit, noise_multiplier=2.0, epsilon=0.0)
    draw = np.random.default_rng(1)
    shares = draw.normal(0.0, 2.0 * 1.0 / math.sqrt(4), (sites, 200_000))
    divisor = 16.0 if unit == "person" else 1.0
    assert np.std(shares.sum(axis=0) / (sites * divisor)) == pytest.approx(shared.on_the_sum(sites), rel=0.01)
    whole = draw.normal(0.0, 2.0, (sites, 200_000)) / 16.0
    expected = np.std(whole.mean(axis=0)) if unit == "person" else 2.0 / 2
    assert expected == pytest.approx(shared.not_shared(sites), rel=0.01)


def test_the_same_multiplier_costs_the_same_shared_or_not() -> None:
    shared = told()
    event = Event("poisson-gaussian", 0.1, shared.plan.noise_multiplier, 12)
    assert epsilon([event], 1e-5) == pytest.approx(shared.epsilon(4), rel=1e-3)


@given(st.integers(3, 4000))
def test_a_table_names_both_ends_and_the_case_of_one_curious_site(members: int) -> None:
    shown = peers_to_show(members)
    assert shown == sorted(set(shown))
    assert {0, math.ceil((members - 1) / 2), members - 2, members - 1} <= set(shown) <= set(range(members))
    assert len(shown) == members if members <= MOST else len(shown) <= MOST + 2


def page(run: RunConfig, file: Path, *words: str) -> str:
    """What `privacy plan` says of ``run``."""
    file.write_text(to_toml(run), encoding="utf-8")
    result = CliRunner().invoke(privacy.app, ["plan", str(file), *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_page_and_its_json_say_the_same(tmp_path: Path) -> None:
    run, file = config(3, 3, accountant="rdp"), tmp_path / "run.toml"
    found, text = json.loads(page(run, file, "--json")), page(run, file)
    assert found["noise"] == "sum 3"
    by_peers = found["epsilon_by_trusted_peers"]
    assert list(by_peers) == ["0", "1", "2"]
    assert by_peers["2"] == found["epsilon"][-1]["rdp"]
    for value in by_peers.values():
        assert f"{math.ceil(100 * value - 1e-4) / 100:.2f}" in text
    (worth,) = found["noise_of_the_mean_step"]
    assert worth["not_shared"] / worth["sum"] == pytest.approx(math.sqrt(3))
    assert "1.7 times less" in text
    assert "noise on the sum of 3 sites, which share it; against the server alone" in text
    assert "own share only" in text


def test_a_run_that_shares_no_noise_is_told_of_without_peers(tmp_path: Path) -> None:
    run, file = config(accountant="rdp", noise="site"), tmp_path / "run.toml"
    text = page(run, file)
    assert "trusted" not in text
    assert "noise added at each site" in text
    assert "epsilon_by_trusted_peers" not in json.loads(page(run, file, "--json"))


def test_the_check_of_a_scenario_says_both_numbers_with_their_terms() -> None:
    lines = [one.text for one in check_privacy(config()) if one.about == "privacy"]
    assert any("noise on the sum of 4 to 5 sites, which share it; against the server alone" in line for line in lines)
    (both,) = [line for line in lines if line.startswith("Against the server alone")]
    assert "by a site's own share of the noise" in both
    assert both.endswith("(delta 1e-5, per person, PLD accountant)")


def test_nobody_warns_of_a_trusted_server_where_the_sites_add_the_noise() -> None:
    plan = forecast(config(unit="site"))
    assert plan is not None
    assert not any("the server adds the noise" in sentence for sentence in warnings(plan))


@pytest.mark.parametrize("table", [{}, {2: 1.0}, {1: 2.0, 2: 1.0}])
def test_a_table_without_both_ends_says_nothing(table: dict[int, float]) -> None:
    assert in_words(table) == ""
