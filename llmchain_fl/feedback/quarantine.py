"""Which of one person's records may be trained on: a function of this person's own records and of public constants.

That it looks at nobody else is what keeps the privacy unit: a rule over the pool (drop what many said, keep the 100
most uncertain, at most 5 % of a round) would let a person's being there decide which records of *others* are trained
on, and the noise, scaled to one person's own records, would not cover it. So a flood by many accounts is met where
accounts are made, and by clipping, never here.

==============  ==========================================================================================
reason          the record
==============  ==========================================================================================
``no-target``   teaches nothing: ``down``, or ``up`` where these are not taken, or a task without a target
``length``      its input or target is empty or longer than ``most_chars``
``label``       its target is not in the public label list
``control``     holds characters that are not printable, other than line ends and tabs
``pattern``     holds one of the public ``patterns``, and no reviewer has accepted it
``unreviewed``  no reviewer has accepted it, where ``reviewed`` is asked
``rejected``    a reviewer has rejected it
``young``       is younger than ``min_age_s``: whoever told it may still take it back
``again``       says of nearly the same input what an earlier record of the person has decided
``cap``         would be more than the ``most`` first ones of this person in this edition
==============  ==========================================================================================
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from llmchain_fl.core.data.lists import Listed, read_list
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.feedback.record import ACCEPTED, COLUMNS, REJECTED, Record

NEAR = 0.9
"""Inputs whose words agree to this share (Jaccard) say the same."""
PATTERNS = (
    r"ignore (all |any )?(the |your )?(previous|prior|above) (instructions|prompts?)",
    r"disregard (all |any )?(the |your )?(previous|prior|above)",
    r"(?i:system prompt)",
    r"<\s*(script|iframe|img|svg|object)\b",
    r"<\|[a-z_]+\|>",
)
"""Of what people write to steer a model or a page and not to answer: public, the same for everybody."""


@dataclass(frozen=True)
class Rules:
    """Public constants of an edition."""

    most: int = 20
    most_chars: int = 4000
    min_age_s: float = 0.0
    reviewed: bool = True
    with_up: bool = False
    labels: frozenset[str] = frozenset()
    """The public label list; empty: any target."""
    patterns: tuple[str, ...] = PATTERNS


def judged(own: Sequence[Record], rules: Rules, now: float) -> Mapping[int, str]:
    """Id -> reason why it stays out, "" for those that are taken.

    Args:
        own: all records of one person, those of earlier editions too; they are not judged again.
        now: seconds since 1970.
    """
    reasons: dict[int, str] = {}
    said = [_words(record.told.input) for record in own if record.edition]
    taken = 0
    for record in sorted((one for one in own if not one.edition), key=lambda one: one.order):
        reason = _alone(record, rules, now)
        words = _words(record.told.input)
        if not reason and any(_near(words, other) for other in said):
            reason = "again"
        if not reason and taken >= rules.most:
            reason = "cap"
        if not reason:
            taken += 1
            said.append(words)
        reasons[record.id] = reason
    return MappingProxyType(reasons)


def _alone(record: Record, rules: Rules, now: float) -> str:
    """The reason that the record itself gives."""
    entry, target = record.told, record.target(rules.with_up)
    texts = (entry.input, target)
    checks = (
        ("rejected", record.state == REJECTED),
        ("no-target", not target or entry.task not in COLUMNS),
        ("length", not entry.input.strip() or any(len(text) > rules.most_chars for text in texts)),
        ("label", bool(rules.labels) and not rules.labels.issuperset(_labels(entry.task, target))),
        ("control", any(_unprintable(text) for text in texts)),
        ("pattern", record.state != ACCEPTED and any(_holds(text, rules.patterns) for text in texts)),
        ("unreviewed", rules.reviewed and record.state != ACCEPTED),
        ("young", now - entry.at < rules.min_age_s),
    )
    return next((reason for reason, holds in checks if holds), "")


def _labels(task: str, target: str) -> list[str]:
    """The labels that a target names: one, or those of a list."""
    column = task_kind(task).columns[-1] if task in COLUMNS else ""
    items = read_list(target) if isinstance(column, Listed) else None
    return [target] if items is None else [str(item) for item in items]


def _unprintable(text: str) -> bool:
    return any(not sign.isprintable() and sign not in "\n\t\r" for sign in text)


def _holds(text: str, patterns: Iterable[str]) -> bool:
    plain = unicodedata.normalize("NFKC", text)
    return any(re.search(pattern, plain, re.IGNORECASE) for pattern in patterns)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())) or frozenset({text})


def _near(one: frozenset[str], other: frozenset[str]) -> bool:
    return len(one & other) >= NEAR * len(one | other)
