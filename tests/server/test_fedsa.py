"""fedsa: A is shared, B is nobody's but the site's."""

from __future__ import annotations

import numpy as np
import pytest

from llmchain_fl.aggregation.admission import reason_of
from llmchain_fl.aggregation.fedsa import FedSa
from llmchain_fl.aggregation.rule import SiteFactors, SiteShape, sent_names
from llmchain_fl.core.errors import AdmissionError

START = {
    "q.lora_A": np.array([[1.0, 2.0]], np.float32),
    "q.lora_B": np.zeros((3, 1), np.float32),
    "head.bias": np.zeros(2, np.float32),
}


def site(a, scale, weight, **more):
    head = {"head.bias": np.full(2, weight, np.float32)}
    return SiteFactors({"q.lora_A": np.array([a], np.float32), **head, **more}, scale, weight)


def play(*sites):
    accumulator = FedSa().start(START, 2.0)
    for one in sites:
        accumulator.add(one)
    return accumulator.finish()


def test_both_factors_are_trained_a_travels_and_b_is_kept():
    schedule = FedSa().schedule(1)
    assert (schedule.trains, schedule.up, schedule.down, schedule.keeps) == (
        ("lora_A", "lora_B"),
        ("lora_A",),
        ("lora_A",),
        ("lora_B",),
    )
    assert sent_names(FedSa(), START) == ["q.lora_A", "head.bias"]


def test_a_and_the_head_are_the_weighted_mean_and_alpha_plays_no_part():
    result = play(site([4.0, 0.0], 1.0, 3.0), site([0.0, 8.0], 16.0, 1.0))
    np.testing.assert_array_equal(result["q.lora_A"], [[3.0, 2.0]])
    np.testing.assert_array_equal(result["head.bias"], [2.5, 2.5])


def test_a_b_that_a_site_sends_along_is_ignored_whatever_is_in_it():
    for b in (np.ones((3, 1), np.float32), np.full((7, 7), np.nan, np.float32)):
        result = play(site([4.0, 0.0], 1.0, 3.0, **{"q.lora_B": b}))
        np.testing.assert_array_equal(result["q.lora_B"], START["q.lora_B"])


def test_the_global_b_stays_at_its_start_so_the_global_product_is_zero():
    result = play(site([4.0, 0.0], 1.0, 3.0))
    assert not (result["q.lora_B"] @ result["q.lora_A"]).any()
    assert not FedSa().handed(result, 2.0, SiteShape(1, 9.0))["q.lora_B"].any()


def test_another_rank_is_refused_because_the_rows_of_a_would_not_match():
    with pytest.raises(AdmissionError) as caught:
        play(SiteFactors({**START, "q.lora_A": np.ones((2, 2), np.float32)}, 1.0, 1.0))
    assert reason_of(caught.value) == "wrong-shape"
