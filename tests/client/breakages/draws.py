"""Broken here: who is drawn, and which records of a person.

Each fault is done to the real code; ``test_gate_breakages.py`` tries them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from client import gradients
from llmchain_fl.core.privacy import units as units_module
from llmchain_fl.core.privacy.sampling import poisson_batches

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_CALL = gradients.PrivateGradient.__call__


def gradient_is(call: Callable[[Any, Any, Any], torch.Tensor]) -> Break:
    """The private gradient of a step comes from ``call(object, batch, loss)``."""
    return lambda patch: patch.setattr(gradients.PrivateGradient, "__call__", call)


def draws_are(draw: Callable[..., Any]) -> Break:
    """Batches of unit numbers come from ``draw(n, rate, steps, uniform)``."""
    return lambda patch: patch.setattr(units_module, "poisson_batches", draw)


def shuffled(n: int, rate: float, steps: int, uniform: Any) -> Any:
    per_epoch = max(1, round(1 / rate))
    order = [part for _ in range(steps) for part in np.array_split(np.argsort(uniform(n)), per_epoch)]
    return iter(order[:steps])


def fixed(n: int, rate: float, steps: int, uniform: Any) -> Any:
    return (np.argsort(uniform(n))[: round(n * rate)] for _ in range(steps))


def capped(n: int, rate: float, steps: int, uniform: Any) -> Any:
    return (batch[: round(1.1 * n * rate)] for batch in poisson_batches(n, rate, steps, uniform))


def twice(n: int, rate: float, steps: int, uniform: Any) -> Any:
    return (np.append(batch, batch[:1]) for batch in poisson_batches(n, rate, steps, uniform))


def no_empty_steps(n: int, rate: float, steps: int, uniform: Any) -> Any:
    return (batch for batch in poisson_batches(n, rate, steps, uniform) if len(batch))


def one_draw(n: int, rate: float, steps: int, uniform: Any) -> Any:
    batch = np.flatnonzero(uniform(n) < rate).astype(np.int64)
    return (batch for _ in range(steps))


def paired(n: int, rate: float, steps: int, uniform: Any) -> Any:
    draws = (uniform((n + 1) // 2) for _ in range(steps))
    return (np.flatnonzero(np.repeat(draw, 2)[:n] < rate).astype(np.int64) for draw in draws)


def more_often(factor: float) -> Callable[..., Any]:
    return lambda n, rate, steps, uniform: poisson_batches(n, min(1.0, factor * rate), steps, uniform)


def most_are(take: Callable[..., Any]) -> Break:
    """Which records of a person with too many are used: ``take(records, most, uniform)``."""
    return lambda patch: patch.setattr(units_module, "_at_most", take)


def first_ones(records: Any, most: int, uniform: Any) -> Any:
    return records[:most]


def longest_ones(records: Any, most: int, uniform: Any) -> Any:
    """Not the same ones each time, and not all of them alike: the last are taken twice as often."""
    kept = np.argsort(uniform(len(records)) * np.where(np.arange(len(records)) < len(records) // 2, 1.0, 2.0))
    return np.sort(records[kept[:most]])


def heaviest_first(n: int, rate: float, steps: int, uniform: Any) -> Any:
    """Somebody with a low number is drawn a little more often."""
    rates = np.linspace(1.3 * rate, 0.7 * rate, max(n, 1))[:n]
    return (np.flatnonzero(uniform(n) < rates).astype(np.int64) for _ in range(steps))


def everybody(people: Any) -> list[Any]:
    return [np.ones(len(names), dtype=bool) for _, names in people]


BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "some people drawn more often": (draws_are(heaviest_first), "drawn batches", "uses of each person"),
    "shuffled epochs": (draws_are(shuffled), "noise and draws", "uses of each person"),
    "batches of one size": (draws_are(fixed), "noise and draws", "batch sizes"),
    "large batches cut off when drawn": (draws_are(capped), "drawn batches", "law of batch sizes"),
    "large batches cut off in the loop": (
        gradient_is(lambda self, batch, loss: REAL_CALL(self, batch[:7], loss)),
        "used once",
        "everybody used once",
    ),
    "a person drawn twice": (draws_are(twice), "drawn batches", "sampling rate"),
    "one draw for all steps of a round": (draws_are(one_draw), "noise and draws", "fresh draws"),
    "people drawn in pairs": (draws_are(paired), "drawn batches", "batch sizes"),
    "drawn 5 % too often": (draws_are(more_often(1.05)), "drawn batches", "sampling rate"),
    "drawn 20 % too often": (draws_are(more_often(1.2)), "noise and draws", "sampling rate"),
    "empty batches left out": (draws_are(no_empty_steps), "empty steps", "noise when nobody is drawn"),
    "the cap on a person's records ignored": (
        most_are(lambda records, most, uniform: records),
        "used once",
        "records of one person",
    ),
    "the first records of a person, not drawn ones": (most_are(first_ones), "used once", "which records of a person"),
    "some records of a person more often": (most_are(longest_ones), "used once", "which records of a person"),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""
MISSED = ("the first records of a person, not drawn ones", "some records of a person more often")
"""What no check found when the list was first tried."""
