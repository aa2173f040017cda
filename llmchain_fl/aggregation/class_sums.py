"""Rows of a trained head from sums over each label's records: how the labels of a new stage start. Numpy only.

In the first rounds of a stage sites bring, for each label l, the clipped and noised sum of its records' inputs
(``client/class_sums.py``). With M the mean of these rounds so far, V the head before them, d numbers in a row:

    n    = d times the mean square of M over the rows of labels that nobody taught: these hold noise alone
    s_l  = max(0, 1 - n / |M_l|^2)                               the share of |M_l|^2 that is no noise
    r_l  = a M_l / |M_l| + e V_l / |V_l|,      a = sqrt(s_l) / (1 - s_l),   e = p / (1 - p^2),   p = 0.6
    W_l <- |V_l| r_l / |r_l|

``sqrt(s_l)`` is the cosine that M_l is expected to have with the sum without noise, p the one that a label's text is
taken to have with its records (a public constant; 0.3 to 0.8 make little difference). Two directions of errors that
have nothing to do with each other are best added with the weights cosine / (1 - cosine^2). So what is hidden in the
noise stays at the label's text, and what is clear becomes the mean of the records. All of it is post-processing.

Class means as rows: Snell et al. 2017, arXiv 1703.05175 (prototypes); their clipped, noised sums under privacy: the
Gaussian mechanism. Where we differ: rows that have the same length in every stage, mixed with the text, then trained
under the stage's mask; so stages can be compared with each other before and after training.

==================================================  ==========================================
case                                                result
==================================================  ==========================================
no noise                                            the direction of the sum alone
nothing but noise                                   the row as it was
a label without records, no noise                   the row as it was
a row of zeros in V                                 stays zero
a round that does not come about                    counts in no mean
the same sums in one round, or in several           the same rows
==================================================  ==========================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WEIGHT = "head.weight"
TEXT = 0.6
"""p."""
_PRIOR, _TOTAL, _COUNTED = "prior", "total", "counted"


@dataclass(frozen=True)
class LabelRound:
    """A round of sums: ``first`` of its stage, ``rows`` that start from them, ``silent`` ones that nobody taught."""

    first: int
    rows: tuple[int, ...]
    silent: tuple[int, ...]


def rows_from_sums(prior: Floats, mean: Floats, given: LabelRound) -> Floats:
    """The head [L, d] with the rows of this file; the others as in ``prior``."""
    rows, result = list(given.rows), prior.copy()
    noise = mean.shape[1] * float(np.square(mean[list(given.silent)]).mean())
    length, before = np.linalg.norm(mean[rows], axis=1), np.linalg.norm(prior[rows], axis=1)
    known = (length > 0) & (before > 0)
    rows = [row for row, good in zip(rows, known, strict=True) if good]
    length, before = length[known, None], before[known, None]
    share = np.clip(1 - noise / np.square(length), 0, 1 - 1e-12)
    clear, text = np.sqrt(share) / (1 - share), TEXT / (1 - TEXT**2)
    mixed = clear * mean[rows] / length + text * prior[rows] / before
    size = np.linalg.norm(mixed, axis=1, keepdims=True)
    result[rows] = np.where(size > 0, before * mixed / np.where(size > 0, size, 1), prior[rows])
    return result


class LabelSums:
    """The sums of a stage so far, and the head before them."""

    def __init__(self) -> None:
        self._counted = (0, 0)
        self._arrays: dict[str, Floats] = {}

    def with_round(self, head: Floats, sums: Floats, given: LabelRound) -> Floats:
        """The head after one more round of ``sums``, [L, d]; ``head``: that before the round."""
        first, count = self._counted
        if first != given.first:
            count, self._arrays = 0, {_PRIOR: head, _TOTAL: np.zeros_like(head)}
        self._counted = given.first, count + 1
        self._arrays[_TOTAL] = self._arrays[_TOTAL] + sums
        return rows_from_sums(self._arrays[_PRIOR], self._arrays[_TOTAL] / (count + 1), given)

    def state(self) -> dict[str, Any]:
        """The sums, the head before them, and of how many rounds they are; empty before the first."""
        return {**self._arrays, _COUNTED: np.array(self._counted, np.float64)} if self._arrays else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        first, count = state.get(_COUNTED, np.zeros(2))
        self._counted = int(first), int(count)
        self._arrays = {name: np.asarray(state[name], np.float64) for name in (_PRIOR, _TOTAL) if name in state}
