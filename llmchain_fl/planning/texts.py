"""How long texts are in tokens, and how many of these the tokenizer of a base knows; no text is quoted.

==================================  =========================================
share                               line
==================================  =========================================
of texts cut, up to 5 %             fact
... more                            warning
of tokens unknown, up to 2 %        nothing
... up to half                      warning
... more                            fault: nothing can be learned from them
==================================  =========================================
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llmchain_fl.planning.findings import Findings

MOST_TEXTS = 2000
"""Texts whose tokens are counted."""
CUT, UNKNOWN, NOTHING_KNOWN = 0.05, 0.02, 0.5


def check_texts(found: Findings, tokenizer: Any, texts: list[str], most: int) -> None:
    """See the table of the module. ``most``: tokens of a text that are kept (``model.max_tokens``)."""
    if tokenizer is None or not texts:
        return
    ids = tokenizer(texts, truncation=False)["input_ids"]
    lengths = np.array([len(one) for one in ids])
    cut = float((lengths > most).mean())
    told = f"{len(texts)} texts: {np.median(lengths):.0f} tokens in the middle, the longest {lengths.max()}"
    if cut > CUT:
        found.warn("texts", f"{told}; {cut:.0%} are cut at model.max_tokens = {most}", "raise it: passes take longer")
    else:
        found.fact("texts", f"{told}; {cut:.1%} are cut at model.max_tokens = {most}")
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    plain = [token for one in ids for token in one if token not in special]
    unknown = plain.count(tokenizer.unk_token_id) / max(1, len(plain)) if tokenizer.unk_token_id is not None else 0.0
    if unknown > NOTHING_KNOWN:
        found.fault(
            "texts",
            f"{unknown:.0%} of all tokens are unknown to the base's tokenizer: nothing can be learned from them",
            "give a base whose tokenizer knows the language of the records; look for tokenizer.json in its folder",
        )
    elif unknown > UNKNOWN:
        found.warn("texts", f"{unknown:.1%} of all tokens are unknown to the base's tokenizer", "try another base")
