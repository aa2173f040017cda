"""A prompt goes on: what a tokenizer puts behind a closed text does not stand between it and the answer."""

from __future__ import annotations

from typing import Any

import pytest

from llmchain_fl.core.tasks.text import begun

WORDS = ["<pad>", "<s>", "</s>", "a", "b"]


def tokenizer_of(template: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="b"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        ("<s> $A </s>", "a b", [1, 3, 4]),
        ("<s> $A </s> </s>", "a b", [1, 3, 4]),
        ("$A </s>", "a b", [3, 4]),
        ("<s> $A", "a b", [1, 3, 4]),
        ("$A", "a b", [3, 4]),
        ("<s> $A </s>", "a </s>", [1, 3, 2]),  # an end that somebody wrote stays
        ("<s> $A </s>", "", [1]),
        ("$A </s>", "", [0]),
        ("$A", "", [0]),
    ],
)
def test_what_stands_behind_a_text_is_left_out(template: str, text: str, expected: list[int]) -> None:
    (found,) = begun(tokenizer_of(template), [text], 100)
    assert found.tolist() == expected


def test_no_end_stands_before_an_answer(small: Any) -> None:
    """The encoded record has one end of text: its last token."""
    task = small.task("causal-lm")
    tokenizer = task.resident.base.tokenizer
    before, closed = tokenizer.backend_tokenizer.post_processor, tokenizer_of("<s> $A </s>").backend_tokenizer
    tokenizer.backend_tokenizer.post_processor = closed.post_processor
    try:
        ids = task.encode([{"prompt": "pay fee", "answer": "why"}]).ids[0].tolist()
    finally:
        tokenizer.backend_tokenizer.post_processor = before
    assert ids.index(tokenizer.eos_token_id) == len(ids) - 1
    assert len(ids) == 5
