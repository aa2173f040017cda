"""How many tokens a word takes, a Chinese sign counted as one; counts only, never a text."""

from __future__ import annotations

import pytest

from llmchain_fl.planning.findings import Findings
from llmchain_fl.planning.texts import WORD, check_texts


class Signs:
    """A tokenizer that makes a token of every ``size`` signs, with one token at each end."""

    unk_token_id, all_special_ids = None, (0, 1)

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, texts: str | list[str], truncation: bool = False) -> dict[str, list[object]]:
        if isinstance(texts, str):
            return {"input_ids": [0, 1]}
        return {"input_ids": [[0, *[5] * -(-len(text.replace(" ", "")) // self._size), 1] for text in texts]}


@pytest.mark.parametrize(
    ("text", "size", "expected", "level"),
    [("lost card", 4, "1.00", "fact"), ("lost card", 1, "4.00", "warning"), ("银行卡", 1, "1.00", "fact")],
)
def test_tokens_a_word_are_told_and_many_are_a_warning(text: str, size: int, expected: str, level: str) -> None:
    found = Findings()
    check_texts(found, Signs(size), [text] * 3, 64, 1)
    (told,) = [one for one in found if "tokens a word" in one.text]
    assert expected in told.text
    assert told.level.startswith(level[:4])
    assert text not in str([one.text for one in found])


def test_words_are_stretches_of_letters_and_single_signs() -> None:
    assert WORD.findall("Ben's 2 cards, 银行 カード") == ["Ben", "s", "2", "cards", "银", "行", "カ", "ー", "ド"]
