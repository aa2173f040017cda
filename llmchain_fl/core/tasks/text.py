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
