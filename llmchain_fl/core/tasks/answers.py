"""Answers that are pieces of a text: whether a record is one, and how an answer is compared with the right ones.

Exact match and token F1 are those of SQuAD 1.1 (Rajpurkar et al. 2016, evaluate-v1.1.py): lower case, without
punctuation and the articles a, an, the; words between blanks; the best over all right answers. A text with Chinese,
Japanese or Korean signs is compared sign by sign (Cui et al. 2019, CMRC 2018; MLQA), for it has no blanks. A question
without an answer has the right answer "" (SQuAD 2.0: Rajpurkar et al. 2018, evaluate-v2.0.py).

| case | exact match, F1 |
|---|---|
| two texts of nothing but marks | 1, 1 |
| one of them | 0, 0 |
| ``the Cat!`` and ``cat`` | 1, 1 |
| ``三百八`` and ``三百零八`` | 0, 6/7 |
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from functools import partial

from llmchain_fl.core.data.lists import items_of

SIGN = re.compile(r"[\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def fault(row: Mapping[str, str], names: Container[str], none: bool = False) -> str:
    """Why ``row`` is no question with its answer (``none``: or without one); "": it is (or it is only asked)."""
    if "answers" not in row:
        return ""
    answers, starts, context = items_of(row["answers"]), items_of(row["answer_start"]), row["context"]
    if not (answers or none):
        return "no answer in 'answers', which is a record of task.kind = 'span-qa-or-none'"
    if len(starts) != len(answers):
        return "another number of 'answer_start' than of answers"
    for answer, start in zip(answers, starts, strict=True):
        if not isinstance(start, int) or start < 0:
            return "an 'answer_start' that is no whole number from 0 on"
        if not isinstance(answer, str) or not answer.strip():
            return "an answer that is empty or no text"
        if context[start : start + len(answer)] != answer:
            return "an answer that does not stand in 'context' where 'answer_start' says"
    return ""


fault_or_none = partial(fault, none=True)


def plain(text: str) -> str:
    """Lower case, without marks and articles, one blank between words."""
    lowered = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    if SIGN.search(text):
        lowered = "".join(sign for sign in lowered if not unicodedata.category(sign).startswith("P"))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", lowered).split())


def units(text: str) -> list[str]:
    """What is compared: words, and in a text with such signs each of these by itself."""
    bare = plain(text)
    return SIGN.sub(r" \g<0> ", bare).split()


def exact(found: str, right: Sequence[str]) -> float:
    """1 where ``found`` is one of the right answers."""
    return float(any(units(found) == units(one) for one in right))


def token_f1(found: str, right: Sequence[str]) -> float:
    """``2 m / (n + k)``: m words in common (as often as in both), n and k words; the best over the right answers."""
    return max((_f1(units(found), units(one)) for one in right), default=0.0)


def _f1(found: Sequence[str], right: Sequence[str]) -> float:
    if not found or not right:
        return float(not found and not right)
    return 2 * sum((Counter(found) & Counter(right)).values()) / (len(found) + len(right))
