"""Broken here: the integers that shared noise hides, the words of their sum, what they are booked with.

Each fault is done to the real code; ``test_gate_breakages.py`` tries them all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from llmchain_fl.core.privacy import accountants, accounting, integers

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]
REAL_SUM = integers.clipped_integer_sum
REAL_LENGTH = integers.length_before
REAL_BITS = integers.word_bits


def sum_is(total: Callable[[torch.Tensor, float, int], np.ndarray]) -> Break:
    """The integer sum comes from ``total(rows, C, bits)``."""
    return lambda patch: patch.setattr(integers, "clipped_integer_sum", lambda rows, c, bits: (total(rows, c, bits), 0))


def plain(rows: torch.Tensor, c: float, bits: int) -> torch.Tensor:
    """Each row clipped to C, in units of the grid, not rounded yet."""
    norms = rows.double().norm(dim=1, keepdim=True).clamp_min(1e-300)
    return torch.nan_to_num(rows.double() * (c / norms).clamp(max=1) * (2**bits / c))


def nearest(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    return plain(rows, c, bits).round().sum(dim=0).numpy().astype(np.int64)


def away_from_zero(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    scaled = plain(rows, c, bits) * (REAL_LENGTH(rows.shape[1], bits) / 2**bits)
    return (scaled.sign() * scaled.abs().ceil()).sum(dim=0).numpy().astype(np.int64)


def after_summing(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    return REAL_SUM(rows.sum(dim=0, keepdim=True), c, bits)[0]


def rounded_after_summing(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    return plain(rows, c, bits).sum(dim=0).round().numpy().astype(np.int64)


def not_rounded(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    return plain(rows, c, bits).sum(dim=0).numpy()


def not_a_number_is_one(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    return REAL_SUM(torch.nan_to_num(rows, nan=c, posinf=c, neginf=-c), c, bits)[0] + 2**bits * int(rows.isnan().any())


def longer_for_many(rows: torch.Tensor, c: float, bits: int) -> np.ndarray:
    """The clip norm follows the number of people."""
    return REAL_SUM(rows, c, bits)[0] if len(rows) < 2 else REAL_SUM(rows, 2 * c, bits)[0] * 2


def narrow(members: int, box: int, variance: int) -> int:
    return REAL_BITS(members, box, variance) - 1


def for_one_site(members: int, box: int, variance: int) -> int:
    return REAL_BITS(1, box, variance)


def plain_words_of_one(patch: Patch) -> None:
    patch.setattr(integers, "_levels", lambda bound, members: 2**31 - 1)


def booked_with(factor: float) -> Break:
    """Integer noise is accounted as continuous noise of ``factor`` times its size."""

    def apply(patch: Patch) -> None:
        patch.setattr(accountants, "_ROUNDED", factor)
        patch.setattr(accounting, "_composed", accountants.compose)  # nothing from before

    return apply


BREAKAGES: dict[str, tuple[Break, str, str]] = {
    "no test of the integer length": (sum_is(nearest), "integer sensitivity", "integer sensitivity"),
    "rounded away from zero": (sum_is(away_from_zero), "integer sensitivity", "integer sensitivity"),
    "clipped after summing": (sum_is(after_summing), "integer sensitivity", "changes that follow from others"),
    "rounded after summing": (sum_is(rounded_after_summing), "integer sensitivity", "changes that follow from others"),
    "not rounded": (sum_is(not_rounded), "integer sensitivity", "sums that are not whole"),
    "a record that is no number adds C everywhere": (
        sum_is(not_a_number_is_one),
        "integer sensitivity",
        "integer sensitivity",
    ),
    "a clip norm that follows the number of people": (
        sum_is(longer_for_many),
        "integer sensitivity",
        "integer sensitivity",
    ),
    "a word one bit too narrow": (
        lambda patch: patch.setattr(integers, "word_bits", narrow),
        "room",
        "noised sums that wrap",
    ),
    "a word that is wide enough for one site": (
        lambda patch: patch.setattr(integers, "word_bits", for_one_site),
        "room",
        "noised sums that wrap",
    ),
    "plain words as if there were one site": (plain_words_of_one, "room", "plain sums that wrap"),
    "booked with twice the noise": (booked_with(2.0), "integer accounts", "least epsilon of integer noise"),
    "booked with a hundredth more noise": (booked_with(1.01), "integer accounts", "least epsilon of integer noise"),
    "booked as if nothing were rounded": (booked_with(1.0), "integer accounts", "epsilon of rounded noise"),
}
"""what is broken -> how, the check that must find it, the finding that must say so."""
