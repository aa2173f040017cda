"""Whether texts still look like public ones, by the frozen base model. Numpy and scipy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from llmchain_fl.core.errors import ConfigError

Vectors = NDArray[np.float64]
TIMES = 10
"""Public texts for each direction that is looked at, at least."""


@dataclass(frozen=True)
class Drift:
    """One window. ``distance``: T / sqrt(k), about 1 without drift; ``chance``: of so much without drift."""

    distance: float
    chance: float


class Reference:
    """Public texts, against which windows are held: Hotelling's two-sample test on the main directions.

        T^2 = n m / (n + m) (x - y)^T S^-1 (x - y),    T^2 (n + m - k - 1) / ((n + m - 2) k) ~ F(k, n + m - k - 1)

    x, y: means of the window's n and the reference's m vectors on the reference's k main directions; S their pooled
    covariance (Hotelling 1931, Annals of Mathematical Statistics 2). The directions are found on one half of the
    reference and the test is held against the other, so that they fit no window better than the reference. Means are
    close to normal from some hundred texts on; the chance is as good as that.

    | case | result |
    |---|---|
    | a window of the reference's own texts | distance about 1 |
    | a window shorter than k + 2 | distance 0, chance 1: nothing can be said |
    | directions in which the reference does not move | left out |

    Args:
        vectors: of the public texts, [N, H], in no order that means anything.
        directions: k.

    Raises:
        ConfigError: fewer than 2 * ``TIMES`` * k texts.
    """

    def __init__(self, vectors: Vectors, directions: int) -> None:
        if len(vectors) < 2 * TIMES * directions:
            fault = f"reference: {len(vectors)} texts, drift on {directions} directions needs {2 * TIMES * directions}"
            raise ConfigError([fault], remedy="give more public texts, or set drift_directions lower")
        first, second = vectors[::2], vectors[1::2]
        self._centre = first.mean(axis=0)
        _, sizes, turns = np.linalg.svd(first - self._centre, full_matrices=False)
        real = int((sizes > 1e-6 * sizes[0]).sum()) if sizes[0] > 0 else 0
        self._turns = turns[: min(directions, real)]
        self._held = self._seen(second)

    @property
    def directions(self) -> int:
        """k."""
        return len(self._turns)

    def _seen(self, vectors: Vectors) -> Vectors:
        return np.asarray((vectors - self._centre) @ self._turns.T)

    def drift(self, window: Vectors) -> Drift:
        """Of one window of vectors [n, H]."""
        n, m, k = len(window), len(self._held), self.directions
        if n < k + 2 or not k:
            return Drift(0.0, 1.0)
        there = self._seen(window)
        apart = there.mean(axis=0) - self._held.mean(axis=0)
        pooled = ((n - 1) * np.cov(there.T) + (m - 1) * np.cov(self._held.T)) / (n + m - 2)
        square = float(n * m / (n + m) * apart @ np.linalg.solve(np.atleast_2d(pooled), apart))
        ratio = square * (n + m - k - 1) / ((n + m - 2) * k)
        return Drift(float(np.sqrt(max(0.0, square) / k)), float(stats.f.sf(ratio, k, n + m - k - 1)))
