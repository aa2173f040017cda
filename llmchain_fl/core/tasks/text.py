"""Text -> token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def token_ids(
    tokenizer: Any, texts: Sequence[str], max_tokens: int, *, special: bool = True
) -> list[npt.NDArray[np.int64]]:
    """Token ids of each text, cut at ``max_tokens``; an empty text becomes one padding token (never zero tokens)."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens, add_special_tokens=special)["input_ids"]
    fallback = [tokenizer.pad_token_id or 0]
    return [np.asarray(ids or fallback, dtype=np.int64) for ids in encoded]


def begun(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Token ids of texts that go on: with what the tokenizer puts before a text, without what it puts behind one.

    Some tokenizers close each text with an end; a prompt with one in it asks for nothing. Never zero tokens.
    """
    (bare,), (whole,) = (token_ids(tokenizer, ["a"], max_tokens, special=special) for special in (False, True))
    places = [k for k in range(len(whole) - len(bare) + 1) if np.array_equal(whole[k : k + len(bare)], bare)]
    behind = len(whole) - places[0] - len(bare) if places else 0
    fallback = np.asarray([tokenizer.pad_token_id or 0], dtype=np.int64)
    found = [ids[: len(ids) - behind] for ids in token_ids(tokenizer, texts, max_tokens)]
    return [ids if len(ids) else fallback for ids in found]
