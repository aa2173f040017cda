"""BM25 over public passages: the formula by a plain loop, Chinese by pairs of signs, nothing found where nothing is."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("bm25s", reason="the extra retrieval is not installed")

from llmchain_fl.core.errors import DataError
from llmchain_fl.serve.passages import Passage, Passages, terms

TEXTS = [
    "Your card is blocked. A new card will come in five days.",
    "You can see your PIN in the app.",
    "Card fees: a card costs nothing in the first year, and a lost card is replaced.",
    "银行卡丢失后请立即冻结。",
]


def plain(question: str, texts: list[str]) -> list[float]:
    """The formula of the page, term by term."""
    counts = [Counter(terms(text)) for text in texts]
    mean, n = sum(sum(one.values()) for one in counts) / len(texts), len(texts)
    found = []
    for count in counts:
        score = 0.0
        for term in terms(question):
            holding, f = sum(term in one for one in counts), count[term]
            weight = math.log(1 + (n - holding + 0.5) / (holding + 0.5))
            score += weight * f / (f + 1.5 * (1 - 0.75 + 0.75 * sum(count.values()) / mean))
        found.append(score)
    return found


@pytest.mark.parametrize("question", ["my CARD is lost", "the PIN of a new card?", "card card card", "银行卡冻结"])
def test_scores_are_those_of_the_formula(question: str) -> None:
    held = Passages([Passage(str(n), text) for n, text in enumerate(TEXTS)])
    found = {int(one.id): score for one, score in held.best(question, 9)}
    expected = {n: score for n, score in enumerate(plain(question, TEXTS)) if score > 0}
    assert found == pytest.approx(expected, abs=1e-4)
    assert list(found) == sorted(found, key=lambda n: (-found[n], n))


def test_terms_are_words_and_pairs_of_chinese_signs() -> None:
    assert terms("Lost CARD, lost!") == ["lost", "card", "lost"]
    assert terms("ＰＩＮ 卡 银行卡 a1") == ["pin", "卡", "银行", "行卡", "a1"]
    assert terms("?!") == []


@pytest.mark.parametrize("question", ["", "?!", "zebra", "丢"])
def test_a_question_without_a_known_term_finds_nothing(question: str) -> None:
    assert Passages([Passage("1", text) for text in TEXTS]).best(question, 3) == []


def test_equal_passages_come_in_their_order_and_never_more_than_there_are() -> None:
    held = Passages([Passage(str(n), "card lost") for n in range(4)] + [Passage("x", "pay")])
    assert [one.id for one, _ in held.best("card", 3)] == ["0", "1", "2"]
    assert len(held.best("card", 99)) == 4


def test_a_file_of_passages_is_read_with_its_ids_or_numbered(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "a", "text": "card"}\n{"id": "b", "text": "pay card"}\n')
    assert [one.id for one in Passages.read(str(file)).held] == ["a", "b"]
    file.write_text('{"text": "card"}\n{"text": "pay"}\n')
    assert [one.id for one in Passages.read(str(file)).held] == ["1", "2"]
    file.write_text('{"words": "card"}\n')
    with pytest.raises(DataError):
        Passages.read(str(file))
