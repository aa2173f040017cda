"""Few labels: which records a person at the site should label next, and which the released adapter labels by itself.

    asked about:  p_1 - p_2 < below          (margin sampling, Scheffer et al. 2001)
    pseudo label: p_1 >= sure                (Lee 2013), the same number for every label

p_1, p_2: the two largest chances of the record under the released adapter. ``below`` and ``sure`` are public constants:
whether a record is chosen follows from this record alone, and costs no epsilon beyond the rounds that train on it. A
rule over the whole pool (the 100 least sure, the surest tenth) would make one person's records decide about others'.

| case | result |
|---|---|
| more than ``most`` records of one person are asked about | the least sure of this person's own; of equals the first |
| a record without a person | a person of its own |
| one label in the list | p_2 = 0 |
| a chance that is no number | neither |
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmchain_fl.core.privacy.units import same_person

Answers = Sequence[Sequence[tuple[str, float]]]
"""Of each record the best labels with their chances, the best first."""


@dataclass(frozen=True)
class Told:
    """What is public of the choice."""

    below: float = 0.2
    sure: float = 0.95
    most: int = 8


def margins(answers: Answers) -> list[float]:
    """p_1 - p_2 of each record."""
    gaps = []
    for best in answers:
        chances = [chance for _, chance in best[:2]]
        gaps.append(chances[0] - (chances[1] if len(chances) > 1 else 0.0))
    return gaps


def queue(rows: Sequence[Mapping[str, str]], answers: Answers, limits: Told) -> list[int]:
    """Places of the records to be labelled, the least sure first: an order for whoever reads them, and nobody else."""
    least = margins(answers)
    own: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        person = same_person(row["person"]) if "person" in row else f"\n{place}"
        own.setdefault(person, []).append(place)
    chosen = []
    for places in own.values():
        unsure = [place for place in places if least[place] < limits.below]
        chosen += sorted(unsure, key=lambda place: (least[place], place))[: limits.most]
    return sorted(chosen, key=lambda place: (least[place], place))


def sure(answers: Answers, limits: Told) -> list[int]:
    """Places of the records that the adapter labels, in the order of the records."""
    return [place for place, best in enumerate(answers) if math.isfinite(best[0][1]) and best[0][1] >= limits.sure]


def write_private(file: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """A new file of JSON lines that nobody else on the machine may read.

    Raises:
        OSError: it is there already, or the disk said no.
    """
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)
