"""Answers that are pieces of a text: exact match and F1 as SQuAD's own script has them, Chinese sign by sign."""

from __future__ import annotations

import json
import re
import string
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.tasks.answers import exact, fault, fault_or_none, token_f1, units
from llmchain_fl.core.tasks.span_qa import LONGEST, best_pieces

WORDS = ["the", "a", "Cat", "cat", "cats", "and", "308", "U.S.", "don't", "--", "an", "Los", "Angeles", "\u00e9t\u00e9"]
TEXT = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)


def normalised(text: str) -> str:
    """``normalize_answer`` of SQuAD's evaluate-v1.1.py, written down again."""
    text = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(prediction: str, truth: str) -> float:
    """``f1_score`` of the same; of two empty texts 1, as version 2 has it."""
    found, right = normalised(prediction).split(), normalised(truth).split()
    if not found or not right:
        return float(found == right)
    same = sum((Counter(found) & Counter(right)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(found), same / len(right)
    return 2 * precision * recall / (precision + recall)


@given(TEXT, st.lists(TEXT, min_size=1, max_size=3))
def test_exact_match_and_f1_are_squads(found: str, right: list[str]) -> None:
    assert exact(found, right) == max(float(normalised(found) == normalised(one)) for one in right)
    assert token_f1(found, right) == pytest.approx(max(squad_f1(found, one) for one in right))


@pytest.mark.parametrize(
    ("found", "right", "em", "f1"),
    [
        ("the Cat!", ["cat"], 1, 1),
        ("cat", ["dog", "the cat"], 1, 1),
        ("black cat", ["cat"], 0, 2 / 3),
        ("cat cat", ["cat"], 0, 2 / 3),
        ("", ["cat"], 0, 0),
        ("!", ["--"], 1, 1),
        ("\u4e09\u767e\u516b", ["\u4e09\u767e\u96f6\u516b"], 0, 6 / 7),
        ("\u4e09\u767e\u96f6\u516b\u3002", ["\u4e09\u767e\u96f6\u516b"], 1, 1),
        ("\u5728 2015 \u5e74", ["2015 \u5e74"], 0, 4 / 5),
        ("2015\u5e74", ["2015 \u5e74"], 1, 1),
    ],
)
def test_each_trap_by_hand(found: str, right: list[str], em: float, f1: float) -> None:
    assert exact(found, right) == em
    assert token_f1(found, right) == pytest.approx(f1)


def test_chinese_is_read_sign_by_sign_and_latin_words_stay_whole() -> None:
    assert units("\u5317\u4eac Hotel 308") == ["\u5317", "\u4eac", "hotel", "308"]


def row(answers: object = ("cat",), starts: object = (4,), **changes: str) -> dict[str, str]:
    told = {
        "question": "who",
        "context": "the cat sat",
        "answers": json.dumps(answers),
        "answer_start": json.dumps(starts),
    }
    return told | changes


@pytest.mark.parametrize(
    ("one", "part"),
    [
        (row(), ""),
        (row(("cat", "sat"), (4, 8)), ""),
        ({"question": "who", "context": "the cat"}, ""),
        (row(()), "no answer"),
        (row(("cat", "sat")), "another number"),
        (row(("cat",), (5,)), "does not stand"),
        (row(("Cat",)), "does not stand"),
        (row(("cat",), (400,)), "does not stand"),
        (row(("sat down",), (8,)), "does not stand"),
        (row(("cat",), (-7,)), "whole number"),
        (row(("cat",), ("4",)), "whole number"),
        (row((" ",), (3,)), "empty"),
        (row((7,), (4,)), "empty or no text"),
        (row(("cat", "sat"), (4, 9)), "does not stand"),
    ],
)
def test_what_is_no_record_says_why_and_quotes_nothing(one: dict[str, str], part: str) -> None:
    found = fault(one, ())
    assert part in found
    assert bool(found) is bool(part)
    assert "cat" not in found.lower()


def test_a_question_without_an_answer_is_a_record_where_the_task_says_so_and_else_names_the_task_that_does() -> None:
    assert "span-qa-or-none" in fault(row((), ()), ())
    assert fault_or_none(row((), ()), ()) == ""
    assert "another number" in fault_or_none(row(()), ())
    assert "another number" in fault_or_none(row(starts=()), ())
    assert fault_or_none(row(), ()) == fault_or_none({"question": "who", "context": "the cat"}, ()) == ""
    assert fault_or_none(row(("Cat",)), ()) == fault(row(("Cat",)), ())


@given(st.integers(1, 45), st.integers(0, 10**6), st.integers(1, 4))
def test_the_best_pieces_are_those_of_a_plain_loop(size: int, seed: int, top: int) -> None:
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(2, size))
    places = np.where(draw.random(size) < 0.8, np.arange(size), -1)[:, None] + np.array([0, 1])
    places[places[:, 0] < 0] = -1
    text = [k for k in range(size) if places[k, 0] >= 0]
    expected = sorted(
        ((logits[0, i] + logits[1, j], i, j) for i in text for j in text if i <= j < i + LONGEST), reverse=True
    )
    found = best_pieces(logits, places, 5, top)
    assert [(i, j) for _, _, i, j, _ in found] == [(i, j) for _, i, j in expected[:top]]
    assert all(0 < chance <= 1 for *_, chance in found)
