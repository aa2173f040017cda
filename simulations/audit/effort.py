"""How much the gate does: the same checks, more or less often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Effort:
    """Sizes of the practice runs; all false alarm rates hold for any of them."""

    people: int = 64
    """People of a practice site whose draws are watched."""
    rounds: int = 2
    """Rounds of each practice site."""
    steps: int = 12
    """Steps of a round."""
    quiet: int = 1024
    """Coordinates that no record touches."""
    draws: int = 1000
    """Batches that are only drawn."""
    canaries: int = 800
    """Planted people, each in with probability 1/2."""
    canary_rounds: int = 3
    """Rounds that they are trained on, 8 steps each."""
    scores: int = 300
    """Noised scores asked for at once."""
    hostile: int = 40
    """Random records with adversarial norms, beside the fixed ones."""
    strangers: int = 0
    """People with random texts at a whole site, beside the fixed ones."""


EFFORTS: Mapping[str, Effort] = MappingProxyType(
    {
        "quick": Effort(),
        "full": Effort(
            rounds=8, quiet=4096, draws=10_000, canaries=4000, canary_rounds=6, scores=2000, hostile=2000, strangers=20
        ),
    }
)
