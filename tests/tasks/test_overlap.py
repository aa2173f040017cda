"""ROUGE-L, chrF and BLEU beside rouge-score and sacrebleu, on random texts and on traps made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from llmchain_fl.core.tasks.overlap import bleu, bleu_counts, chrf, rouge_l

WORDS = st.sampled_from(
    ["the", "cat", "Cat.", "sat,", "on", "a", "mat", "3.5", "1,000", "it's", "co-op", "(no)", "x-1-2"]
)
WESTERN = st.lists(WORDS, max_size=12).map(" ".join)
CHINESE = st.text(st.sampled_from("我你他说今天很好不是的人，。？！“”、A1 "), max_size=14).map(lambda text: f"你{text}")
TRAPS = [
    ("", ""),
    ("", "a cat"),
    ("a cat", ""),
    ("a", "a"),
    ("The cat sat on the mat.", "the cat sat on a mat"),
    ("cat", "cat cat cat cat"),
    ("cat cat cat cat", "cat"),
    ("&quot;1,000.50&quot; at 3-4", '"1,000.50" at 3-4'),
    ("one two three four five", "five four three two one"),
    ("...", "!!!"),
    ("a b c d e f", "a b c d e f"),
]


def same_bleu(pairs: Sequence[tuple[str, str]], tokenize: str) -> None:
    ours = bleu(np.sum([bleu_counts(*pair) for pair in pairs], axis=0))
    written, right = ([pair[k] for pair in pairs] for k in (0, 1))
    assert ours == pytest.approx(BLEU(tokenize=tokenize).corpus_score(written, [right]).score / 100, abs=1e-9)


@given(WESTERN, WESTERN)
def test_rouge_l_is_that_of_rouge_score(written: str, right: str) -> None:
    theirs = RougeScorer(["rougeL"]).score(right, written)["rougeL"].fmeasure
    assert rouge_l(written, right) == pytest.approx(theirs, abs=1e-12)


@given(st.one_of(WESTERN, CHINESE), st.one_of(WESTERN, CHINESE))
def test_chrf_is_that_of_sacrebleu(written: str, right: str) -> None:
    assert chrf(written, right) == pytest.approx(CHRF().sentence_score(written, [right]).score / 100, abs=1e-9)


@given(st.lists(st.tuples(WESTERN, WESTERN), min_size=1, max_size=5))
def test_bleu_of_many_texts_is_that_of_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    same_bleu(pairs, "13a")


@given(st.lists(st.tuples(CHINESE, CHINESE), min_size=1, max_size=5))
def test_bleu_of_chinese_texts_is_that_of_sacrebleus_zh(pairs: list[tuple[str, str]]) -> None:
    same_bleu(pairs, "zh")


@pytest.mark.parametrize(("written", "right"), TRAPS)
def test_on_each_trap_all_three_are_the_libraries(written: str, right: str) -> None:
    theirs = RougeScorer(["rougeL"]).score(right, written)["rougeL"].fmeasure
    assert rouge_l(written, right) == pytest.approx(theirs, abs=1e-12)
    assert chrf(written, right) == pytest.approx(CHRF().sentence_score(written, [right]).score / 100, abs=1e-9)
    same_bleu([(written, right)], "13a")


def test_rouge_reads_every_script_where_the_library_drops_all_but_a_to_z() -> None:
    assert rouge_l("我没事", "我没事。") == 1.0
    assert rouge_l("schöne Grüße", "schöne Grüße!") == 1.0
    assert rouge_l("我没事", "你没事") == pytest.approx(2 / 3)
    assert RougeScorer(["rougeL"]).score("我没事", "我没事")["rougeL"].fmeasure == 0.0


@given(st.text(max_size=20), st.text(max_size=20))
def test_all_of_them_lie_between_0_and_1_and_equal_texts_have_the_most(one: str, other: str) -> None:
    for score in (rouge_l, chrf, lambda a, b: bleu(bleu_counts(a, b))):
        assert 0.0 <= score(one, other) <= 1.0 + 1e-12
        assert score(one, other) <= score(other, other) + 1e-12
