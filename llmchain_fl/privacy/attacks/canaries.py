"""Text canaries: records of random words, half of them planted in the training data by the toss of a coin.

Because a coin decides, planted and held-back canaries differ in nothing but the planting: whatever tells them apart
was learnt in training. Two readings of the same scores:

* exposure (Carlini et al. 2019, arXiv 1802.08232, section 4): how far up a planted canary ranks among candidates that
  were drawn alike and held back;
* membership (``membership.py``): AUC, and the share found at few false alarms, beside the ceiling of (epsilon, delta).

Weak, and honest about it: with text canaries and scores of the finished model alone, Panda et al. 2025
(arXiv 2503.06808) certify an epsilon of about 1 for models trained with epsilon 4. A high exposure shows leakage; a
low one shows little. The noise itself is checked elsewhere, from inside (``privacy/audit``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.tasks.kind import TaskKind, task_kind

COPIES = (1, 4, 16)
"""How often a planted canary stands in the data, taken in turn."""


@dataclass(frozen=True)
class Canary:
    """One made-up person with one record, ``copies`` times in the data (0: held back)."""

    person: str
    row: Mapping[str, str]
    copies: int

    def rows(self, extra: Mapping[str, str] | None = None) -> list[dict[str, str]]:
        """The records to plant, with the columns ``extra`` (stage, hospital ...); none for one held back."""
        return [{**self.row, **(extra or {}), "person": self.person} for _ in range(self.copies)]


@dataclass(frozen=True)
class Canaries:
    """Planted and held-back canaries, drawn alike."""

    planted: tuple[Canary, ...]
    held: tuple[Canary, ...]


def words_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The different words of public texts, sorted: what canaries are made of."""
    return tuple(sorted({word for text in texts for word in text.split()}))


def make_canaries(
    kind: str,
    count: int,
    vocabulary: Sequence[str],
    *,
    seed: int,
    labels: Sequence[str] = (),
    copies: Sequence[int] = COPIES,
    words: int = 8,
) -> Canaries:
    """``count`` canaries, half of them (rounded down) planted, ``copies`` times in turn.

    Every column of random words holds ``words`` words drawn independently; a label is drawn uniformly, so that the
    right one cannot be guessed from the text. Equal arguments give equal canaries: keep the seed from the sites.

    Raises:
        ConfigError: no kind of task has this name.
        PrivacyError: fewer than two canaries, no word, no label where one is needed, or copies < 1.
    """
    declared = task_kind(kind)
    faults = [
        (count < 2, f"{count} canaries: one must be planted and one held back"),
        (not vocabulary or words < 1, f"{words} words from a vocabulary of {len(vocabulary)}"),
        (declared.labelled and not labels, "a task with labels needs the public label list"),
        (not copies or min(copies, default=0) < 1, f"copies = {tuple(copies)}: each must be 1 or more"),
    ]
    wrong = [text for fault, text in faults if fault]
    if wrong:
        raise PrivacyError("; ".join(wrong), remedy="at least 2 canaries of 1 word")
    draw = np.random.default_rng(seed)
    rows = [_row(declared, vocabulary, labels, words, draw) for _ in range(count)]
    order = [int(i) for i in draw.permutation(count)]
    half = count // 2
    planted = (Canary(f"canary-{i}", rows[i], int(copies[turn % len(copies)])) for turn, i in enumerate(order[:half]))
    return Canaries(tuple(planted), tuple(Canary(f"canary-{i}", rows[i], 0) for i in order[half:]))


def _row(
    kind: TaskKind, vocabulary: Sequence[str], labels: Sequence[str], words: int, draw: np.random.Generator
) -> dict[str, str]:
    row = {
        column: " ".join(vocabulary[int(i)] for i in draw.integers(len(vocabulary), size=words))
        for column in kind.columns
        if column != "label"
    }
    return {**row, "label": labels[int(draw.integers(len(labels)))]} if kind.labelled else row


def exposure(planted: NDArray[np.float64], held: NDArray[np.float64]) -> NDArray[np.float64]:
    """log2 R - log2 rank of each planted canary among itself and all R - 1 held-back ones; larger score, lower rank.

    ==========================================  ===========================
    case                                        exposure
    ==========================================  ===========================
    above all held-back canaries                log2 R, the most there is
    below all of them                           0
    not trained on at all, on average           about log2 e = 1.44
    a tie with a held-back canary               ranks behind it
    nothing held back                           0: rank 1 of 1
    ==========================================  ===========================

    Args:
        planted: scores [n].
        held: scores [R - 1].

    Returns:
        Exposure in bits, [n].
    """
    ranks = 1 + (np.asarray(held)[None, :] >= np.asarray(planted)[:, None]).sum(axis=1)
    return np.asarray(np.log2(len(held) + 1) - np.log2(ranks), dtype=np.float64)


def by_copies(canaries: Canaries, values: NDArray[np.float64]) -> dict[int, NDArray[np.float64]]:
    """Values of the planted canaries, parted by how often they stood in the data.

    Raises:
        PrivacyError: not one value for each planted canary.
    """
    if len(values) != len(canaries.planted):
        raise PrivacyError(
            f"{len(values)} values for {len(canaries.planted)} planted canaries", remedy="give one value for each"
        )
    copies = np.array([canary.copies for canary in canaries.planted])
    return {int(number): np.asarray(values)[copies == number] for number in sorted(set(copies.tolist()))}
