"""rolora by hand: B in odd rounds, A in even ones."""

from __future__ import annotations

import numpy as np
import pytest

from llmchain_fl.aggregation.admission import reason_of
from llmchain_fl.aggregation.rolora import RoLora
from llmchain_fl.aggregation.rule import SiteFactors, SiteShape, sent_names
from llmchain_fl.core.errors import AdmissionError

START = {"q.lora_A": np.array([[1.0, 2.0, 3.0]], np.float32), "q.lora_B": np.array([[1.0], [2.0]], np.float32)}


def play(number, *sites):
    accumulator = RoLora().start(START, 2.0, number)
    for site in sites:
        accumulator.add(site)
    return accumulator.finish()


def test_odd_rounds_train_and_send_b_even_rounds_a_and_both_factors_travel_down():
    for number in (1, 3, 101):
        assert sent_names(RoLora(), START, number) == ["q.lora_B"]
    for number in (2, 4, 100):
        assert sent_names(RoLora(), START, number) == ["q.lora_A"]
    assert RoLora().schedule(1).down == RoLora().schedule(2).down == ("lora_A", "lora_B")
    assert RoLora().schedule(1).keeps == RoLora().schedule(2).keeps == ()


def test_an_odd_round_by_hand_with_different_alpha():
    # B = 3/4 * 1/2 * (4, 0) + 1/4 * 4/2 * (0, 8)
    first = SiteFactors({"q.lora_B": np.array([[4.0], [0.0]], np.float32)}, 1.0, 3.0)
    second = SiteFactors({"q.lora_B": np.array([[0.0], [8.0]], np.float32)}, 4.0, 1.0)
    result = play(1, first, second)
    np.testing.assert_array_equal(result["q.lora_B"], [[1.5], [4.0]])
    np.testing.assert_array_equal(result["q.lora_A"], START["q.lora_A"])


def test_an_even_round_by_hand_takes_no_scale_because_every_site_holds_the_same_product_with_b():
    first = SiteFactors({"q.lora_A": np.array([[4.0, 0.0, 0.0]], np.float32)}, 1.0, 3.0)
    second = SiteFactors({"q.lora_A": np.array([[0.0, 8.0, 0.0]], np.float32)}, 4.0, 1.0)
    result = play(2, first, second)
    np.testing.assert_array_equal(result["q.lora_A"], [[3.0, 2.0, 0.0]])
    np.testing.assert_array_equal(result["q.lora_B"], START["q.lora_B"])
    # ideal: 3/4 * 1 * (2 B)(4,0,0) + 1/4 * 4 * (B / 2)(0,8,0) = 2 B (3,2,0)
    handed = RoLora().handed(START, 2.0, SiteShape(1, 4.0))
    np.testing.assert_array_equal(handed["q.lora_B"], START["q.lora_B"] / 2)


@pytest.mark.parametrize(("number", "frozen"), [(1, "q.lora_A"), (2, "q.lora_B")])
def test_a_factor_that_is_frozen_in_this_round_may_come_along_but_not_changed(number, frozen):
    handed = RoLora().handed(START, 2.0, SiteShape(1, 8.0))
    play(number, SiteFactors(handed, 8.0, 1.0))
    changed = {**handed, frozen: np.nextafter(handed[frozen], np.float32(9))}
    with pytest.raises(AdmissionError) as caught:
        play(number, SiteFactors(changed, 8.0, 1.0))
    assert reason_of(caught.value) == "foreign-factor"


def test_the_parity_of_the_round_decides_also_when_a_round_is_tried_again():
    site = SiteFactors({"q.lora_B": np.array([[7.0], [7.0]], np.float32)}, 2.0, 1.0)
    for number in (-1, 1, 3):
        np.testing.assert_array_equal(play(number, site)["q.lora_B"], [[7.0], [7.0]])
