"""Noise over signal of a private run: the formula by drawing, and what is said of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation import RULES
from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.planning.calibrate import calibrate
from llmchain_fl.planning.forecast import forecast
from llmchain_fl.planning.signal import LITTLE, NOTHING, planned_ratio, run_ratio, step_ratio, verdict
from simulations.dummy import drowned


def test_the_ratio_of_a_step_is_the_length_of_noise_that_was_drawn() -> None:
    """Five sites, a noise of each, C = 2, 40 persons in a step."""
    noise = np.random.default_rng(1).normal(0.0, 3.0 * 2.0, (5, 100_000)).sum(axis=0) / 40
    assert np.linalg.norm(noise) / 2.0 == pytest.approx(step_ratio(3.0, 100_000, 40.0, 5), rel=0.01)


def test_the_ratio_of_a_run_is_that_of_the_mean_of_its_steps_to_the_signal_of_its_labels() -> None:
    """Each of 9 labels has a ninth of the persons, all of length C in a direction of their own."""
    signal = np.zeros((9, 50))
    signal[:, 0] = 1.0 / 9
    noise = np.random.default_rng(2).normal(0.0, 4.0, (16, 9, 50, 40)).mean(axis=0) / 30
    length = np.linalg.norm(noise.reshape(-1, 40), axis=0).mean()
    step = step_ratio(4.0, 9 * 50, 30.0)
    assert length / np.linalg.norm(signal) == pytest.approx(run_ratio(step, 9, 16), rel=0.02)


def test_with_everybody_in_every_step_the_noise_of_a_run_is_the_same_for_any_number_of_rounds() -> None:
    few, many = (run_ratio(step_ratio(calibrate(3.0, 1e-5, 1.0, rounds), 100, 50.0), 4, rounds) for rounds in (4, 16))
    assert few == pytest.approx(many, rel=0.01)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (0.0, ""),
        (LITTLE, ""),
        (LITTLE * 1.01, "less than half"),
        (NOTHING, "less than half"),
        (NOTHING * 1.01, "hardly anything"),
        (math.inf, "hardly anything"),
    ],
)
def test_a_ratio_is_said_in_words(run: float, words: str) -> None:
    assert words in verdict(run)
    assert bool(verdict(run)) == bool(words)


def config(**told: Any) -> RunConfig:
    sections: dict[str, dict[str, Any]] = {
        "task": {"labels": ["a", "b", "c"], "head": "trained"},
        "data": {"train": "somewhere", "one_record_per_person": True},
        "sites": {"count": 10},
        "train": {"steps": 4, "sampling_rate": 0.1, "batch_size": 20.0},
        "privacy": {"enabled": True, "noise_multiplier": 2.0},
    }
    stages = told.pop("stage", [{"name": "one", "rounds": 9}])
    tree = {name: {**sections.get(name, {}), **told.get(name, {})} for name in {*sections, *told}}
    return build({**tree, "stage": stages})


def ratio(run: RunConfig, trained: int = 100, labels: int = 3) -> float:
    plan = forecast(run)
    assert plan is not None
    return planned_ratio(run, plan, trained, labels)


SITE = 2.0 * math.sqrt(100 * 10) / (20 * 10) * math.sqrt(3 / 36)
"""Ten sites, a noise of each; 4 x 9 steps; 3 labels."""


def test_a_planned_run_is_judged_by_the_batch_that_its_settings_expect() -> None:
    assert ratio(config()) == pytest.approx(SITE)
    assert ratio(config(sites={"cohort": 5})) == pytest.approx(SITE * math.sqrt(2))
    assert ratio(config(task={"head": "label-text"})) == pytest.approx(SITE / math.sqrt(3))
    two = [{"name": "one", "rounds": 9}, {"name": "two", "rounds": 4}]
    assert ratio(config(stage=two)) == pytest.approx(SITE)
    assert ratio(config(train={"steps": 1})) == pytest.approx(2 * SITE)


def test_shared_noise_is_one_noise_over_the_sites_that_are_sure_to_be_there() -> None:
    lockstep = {"method": "lockstep", "steps": 1}
    shared = config(train=lockstep, aggregation={"rule": "head-only"}, privacy={"noise": "sum"}, secure={"sum": True})
    assert shared.survivors == 9
    assert ratio(shared) == pytest.approx(2.0 * math.sqrt(100) / (20 * 9) * math.sqrt(3 / 9))


@pytest.mark.parametrize(("trained", "labels"), [(0, 3), (100, 0), (100, 1)])
def test_of_what_is_not_measured_nothing_is_said(trained: int, labels: int) -> None:
    assert ratio(config(), trained, labels) == 0.0
    whole = config(privacy={"unit": "site"}, sites={"minimum": 5}, data={"one_record_per_person": False})
    assert ratio(whole) == 0.0


@given(st.integers(1, 400))
def test_a_check_warns_of_a_drowned_run_and_of_no_other(width: int) -> None:
    start = {"head.weight": np.zeros((3, width), np.float32), "layer.lora_A": np.zeros((4, 10**4), np.float32)}
    run = config(privacy={"noise_multiplier": 40.0}, aggregation={"rule": "head-only"})
    assert bool(drowned(run, RULES["head-only"], start)) == (ratio(run, 3 * width) > LITTLE)


def test_a_run_without_privacy_has_no_noise_to_warn_of() -> None:
    run = config(privacy={"enabled": False})
    assert drowned(run, RULES["head-only"], {"head.weight": np.zeros((3, 10**6), np.float32)}) == ""
