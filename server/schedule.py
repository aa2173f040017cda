"""Round number -> stage, learning rate. Public constants, known before the first round."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from llmchain_fl.config.schema import RunConfig


@dataclass(frozen=True)
class Slot:
    """One round of the plan. ``round`` counts from 1 over all stages, ``stage`` from 0."""

    round: int
    stage: int
    stage_name: str
    lr: float
    last: bool


def learning_rate(position: int, rounds: int, lr: float, final: float) -> float:
    """Cosine from ``lr`` (first round of a stage) to ``lr * final`` (its last round).

    lr_p = lr * (final + (1 - final) * (1 + cos(pi * p / (rounds - 1))) / 2),  p = 0 .. rounds - 1.

    ================  ===========
    case              result
    ================  ===========
    final = 1         lr always
    one round         lr
    ================  ===========
    """
    if rounds < 2:
        return lr
    return lr * (final + (1 - final) * (1 + math.cos(math.pi * position / (rounds - 1))) / 2)


def schedule(config: RunConfig) -> Iterator[Slot]:
    """Every round of the run, in order."""
    number = 0
    for stage, part in enumerate(config.stage):
        for position in range(part.rounds):
            number += 1
            lr = learning_rate(position, part.rounds, config.train.lr, config.train.lr_final)
            yield Slot(number, stage, part.name, lr, position == part.rounds - 1)
