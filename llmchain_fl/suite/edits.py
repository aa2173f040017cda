"""Eight edits that keep what a text means, each at three strengths. Standard library only."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

STRENGTHS = (0.05, 0.15, 0.4)
"""Share of the letters that an edit may change; of a short text one at least."""
NEAR = {
    "a": "qs", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
"""Neighbours on a keyboard."""
ALIKE = {
    "a": "а", "c": "с", "e": "е", "i": "і", "o": "о", "p": "р", "x": "х", "y": "у", "A": "Α", "B": "Β", "E": "Ε",
    "H": "Η", "I": "Ι", "K": "Κ", "M": "Μ", "N": "Ν", "O": "Ο", "P": "Ρ", "T": "Τ", "X": "Χ",
}  # fmt: skip
"""Letters of other scripts that look the same (Unicode's confusables)."""
FILLERS = {"en": ("hello,", "so,", "by the way,"), "zh": ("你好，", "请问，", "那个，")}


def is_chinese(text: str) -> bool:
    """Whether there is a Chinese character in it."""
    return any("\u4e00" <= sign <= "\u9fff" for sign in text)


def _chosen(places: Sequence[int], strength: float, draw: random.Random) -> set[int]:
    return set(draw.sample(places, min(len(places), max(1, round(strength * len(places))))))


def _each(
    text: str, strength: float, draw: random.Random, fits: Callable[[str], bool], change: Callable[[str], str]
) -> str:
    chosen = _chosen([place for place, sign in enumerate(text) if fits(sign)], strength, draw)
    return "".join(change(sign) if place in chosen else sign for place, sign in enumerate(text))


def typo(text: str, strength: float, draw: random.Random) -> str:
    """Another key beside the right one."""
    return _each(text, strength, draw, lambda sign: sign in NEAR, lambda sign: draw.choice(NEAR[sign]))


def drop(text: str, strength: float, draw: random.Random) -> str:
    """Letters left out; never all of them."""
    left = _each(text, strength, draw, str.isalpha, lambda sign: "")
    return left if left.strip() else text


def swap(text: str, strength: float, draw: random.Random) -> str:
    """Neighbours that change places, within a word."""
    signs = list(text)
    pairs = [place for place in range(len(text) - 1) if text[place : place + 2].isalpha()]
    for place in sorted(_chosen(pairs, strength, draw)):
        signs[place], signs[place + 1] = signs[place + 1], signs[place]
    return "".join(signs)


def case(text: str, strength: float, draw: random.Random) -> str:
    """Capitals for small letters, and small ones for capitals."""
    return _each(text, strength, draw, lambda sign: sign.lower() != sign.upper(), str.swapcase)


def blanks(text: str, strength: float, draw: random.Random) -> str:
    """Blanks doubled."""
    return _each(text, strength, draw, str.isspace, lambda sign: sign * 2)


def wide(text: str, strength: float, draw: random.Random) -> str:
    """Full-width forms, as Chinese and Japanese keyboards give them; they are the same by NFKC."""
    return _each(text, strength, draw, lambda sign: "!" <= sign <= "~", lambda sign: chr(ord(sign) + 0xFEE0))


def alike(text: str, strength: float, draw: random.Random) -> str:
    """Letters of other scripts that look the same."""
    return _each(text, strength, draw, lambda sign: sign in ALIKE, lambda sign: ALIKE[sign])


def filler(text: str, strength: float, draw: random.Random) -> str:
    """A word that says nothing before it; stronger: more of them."""
    chinese = is_chinese(text)
    words = [draw.choice(FILLERS["zh" if chinese else "en"]) for _ in range(1 + STRENGTHS.index(strength))]
    return ("" if chinese else " ").join([*words, text])


Edit = Callable[[str, float, random.Random], str]
EDITS: Mapping[str, Edit] = MappingProxyType(
    {
        "typo": typo,
        "drop": drop,
        "swap": swap,
        "case": case,
        "blanks": blanks,
        "wide": wide,
        "alike": alike,
        "filler": filler,
    }
)


def edited(texts: Sequence[str], name: str, strength: float, seed: int) -> list[str]:
    """Each text with one edit, drawn by seed, edit and place alone: the same on every machine.

    | text | result |
    |---|---|
    | "" | itself, but for ``filler`` |
    | nothing in it that the edit changes | itself |
    | full-width already | itself under ``wide``; ``unicodedata.normalize("NFKC", ...)`` undoes it |
    """
    return [EDITS[name](text, strength, random.Random(f"{name}/{seed}/{place}")) for place, text in enumerate(texts)]
