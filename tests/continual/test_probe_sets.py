from __future__ import annotations

import math

import pytest

from llmchain_fl.continual.probe_sets import probe_deltas, probe_rows
from llmchain_fl.core.tasks.metric import Metric

METRICS = (Metric("accuracy", "higher", "share", 1.0), Metric("loss", "lower"))


def rows(number, **scores):
    named = {name.replace("__", "/"): {"accuracy": value, "loss": 1 - value} for name, value in scores.items()}
    return probe_rows(number, number - 1, named, dict.fromkeys(named, 50), METRICS)


def test_a_delta_is_the_mean_over_the_sets_of_a_group_against_round_0():
    """A row of TRACE: three general sets, before and after a task."""
    found = rows(0, general__mmlu=0.46, general__boolq=0.70, instruction=0.5)
    found += rows(1, general__mmlu=0.40, general__boolq=0.74, instruction=0.3)
    assert probe_deltas(found, "accuracy") == {
        "general": [(0, 0.0), (1, pytest.approx((-0.06 + 0.04) / 2))],
        "instruction": [(0, 0.0), (1, pytest.approx(-0.2))],
    }


def test_a_loss_that_rises_is_a_negative_delta():
    found = rows(0, general=0.5) + rows(1, general=0.2)
    assert probe_deltas(found, "loss")["general"][1] == (1, pytest.approx(-0.3))


def test_without_a_score_before_training_there_is_nothing_to_compare_with():
    assert probe_deltas(rows(1, general=0.5), "accuracy") == {}
    assert probe_deltas([], "accuracy") == {}


def test_a_round_in_which_a_set_is_missing_is_left_out():
    found = rows(0, g__a=0.5, g__b=0.5) + rows(1, g__a=0.9) + rows(2, g__a=0.6, g__b=0.7)
    assert probe_deltas(found, "accuracy") == {"g": [(0, 0.0), (2, pytest.approx(0.15))]}


def test_the_rows_are_long_rows_of_their_own_scope():
    (accuracy, _) = rows(3, general=0.5)
    wanted = {"round": 3, "stage": 2, "scope": "probe", "site": None, "task": "general", "metric": "accuracy"}
    assert accuracy == wanted | {"value": 0.5, "n": 50, "better": "higher", "unit": "share", "bound": 1.0}


def test_scores_of_stages_are_no_probes_and_the_last_row_wins():
    found = rows(0, general=0.5) + [r | {"scope": "global"} for r in rows(1, general=0.9)]
    found += rows(1, general=0.1) + rows(1, general=0.6)
    assert probe_deltas(found, "accuracy") == {"general": [(0, 0.0), (1, pytest.approx(0.1))]}
    assert math.isnan(probe_deltas(rows(0, g=0.5) + rows(1, g=math.nan), "accuracy")["g"][1][1])
