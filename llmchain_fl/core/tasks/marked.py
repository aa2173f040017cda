"""Two marked things in a text: how the marks are read, which tokens are kept, how relations are scored. Numpy only.

A text holds ``<e1>...</e1>`` and ``<e2>...</e2>``, in either order. For the model each mark becomes a sign that every
vocabulary has, ``$`` around the first, ``#`` around the second (Wu and He 2019, R-BERT, arXiv 1905.08284): a token of
its own would need a trained embedding. Where a mark stands is known by its place in the text, so such a sign elsewhere
in the text is no mark.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MARK = re.compile(r"</?e[12]>")
SIGNS = {"1": "$", "2": "#"}
NOTHING = ("other", "none", "no_relation", "na")
"""Names, in lower case, of the label that says there is no relation: it is left out of F1."""
_DIRECTED = re.compile(r"(.*)\((e1,e2|e2,e1)\)")


class Marked(NamedTuple):
    """A text with signs in place of marks; (start, end) of each thing in it, signs included, as they stand."""

    text: str
    first: tuple[int, int]
    second: tuple[int, int]


def fault(row: Mapping[str, str], names: Container[str]) -> str:
    """Why ``row`` is no text with two marked things; "": it is one."""
    found = MARK.findall(row["text"])
    if sorted(found) != ["</e1>", "</e2>", "<e1>", "<e2>"]:
        return "not exactly one <e1>...</e1> and one <e2>...</e2> in 'text'"
    if found not in (["<e1>", "</e1>", "<e2>", "</e2>"], ["<e2>", "</e2>", "<e1>", "</e1>"]):
        return "marks in 'text' that are crossed, nested, or closed before they are opened"
    inside = re.findall(r"<e([12])>(.*?)</e\1>", row["text"], re.DOTALL)
    return "" if all(words.strip() for _, words in inside) else "a pair of marks in 'text' with nothing in between"


def signed(text: str) -> Marked:
    """``text`` with signs in place of its marks.

    >>> signed("the <e1>cat</e1> on a <e2>mat</e2>")
    Marked(text='the $ cat $ on a # mat #', first=(4, 11), second=(17, 24))
    """
    whole, at, starts, ends = "", 0, dict[str, int](), dict[str, int]()
    for mark in MARK.finditer(text):
        which, before = mark.group()[-2], text[at : mark.start()]
        at = mark.end()
        if mark.group().startswith("</"):
            whole += f"{before.rstrip()} {SIGNS[which]}"
            ends[which] = len(whole)
        else:
            whole += before
            starts[which] = len(whole)
            whole += f"{SIGNS[which]} "
            at += len(text[at:]) - len(text[at:].lstrip())
    return Marked(whole + text[at:], (starts["1"], ends["1"]), (starts["2"], ends["2"]))


def kept(places: NDArray[np.int64], spans: Sequence[tuple[int, int]], room: int) -> list[int]:
    """Which of the tokens at ``places`` [T, 2] (characters) are read, at most ``room``, both opening signs among them.

    | tokens | kept |
    |---|---|
    | at most ``room`` | all |
    | from the first sign to the last at most ``room`` | these, and as many around them |
    | more | half of the room from each opening sign on: what is between is left out |
    """
    if len(places) <= room:
        return list(range(len(places)))
    starts = sorted(token_at(places, start) for start, _ in spans)
    last = max(token_at(places, end - 1) for _, end in spans)
    wide = last + 1 - starts[0]
    if wide <= room:
        first = max(0, min(starts[0] - (room - wide) // 2, len(places) - room))
        return list(range(first, first + room))
    half = room // 2
    ahead = range(starts[0], min(starts[0] + half, starts[1]))
    return [*ahead, *range(starts[1], min(starts[1] + room - len(ahead), len(places)))]


def token_at(places: NDArray[np.int64], character: int) -> int:
    """The token that holds this character; the nearest one before it where none does."""
    holds = np.flatnonzero((places[:, 0] <= character) & (places[:, 1] > character))
    return int(holds[0]) if len(holds) else max(0, int(np.searchsorted(places[:, 0], character, side="right")) - 1)


def relation_f1(targets: NDArray[np.int64], answers: NDArray[np.int64], names: Sequence[str]) -> float:
    """The score of SemEval-2010 task 8 (Hendrickx et al. 2010, section 4): macro-averaged F1 over relations, the
    direction judged, the label that says there is none left out.

    Of a relation R, whichever the directions: TP: answers that are right, direction and all; P = TP / answers of R;
    R = TP / records of R; F1 = 2 P R / (P + R), 0 where TP is.

    | case | value |
    |---|---|
    | the right relation in the wrong direction | no TP: it costs P and R of that relation |
    | a relation without records and answers | counts as 0, as in the official scorer |
    | labels without a direction | each is a relation of its own |
    """
    kinds = [match.group(1) if (match := _DIRECTED.fullmatch(name)) else name for name in names]
    told, found = ([kinds[int(i)] for i in one] for one in (targets, answers))
    scores = []
    for kind in dict.fromkeys(kind for kind in kinds if kind.lower() not in NOTHING):
        pairs = zip(targets, answers, told, strict=True)
        right = sum(int(target == answer and own == kind) for target, answer, own in pairs)
        both = told.count(kind) + found.count(kind)
        scores.append(2 * right / both if both else 0.0)
    return float(np.mean(scores)) if scores else 0.0
