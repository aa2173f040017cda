"""How long texts are in tokens, and how many of these the tokenizer of a base knows; no text is quoted.

==================================  =========================================
share                               line
==================================  =========================================
of texts cut, up to 5 %             fact
... more                            warning
of tokens a word, up to 3           fact
... more                            warning
of tokens unknown, up to 2 %        nothing
... up to half                      warning
... more                            fault: nothing can be learned from them
==================================  =========================================
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.planning.findings import Findings

log = logging.getLogger("llmchain_fl")
MOST_TEXTS = 2000
"""Texts whose tokens are counted."""
CUT, UNKNOWN, NOTHING_KNOWN, PIECES = 0.05, 0.02, 0.5, 3.0
WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)
"""Letters and digits together, or one Chinese, Japanese or Korean sign."""


def unknown_id(tokenizer: Any) -> int | None:
    """The id of a token that stands for all unknown ones; None where there is none of its own."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    return None if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id) else int(unknown)


def tell_cut(sets: Mapping[str, Examples], which: str, unknown: int | None) -> None:
    """Before round 1: of how many public texts something is cut, and how many of their tokens the base does not know.

    Args:
        sets: stage -> its test or dev records, in rows.
        which: ``test`` or ``dev``.
        unknown: the tokenizer's id of an unknown token, if it has one.
    """
    for stage, examples in sets.items():
        cut = examples.cut / max(1, examples.records)
        tokens = np.concatenate([np.zeros(0, dtype=np.int64), *examples.ids])
        lost = float((tokens == unknown).mean()) if unknown is not None and len(tokens) else 0.0
        tell = log.warning if cut > CUT or lost > UNKNOWN else log.info
        figures = (stage, 100 * cut, which, 100 * lost)
        tell('stage "%s": %.1f %% of the public %s texts are cut, %.1f %% of their tokens are unknown', *figures)


def check_texts(
    notes: Findings, tokenizer: Any, texts: list[str], most: int, windows: int = 1, share: float | None = None
) -> None:
    """See the table of the module.

    Args:
        notes: takes the lines.
        tokenizer: of the base.
        texts: what is counted.
        most: tokens of a row (``model.max_tokens``).
        windows: rows of a text (``task.windows``).
        share: of texts cut, where they have been read into rows; None: by their lengths.
    """
    if tokenizer is None or not texts:
        return
    ids = tokenizer(texts, truncation=False)["input_ids"]
    lengths = np.array([len(one) for one in ids])
    ends = len(tokenizer("")["input_ids"])
    cut = float((lengths > ends + windows * (most - ends)).mean()) if share is None else share
    where = ("" if windows == 1 else f"{windows} rows of ") + f"model.max_tokens = {most}"
    text = f"{len(texts)} texts: {np.median(lengths):.0f} tokens in the middle, the longest {lengths.max()}"
    if cut > CUT:
        notes.warn("texts", f"{text}; {cut:.0%} are cut at {where}", "raise it, or task.windows: a round takes longer")
    else:
        notes.fact("texts", f"{text}; {cut:.1%} are cut at {where}")
    _check_fertility(notes, ids, texts, ends)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    plain = [token for one in ids for token in one if token not in special]
    unknown = plain.count(tokenizer.unk_token_id) / max(1, len(plain)) if tokenizer.unk_token_id is not None else 0.0
    if unknown > NOTHING_KNOWN:
        notes.fault(
            "texts",
            f"{unknown:.0%} of all tokens are unknown to the base's tokenizer: nothing can be learned from them",
            "give a base whose tokenizer knows the language of the records; look for tokenizer.json in its folder",
        )
    elif unknown > UNKNOWN:
        notes.warn("texts", f"{unknown:.1%} of all tokens are unknown to the base's tokenizer", "try another base")


def _check_fertility(findings: Findings, ids: Sequence[Sequence[int]], texts: Sequence[str], ends: int) -> None:
    """Tokens a word: a tokenizer that cuts words into signs leaves little room in a row and little to learn from."""
    words = sum(len(WORD.findall(text)) for text in texts)
    if not words:
        return
    pieces = sum(max(0, len(one) - ends) for one in ids) / words
    rate = f"{pieces:.2f} tokens a word"
    if pieces > PIECES:
        findings.warn(
            "texts", f"{rate}: the base's tokenizer knows few words of these texts", "try a base of their language"
        )
    else:
        findings.fact("texts", rate)
