"""Tags of words and the spans they stand for: read in any scheme, written in one, decoded so that they fit. Numpy only.

A span is (first word, last word, name). Tags are positions: 0 is ``O``, 1 + 2 k is ``B-k``, 2 + 2 k is ``I-k`` of the
k-th name of the public list (IOB2). Spans of given tags follow conlleval's rule (Tjong Kim Sang and De Meulder 2003),
which reads IO, IOB1, IOB2, IOBES and BILOU alike: nothing has to be found out about a file, whose other records must
not decide how one is read.

    a span begins at   B, S, U; at I, E, M, L behind O, behind another name, behind E, L, S or U
    it ends            before a word where one begins, before O, and at the end

| tags | spans |
|---|---|
| ``I-PER I-PER`` (IO) | one: two that touch cannot be told apart |
| ``I-PER B-PER`` (IOB1) | two |
| ``O I-ORG I-ORG`` (IOB2 with a fault) | one, as conlleval and seqeval in its default mode have it |
| ``B-ORG I-PER`` | two |
| ``PER PER O`` (no prefix) | one, as IO |
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.data.lists import words_of

OUTSIDE = "O"
OPENS, GOES_ON, CLOSES = "BSU", "IEML", "ESLU"
Span = tuple[int, int, str]
Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]


def parts_of(tag: str, names: Container[str]) -> tuple[str, str] | None:
    """(prefix, name) of a tag; ("", "") of ``O``; None: it is none of the list."""
    if tag == OUTSIDE:
        return "", ""
    if tag in names:
        return "I", tag
    prefix, dash, name = tag.partition("-")
    return (prefix, name) if dash and prefix in OPENS + GOES_ON and prefix and name in names else None


def fault(row: Mapping[str, str], names: Container[str]) -> str:
    """Why ``row`` is no record of tagged words; "": it is one."""
    words = words_of(row["tokens"])
    if not words:
        return "no word in 'tokens'"
    if "tags" not in row:
        return ""
    tags = words_of(row["tags"])
    if len(tags) != len(words):
        return "another number of tags than of tokens"
    if any(len(tag) > 1 and tag[1] == "-" and tag[0] not in OPENS + GOES_ON for tag in tags):
        return "a tag with a prefix that is none of B, I, E, S, M, L, U"
    if any(parts_of(tag, names) is None for tag in tags):
        return "a tag that is not in the public list"
    return ""


def spans_of(tags: Sequence[str], names: Container[str]) -> list[Span]:
    """The spans of given tags, in order; a tag that is none of the list counts as ``O``."""
    found: list[Span] = []
    first, open_name, closed = 0, "", True
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, name = parts_of(tag, names) or ("", "")
        begins = bool(name) and (prefix in OPENS or name != open_name or closed)
        if open_name and (begins or not name):
            found.append((first, place - 1, open_name))
            open_name = ""
        if begins:
            first, open_name = place, name
        closed = prefix in CLOSES and bool(prefix)
        if not name:
            open_name = ""
    return found


def numbered(spans: Sequence[Span], count: int, names: Sequence[str]) -> Numbers:
    """IOB2 tags of ``count`` words as positions, int64 [count]."""
    tags, place = np.zeros(count, dtype=np.int64), {name: k for k, name in enumerate(names)}
    for first, last, name in spans:
        tags[first : last + 1] = 2 + 2 * place[name]
        tags[first] = 1 + 2 * place[name]
    return tags


def spans_at(tags: Numbers, names: Sequence[str]) -> list[Span]:
    """The spans of tags as positions."""
    return spans_of(["O" if t == 0 else f"{'IB'[t % 2]}-{names[(t - 1) // 2]}" for t in map(int, tags)], set(names))


def best_path(logs: Floats) -> Numbers:
    """The likeliest tags that fit together (Viterbi 1967), int64 [W], of log-probabilities [W, L].

    ``I-k`` stands behind ``B-k`` or ``I-k`` only. Of equals the lower position. No word: no tag.
    """
    words, size = logs.shape
    if not words:
        return np.zeros(0, dtype=np.int64)
    before, after = np.arange(size)[:, None], np.arange(size)[None, :]
    inside = (after > 0) & (after % 2 == 0)
    bar = np.where(inside & ~((before == after) | (before == after - 1)), -np.inf, 0.0)
    score, back = logs[0] + np.where(inside[0], -np.inf, 0.0), np.zeros((words, size), dtype=np.int64)
    for word in range(1, words):
        reached = score[:, None] + bar
        back[word] = reached.argmax(axis=0)
        score = reached.max(axis=0) + logs[word]
    path = [int(score.argmax())]
    for word in range(words - 1, 0, -1):
        path.append(int(back[word, path[-1]]))
    return np.array(path[::-1], dtype=np.int64)


def counts_of(right: Sequence[Span], found: Sequence[Span]) -> tuple[int, int, int]:
    """(found and right, found and not right, right and not found): boundary and name must be the same."""
    both = len(set(right) & set(found))
    return both, len(set(found)) - both, len(set(right)) - both
