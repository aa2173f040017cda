from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.errors import ConfigError, PrivacyError
from llmchain_fl.privacy.attacks.canaries import COPIES, by_copies, exposure, make_canaries, words_of

WORDS = ("amber", "birch", "cedar", "delta", "ember")


@given(st.integers(2, 60), st.integers(0, 10**6))
def test_half_is_planted_and_half_is_held_back(count: int, seed: int) -> None:
    made = make_canaries("plain-text", count, WORDS, seed=seed)
    people = [canary.person for canary in (*made.planted, *made.held)]
    assert (len(made.planted), len(made.held)) == (count // 2, count - count // 2)
    assert len(set(people)) == count
    assert all(canary.copies == 0 and not canary.rows() for canary in made.held)
    assert [canary.copies for canary in made.planted] == [COPIES[i % 3] for i in range(count // 2)]


def test_the_coin_is_fair_for_every_canary() -> None:
    planted = np.zeros(10)
    for seed in range(2000):
        made = make_canaries("plain-text", 10, WORDS, seed=seed, words=1)
        planted[[int(canary.person.removeprefix("canary-")) for canary in made.planted]] += 1
    assert np.abs(planted / 2000 - 0.5).max() < 4 * math.sqrt(0.25 / 2000)


def test_copies_belong_to_one_person_and_carry_the_columns_of_the_site() -> None:
    made = make_canaries("plain-text", 8, WORDS, seed=1, copies=[4])
    rows = made.planted[0].rows({"stage": "cards", "hospital": "north"})
    assert len(rows) == 4
    assert all(row == rows[0] for row in rows)
    assert rows[0] == {
        **made.planted[0].row,
        "stage": "cards",
        "hospital": "north",
        "person": made.planted[0].person,
    }


@pytest.mark.parametrize(
    ("kind", "columns"),
    [("classification", {"text", "label"}), ("causal-lm", {"prompt", "answer"}), ("plain-text", {"text"})],
)
def test_every_kind_of_task_has_its_canaries(kind: str, columns: set[str], small: Any) -> None:
    made = make_canaries(kind, 20, WORDS, seed=1, labels=list(small.labels), words=5)
    for canary in (*made.planted, *made.held):
        assert set(canary.row) == columns
        assert all(len(canary.row[c].split()) == 5 for c in columns - {"label"})
        assert all(word in WORDS for c in columns - {"label"} for word in canary.row[c].split())
        assert canary.row.get("label", "why") in [*small.labels, "why"]
    small.task(kind).encode([dict(canary.row) for canary in made.held])


def test_equal_seeds_give_equal_canaries_and_others_do_not() -> None:
    one, same, other = (make_canaries("plain-text", 12, WORDS, seed=seed) for seed in (7, 7, 8))
    assert one == same
    assert one != other


def test_words_are_those_of_the_public_texts_once_each() -> None:
    assert words_of(["pay the fee", "the loan", ""]) == ("fee", "loan", "pay", "the")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"kind": "vision"}, "vision"),
        ({"count": 1}, "one held back"),
        ({"vocabulary": ()}, "vocabulary of 0"),
        ({"words": 0}, "0 words"),
        ({"kind": "classification"}, "label list"),
        ({"copies": ()}, "copies"),
        ({"copies": (1, 0)}, "1 or more"),
    ],
)
def test_canaries_that_could_show_nothing_are_refused(changes: dict[str, Any], what: str) -> None:
    told = {"kind": "plain-text", "count": 10, "vocabulary": WORDS, "seed": 1, **changes}
    with pytest.raises((PrivacyError, ConfigError), match=what):
        make_canaries(**told)


@pytest.mark.parametrize(
    ("score", "bits"),
    [(9.0, 3.0), (0.0, 0.0), (4.5, 3 - math.log2(5)), (5.5, 3 - math.log2(3)), (7.0, 2.0)],
)
def test_exposure_by_hand(score: float, bits: float) -> None:
    held = np.array([1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 4.6])
    assert exposure(np.array([score]), held)[0] == pytest.approx(bits)


def test_exposure_without_anybody_held_back_is_nothing() -> None:
    assert exposure(np.array([3.0]), np.array([])).tolist() == [0.0]


def test_canaries_that_were_not_learnt_have_an_exposure_of_about_log2_e() -> None:
    draw = np.random.default_rng(2)
    bits = [exposure(draw.normal(size=50), draw.normal(size=500)).mean() for _ in range(100)]
    assert np.mean(bits) == pytest.approx(math.log2(math.e), abs=0.1)


def test_values_are_parted_by_the_number_of_copies() -> None:
    made = make_canaries("plain-text", 12, WORDS, seed=1)
    parted = by_copies(made, np.arange(6.0))
    assert {number: values.tolist() for number, values in parted.items()} == {1: [0, 3], 4: [1, 4], 16: [2, 5]}
    with pytest.raises(PrivacyError, match="6 planted"):
        by_copies(made, np.ones(5))
