"""Public passages in which a question is looked up by its words: BM25 over an index that bm25s keeps.

    score(q, d) = sum over the terms t of q:  ln(1 + (N - n_t + 0.5) / (n_t + 0.5))  f / (f + k1 (1 - b + b |d| / m))

f: how often t is in d; n_t of the N passages hold t; m: mean length in terms; k1 = 1.5, b = 0.75 (Robertson & Zaragoza
2009, the variant of Lucene; bm25s, arXiv 2407.03618). Terms are words in small letters, and of Chinese and Japanese
pairs of neighbouring signs. Nothing is learned, and nobody's question changes what another finds.

=========================================  ==================================================
case                                       result
=========================================  ==================================================
a question without a word of any passage   no passage
passages of equal score                    the earlier one first
a passage twice in the file                found twice
=========================================  ==================================================
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmchain_fl.data.source import read_rows
from llmchain_fl.extras import need

_SIGN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TERM = re.compile(rf"[{_SIGN}]+|[^\W{_SIGN}]+")


@dataclass(frozen=True)
class Passage:
    """One public text. ``id``: as its file names it, else its number from 1."""

    id: str
    text: str


def terms(text: str) -> list[str]:
    """What is counted of a text."""
    found = list[str]()
    for part in _TERM.findall(unicodedata.normalize("NFKC", text).casefold()):
        pairs = re.match(f"[{_SIGN}]{{2,}}", part) is not None
        found += [part[k : k + 2] for k in range(len(part) - 1)] if pairs else [part]
    return found


class Passages:
    """An index over ``held``, in their order.

    Raises:
        ConfigError: the extra ``retrieval`` is not installed.
    """

    def __init__(self, held: Sequence[Passage]) -> None:
        need("retrieval", "passages")
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG

        self.held = tuple(held)
        self._index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
        self._index.index([terms(one.text) or [""] for one in self.held], show_progress=False)

    @staticmethod
    def read(file: str) -> Passages:
        """Records with ``text``, and ``id`` where they have one.

        Raises:
            DataError: the file cannot be read, or holds no text.
        """
        rows = read_rows(file, mapping={}, required=("text",), split="train", seed=1, private=False).records
        return Passages([Passage(row.get("id") or str(n), row["text"]) for n, row in enumerate(rows, 1)])

    def best(self, question: str, count: int) -> list[tuple[Passage, float]]:
        """At most ``count`` passages that share a term with ``question``, the best first, with their scores."""
        known = self._index.get_tokens_ids(terms(question))
        if not known:
            return []
        scores = self._index.get_scores_from_ids(known)
        order = np.argsort(-scores, kind="stable")[:count]
        return [(self.held[int(k)], float(scores[k])) for k in order if scores[k] > 0]
