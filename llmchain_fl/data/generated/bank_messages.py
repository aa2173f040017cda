"""Synthetic messages of customers to a made-up bank: 24 intents, 3 stages, 6 branches, many persons.

Plainly synthetic: templates, slot fillers, small talk and typing noise, all written by this project. The wording is
indirect on purpose, so that the name of a label alone does not give the label away.

What the data promises:

- the templates of split "test" are disjoint from those of "train" (slot fillers and small talk are shared), so a score
  on "test" is about sentences that were never seen;
- the same ``(seed, size, split)`` gives the same rows on every machine; persons of two seeds or splits never coincide;
- over all rows the 24 labels differ in count by at most one; the branches differ in their mixes;
- a person stays at one branch, keeps one way of typing, and writes 1 to 4 messages.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from llmchain_fl.data.generated.bank_templates import LABELS, STAGES, Phrases, label_texts, phrases

__all__ = ["LABELS", "STAGES", "Message", "bank_messages", "draw_messages", "label_texts"]

MOST_MESSAGES = 4
"""A person writes one to this many messages."""

_STAGE_OF = {label: stage for stage, labels in STAGES.items() for label in labels}
_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\[([^\]]+)\]")
_MONEY = ("{} euros", "€{}", "{} EUR", "{} pounds", "£{}")
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {row[i]: row[max(i - 1, 0) : i] + row[i + 1 : i + 2] for row in _KEYBOARD for i in range(len(row))}


@dataclass(frozen=True)
class Message:
    """One message and what it was made from.

    Attributes:
        text: what the customer typed, noise included.
        label: one of ``LABELS``.
        stage: the stage of the label.
        branch: the branch of the customer.
        person: identifier of the customer.
        slots: the fillers that stand in the text as they are (letter case aside).
    """

    text: str
    label: str
    stage: str
    branch: str
    person: str
    slots: dict[str, str]


@dataclass(frozen=True)
class _Customer:
    """How one person writes; chances are per message, ``typos`` per word."""

    name: str
    person: str
    branch: str
    typos: float
    greets: float
    chats: float
    closings: tuple[str, ...]
    lower: bool
    bare: bool


def bank_messages(seed: int, size: int, split: str) -> list[dict[str, str]]:
    """Labelled messages for classification.

    Args:
        seed: any integer.
        size: number of rows, at least 1 (checked by ``generate``).
        split: "train" or "test"; the two never share a template.

    Returns:
        ``size`` rows ``{"text", "label", "stage", "branch", "person"}`` in random order.
    """
    return rows_of(draw_messages(random.Random(f"bank-messages/{seed}/{split}"), f"s{seed}-{split}", size, split))


def rows_of(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages as rows of a data set."""
    return [
        {"text": m.text, "label": m.label, "stage": m.stage, "branch": m.branch, "person": m.person} for m in messages
    ]


def draw_messages(rng: random.Random, prefix: str, size: int, split: str) -> list[Message]:
    """Draw ``size`` messages; person identifiers start with ``prefix``.

    Labels are dealt out evenly first, then each goes to a branch with probability proportional to the branch's
    weight for that label, and the messages of a branch are handed to persons in runs of 1 to 4.
    """
    known = phrases()
    labels = [LABELS[i % len(LABELS)] for i in rng.sample(range(size), size)]
    if size % len(LABELS):  # the odd ones out should not always be the first labels
        renamed = dict(zip(LABELS, rng.sample(LABELS, len(LABELS)), strict=True))
        labels = [renamed[label] for label in labels]
    by_branch: dict[str, list[str]] = {branch.name: [] for branch in known.branches}
    for label in labels:
        chosen = rng.choices(known.branches, [branch.weights[label] for branch in known.branches])[0]
        by_branch[chosen.name].append(label)
    messages = [
        _message(rng, known, customer, label, split)
        for branch, dealt in by_branch.items()
        for customer, label in _to_persons(rng, known, f"{prefix}-{branch}", branch, dealt)
    ]
    rng.shuffle(messages)
    return messages


def _to_persons(
    rng: random.Random, known: Phrases, prefix: str, branch: str, labels: list[str]
) -> Iterator[tuple[_Customer, str]]:
    start, number = 0, 0
    while start < len(labels):
        customer = _customer(rng, known, f"{prefix}-{number:05d}", branch)
        count = rng.randint(1, MOST_MESSAGES)
        for label in labels[start : start + count]:
            yield customer, label
        start, number = start + count, number + 1


def _customer(rng: random.Random, known: Phrases, person: str, branch: str) -> _Customer:
    return _Customer(
        name=rng.choice(known.slots["name"]),
        person=person,
        branch=branch,
        typos=rng.choice((0.0, 0.0, 0.02, 0.05)),
        greets=rng.choice((0.1, 0.4, 0.8)),
        chats=rng.choice((0.0, 0.2, 0.5)),
        closings=tuple(known.talk["polite" if rng.random() < 0.8 else "blunt"]),
        lower=rng.random() < 0.25,
        bare=rng.random() < 0.25,
    )


def _message(rng: random.Random, known: Phrases, who: _Customer, label: str, split: str) -> Message:
    core, slots = _fill(rng, known, rng.choice(known.templates[split][label]))
    sentences = [_mistype(rng, core, who.typos, set(" ".join(slots.values()).split()))]
    if rng.random() < who.chats:
        sentences.insert(rng.randint(0, 1), rng.choice(known.talk["chatter"]))
    opener = rng.choice(known.talk["openers"]) + " " if rng.random() < who.greets else ""
    text = opener + " ".join(_sentence(part, capital=i > 0 or not opener) for i, part in enumerate(sentences))
    if rng.random() < who.greets:
        text += " " + rng.choice(who.closings).replace("{self}", who.name)
    if who.bare:
        text = re.sub(r"[,.:;!?'](?=\s|$)", "", text)
    if who.lower:
        text = text.lower()
    return Message(text, label, _STAGE_OF[label], who.branch, who.person, slots)


def _fill(rng: random.Random, known: Phrases, template: str) -> tuple[str, dict[str, str]]:
    """Settle the choices ``[a|b]`` and fill the slots; returns the sentence and the fillers used."""
    text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template)
    money = rng.choice(_MONEY)
    amount = rng.choice((20, 35, 40, 60, 75, 80, 90, 120, 150, 180, 240, 300, 450, 600, 850))
    slots: dict[str, str] = {}
    for slot in _SLOT.findall(text):
        if slot == "amount":
            slots[slot] = money.format(amount)
        elif slot == "less":
            slots[slot] = money.format(rng.choice((5, 10, 15)))
        else:
            slots[slot] = slots.get(slot) or rng.choice(known.slots[slot])
    return _SLOT.sub(lambda match: slots[match[1]], text), slots


def _sentence(text: str, *, capital: bool) -> str:
    """End with a full stop unless it asks; begin with a capital unless it follows "Hello,"."""
    return (text[0].upper() + text[1:] if capital else text) + ("" if text.endswith("?") else ".")


def _mistype(rng: random.Random, text: str, chance: float, spared: set[str]) -> str:
    """Damage each word of four letters or more with the given chance, except the fillers of slots."""
    words = text.split(" ")
    for i, word in enumerate(words):
        if len(word) >= 4 and word.isalpha() and word not in spared and rng.random() < chance:
            at = rng.randint(1, len(word) - 2)
            words[i] = rng.choice(_DAMAGES)(rng, word, at)
    return " ".join(words)


def _drop(_: random.Random, word: str, at: int) -> str:
    return word[:at] + word[at + 1 :]


def _double(_: random.Random, word: str, at: int) -> str:
    return word[:at] + word[at] + word[at:]


def _swap(_: random.Random, word: str, at: int) -> str:
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _slip(rng: random.Random, word: str, at: int) -> str:
    return word[:at] + rng.choice(_NEIGHBOURS.get(word[at], word[at])) + word[at + 1 :]


_DAMAGES = (_drop, _double, _swap, _slip)
