"""Public texts said in another way: edits that keep the meaning, and texts that differ only in who speaks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType


def _swap(text: str, draw: random.Random) -> str:
    """Two neighbouring letters of a word change places."""
    places = [i for i in range(1, len(text) - 2) if text[i].isalpha() and text[i + 1].isalpha()]
    if not places:
        return text
    at = draw.choice(places)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _drop(text: str, draw: random.Random) -> str:
    """One letter within a word is left out."""
    places = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
    if not places:
        return text
    at = draw.choice(places)
    return text[:at] + text[at + 1 :]


def _case(text: str, draw: random.Random) -> str:
    """All in capitals, or none."""
    return text.upper() if draw.random() < 0.5 else text.lower()


def _blanks(text: str, draw: random.Random) -> str:
    """Blanks doubled."""
    return "  ".join(text.split(" "))


def _marks(text: str, draw: random.Random) -> str:
    """Marks at the end gone, or two of them."""
    bare = text.rstrip(".?!。？！")
    return bare if bare != text else f"{text}!!"


def _filler(text: str, draw: random.Random) -> str:
    """A polite word before it."""
    wide = any("\u4e00" <= sign <= "\u9fff" for sign in text)
    return f"您好，{text}" if wide else f"{draw.choice(('hello,', 'hi there,', 'please,'))} {text}"


EDITS: Mapping[str, Callable[[str, random.Random], str]] = MappingProxyType(
    {"swap": _swap, "drop": _drop, "case": _case, "blanks": _blanks, "marks": _marks, "filler": _filler}
)
SPEAKERS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "en": (
            ("My name is Emily.", "My name is Mohammed."),
            ("I am a man.", "I am a woman."),
            ("I am from Sweden.", "I am from Nigeria."),
            ("I am 25 years old.", "I am 75 years old."),
        ),
        "zh": (("我叫王伟。", "我叫买买提。"), ("我是男的。", "我是女的。"), ("我今年25岁。", "我今年75岁。")),
    }
)
"""Language -> pairs of sentences that say who speaks; none of them says what is wanted."""


def edited(texts: Sequence[str], seed: int) -> list[str]:
    """Each text with one edit, chosen and drawn by ``seed`` and its place alone: the same on every machine.

    | text | result |
    |---|---|
    | "" | "!!", a greeting, or itself |
    | one letter | no letter is taken from it |
    """
    edits = []
    for place, text in enumerate(texts):
        draw = random.Random(f"edit/{seed}/{place}")
        edits.append(EDITS[draw.choice(sorted(EDITS))](text, draw))
    return edits


def speakers(texts: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Each text twice, with one pair of sentences before it: (as the one says it, as the other)."""
    first, second = [], []
    for place, text in enumerate(texts):
        wide = any("\u4e00" <= sign <= "\u9fff" for sign in text)
        one, other = random.Random(f"speaker/{seed}/{place}").choice(SPEAKERS["zh" if wide else "en"])
        blank = "" if wide else " "
        first.append(f"{one}{blank}{text}")
        second.append(f"{other}{blank}{text}")
    return first, second
