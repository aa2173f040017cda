"""Made-up leaflets of made-up medicines, questions to them, and questions that no leaflet answers.

A leaflet says five of six facts, in sentences of any order; which one is missing is drawn. Both splits have medicines
of their own, and questions in words of their own (``leaflets.toml``). Persons ask; each belongs to one ward. The
context of a question is its leaflet.
"""

from __future__ import annotations

import functools
import json
import random
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from llmchain_fl.data.generated.bank_templates import SPLITS

MEDICINES = {"train": 120, "test": 40}
"""Leaflets of each split."""
WARDS = ("ward-a", "ward-b", "ward-c")
PER_PERSON = 3
"""Questions of one person, about."""
_FIRST = ("Ama", "Belo", "Cori", "Dexa", "Ena", "Fluvi", "Gala", "Hydro", "Ivo", "Keto", "Lumi", "Mori", "Nava", "Oxi")
_SECOND = ("lant", "mab", "nil", "prax", "quin", "rol", "sept", "tide", "vir", "xan", "zole", "dene")


@dataclass(frozen=True)
class Fact:
    """One thing that a leaflet says. ``train``, ``test``: how it is asked for."""

    says: tuple[str, ...]
    values: tuple[str, ...]
    train: tuple[str, ...]
    test: tuple[str, ...]

    def asked(self, split: str) -> tuple[str, ...]:
        """Questions of a split."""
        return self.train if split == "train" else self.test


@dataclass(frozen=True)
class Leaflet:
    """``answers``: fact -> (the piece of ``text`` that says it, where it begins); a fact that is missing is none."""

    name: str
    text: str
    answers: dict[int, tuple[str, int]]

    @property
    def missing(self) -> int:
        """The fact that it leaves out."""
        return next(number for number in range(len(_facts())) if number not in self.answers)


@functools.cache
def _facts() -> tuple[Fact, ...]:
    tree = tomllib.loads((resources.files(__package__) / "leaflets.toml").read_text(encoding="utf-8"))
    return tuple(Fact(**{key: tuple(value) for key, value in one.items()}) for one in tree["fact"])


def _names(split: str) -> Sequence[str]:
    names = [first + second for first in _FIRST for second in _SECOND]
    random.Random("medicines").shuffle(names)
    start = 0 if split == SPLITS[0] else MEDICINES["train"]
    return names[start : start + MEDICINES[split]]


@functools.cache
def _leaflets(split: str) -> tuple[Leaflet, ...]:
    return tuple(_leaflet(name) for name in _names(split))


def _leaflet(name: str) -> Leaflet:
    draw, facts = random.Random(f"leaflet/{name}"), _facts()
    order = draw.sample(range(len(facts)), len(facts) - 1)
    text, answers = f"{name}: information for patients.", dict[int, tuple[str, int]]()
    for number in order:
        said, value = draw.choice(facts[number].says), draw.choice(facts[number].values)
        begin = len(text) + 1 + said.index("{it}") - (len("{name}") - len(name)) * ("{name}" in said)
        text += " " + said.replace("{name}", name).replace("{it}", value)
        answers[number] = (value, begin)
    return Leaflet(name, text, answers)


def leaflets() -> list[dict[str, str]]:
    """Rows ``{"id", "text"}``: the leaflets of the split "test", which a service may show."""
    return [{"id": one.name.lower(), "text": one.text} for one in _leaflets("test")]


def leaflet_questions(seed: int, size: int, split: str) -> list[dict[str, str]]:
    """Rows with ``question``, ``context``, ``answers``, ``answer_start``, ``person``, ``ward``.

    Args:
        seed: any integer.
        size: number of rows, at least 1 (checked by ``generate``).
        split: "train" or "test"; the two share neither a medicine nor the words of a question.
    """
    rows = []
    for draw, one, asker in _asked(seed, size, split):
        number = draw.choice(sorted(one.answers))
        piece, begin = one.answers[number]
        question = draw.choice(_facts()[number].asked(split)).replace("{name}", one.name)
        where = {"answers": json.dumps([piece]), "answer_start": json.dumps([begin])}
        rows.append({"question": question, "context": one.text, **where, **asker})
    return rows


def leaflet_questions_or_none(seed: int, size: int, split: str) -> list[dict[str, str]]:
    """The same, and every third row has no answer (in SQuAD 2 a third has none, too): in turns its leaflet says what is
    asked for and is of another medicine, or leaves it out."""
    rows = leaflet_questions(seed, size, split)
    for place, (draw, one, _) in enumerate(_asked(seed, size, split)):
        if place % 3 == 2:
            other = place % 2 == 0
            number = draw.choice(sorted(one.answers)) if other else one.missing
            name = draw.choice([name for name in _names(split) if name != one.name]) if other else one.name
            question = draw.choice(_facts()[number].asked(split)).replace("{name}", name)
            rows[place] |= {"question": question, "context": one.text, "answers": "[]", "answer_start": "[]"}
    return rows


def leaflet_unanswerable(seed: int, size: int, split: str) -> list[dict[str, str]]:
    """Rows with ``question``, ``person``, ``ward``: two ask for the fact that their leaflet leaves out, the next two
    for a medicine without a leaflet, and so on: both halves of a set that is dealt out in turns have as many of each.
    """
    rows = []
    for place, (draw, one, asker) in enumerate(_asked(seed, size, split)):
        other = place % 4 > 1
        number = draw.randrange(len(_facts())) if other else one.missing
        name = draw.choice(_SECOND).capitalize() + draw.choice(_FIRST).lower() if other else one.name
        question = draw.choice(_facts()[number].asked(split)).replace("{name}", name)
        rows.append({"question": question, **asker})
    return rows


def _asked(seed: int, size: int, split: str) -> Iterator[tuple[random.Random, Leaflet, dict[str, str]]]:
    draw, known = random.Random(f"leaflets/{seed}/{split}"), _leaflets(split)
    for _ in range(size):
        number = draw.randrange(max(1, size // PER_PERSON))
        yield draw, draw.choice(known), {"person": f"{split}-{number}", "ward": WARDS[number % len(WARDS)]}
