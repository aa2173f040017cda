"""How near a written text is to the right one: ROUGE-L, chrF and BLEU of one pair, and BLEU of many.

======  ===================================================================================  =======================
score   formula                                                                              equals
======  ===================================================================================  =======================
ROUGE-L F1 of the longest common subsequence of words: P = l / n, R = l / m (Lin 2004)       rouge-score ``rougeL``
chrF    mean P and R of character n-grams, n = 1 .. 6, F with beta 2 (Popovic 2015)          sacrebleu ``chrF``
BLEU    exp(min(0, 1 - r / c)) x geometric mean of n-gram precisions, n = 1 .. 4 (Papineni   sacrebleu ``BLEU``, its
        2002); a precision of 0 becomes 1 / (2^k x count), the k-th time                     tokens ``13a`` or ``zh``
======  ===================================================================================  =======================

All lie in 0 .. 1. Chinese, Japanese and Korean signs are words of their own. ROUGE's words are runs of letters and
digits of any script in lower case (rouge-score drops all but a-z and 0-9: an umlaut, and all of Chinese).

| case | result |
|---|---|
| no word (sign) in either text, or in one | ROUGE-L 0, chrF 0 |
| no word written in any text | BLEU 0 |
| not one word of all is right | BLEU 0 |
| no n-gram of some length in either text (chrF) | this length is left out of the mean |
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.tasks.answers import SIGN

BETA, LONGEST_CHARACTERS, LONGEST_WORDS = 2.0, 6, 4
_WORD = re.compile(r"[^\W_]+")
_13A = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", r" \1 "),
        (r"([^0-9])([\.,])", r"\1 \2 "),
        (r"([\.,])([^0-9])", r" \1 \2"),
        (r"([0-9])(-)", r"\1 \2 "),
    )
)
"""The rules of mteval-v13a on the written language."""
_MARKS = (("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_ZH = re.compile(
    r"[\u2001-\u2a6d\u2e80-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u33ff\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef]|"
    + SIGN.pattern
)
"""What sacrebleu's ``zh`` puts blanks around, punctuation too, and the signs of Japanese and Korean."""


def rouge_l(written: str, right: str) -> float:
    """F1 of the longest common subsequence of words."""
    one, other = (_WORD.findall(SIGN.sub(r" \g<0> ", text.lower())) for text in (written, right))
    common = _longest_common(one, other)
    return 2 * common / (len(one) + len(other)) if common else 0.0


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, by rows of its table."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, against in enumerate(other, start=1):
            above = row[place]
            row[place] = before + 1 if word == against else max(above, row[place - 1])
            before = above
    return row[-1]


def chrf(written: str, right: str) -> float:
    """chrF2 of one pair, without blanks, without word n-grams."""
    one, other = ("".join(text.split()) for text in (written, right))
    precisions, recalls = [], []
    for n in range(1, LONGEST_CHARACTERS + 1):
        found, wanted = _grams(one, n), _grams(other, n)
        if found and wanted:
            both = (found & wanted).total()
            precisions.append(both / found.total())
            recalls.append(both / wanted.total())
    if not precisions:
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    below = BETA**2 * precision + recall
    return (1 + BETA**2) * precision * recall / below if below else 0.0


def _grams(items: Sequence[str], n: int) -> Counter[Sequence[str]]:
    return Counter(items[k : k + n] for k in range(len(items) - n + 1))


def bleu_words(text: str, *, signs: bool) -> tuple[str, ...]:
    """The words that BLEU compares: of ``13a``, or with ``signs`` of ``zh``: each such sign by itself."""
    if signs:
        text = _ZH.sub(r" \g<0> ", text.strip())
    else:
        for mark, plain in _MARKS:
            text = text.replace(mark, plain)
        text = f" {text} "
    for pattern, by in _13A:
        text = pattern.sub(by, text)
    return tuple(text.split())


def bleu_counts(written: str, right: str) -> NDArray[np.float64]:
    """Of one pair: right n-grams for n = 1 .. 4, all n-grams written, words written, words of the right text."""
    signs = SIGN.search(right) is not None
    one, other = (bleu_words(text, signs=signs) for text in (written, right))
    grams = [(_grams(one, n), _grams(other, n)) for n in range(1, LONGEST_WORDS + 1)]
    both = [(found & wanted).total() for found, wanted in grams]
    return np.array([*both, *(found.total() for found, _ in grams), len(one), len(other)], dtype=np.float64)


def bleu(counts: NDArray[np.float64]) -> float:
    """BLEU of the sum of such counts, 0 .. 1."""
    right, total, (c, r) = counts[:LONGEST_WORDS], counts[LONGEST_WORDS : 2 * LONGEST_WORDS], counts[-2:]
    if not right[0]:
        return 0.0
    logs, smooth = 0.0, 1.0
    for both, count in zip(right, total, strict=True):
        if not count:
            return 0.0
        smooth *= 1.0 if both else 2.0
        logs += math.log(both / count if both else 1 / (smooth * count))
    return math.exp(logs / LONGEST_WORDS + min(0.0, 1 - r / c))
