"""The geometric median (RFA: Pillutla, Kakade & Harchaoui, IEEE TSP 2022, arXiv 1912.13445). Numpy only."""

from __future__ import annotations

import numpy as np

from llmchain_fl.aggregation.rule import Rule
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.robust.gram import squared_distances
from llmchain_fl.robust.moving import Floats
from llmchain_fl.robust.weighing import Weighing

SMOOTHING = 1e-6
"""nu, relative to the median over the sites of a site's median distance to the others."""
_STEPS, _STILL = 1000, 1e-10


def weiszfeld_weights(gram: Floats, weights: Floats) -> Floats:
    """beta (K, sum 1), such that ``sum_k beta_k x_k`` is the smoothed geometric median of the points behind ``gram``.

    ``min_z sum_k w_k ||x_k - z||`` by the smoothed Weiszfeld algorithm (paper, algorithm 2)::

        beta_k ~ w_k / max(nu, ||x_k - z||)        z = sum_k beta_k x_k

    z is a mean of the points, so the Gram matrix is enough: ``||x_k - z||^2 = G_kk - 2 (G beta)_k + beta^T G beta``.

    Where we differ: nu is relative (the paper's 1e-6 is absolute); the start is the mean weighted by one over each
    point's median distance to the others, where a point at 1e6 has next to no say, instead of the last model; it runs
    until beta moves by less than 1e-10, not 3 to 10 steps (each costs K^2, nothing beside the Gram matrix).

    | points | result |
    |---|---|
    | all equal, or one | the public weights, as shares |
    | two of equal weight | any point between them is a median: their mean |
    | more than half of the weight in one point | that point, up to nu |
    """
    shares: Floats = weights / weights.sum()
    distances = np.sqrt(squared_distances(gram))
    typical = np.median(distances, axis=1)  # with less than half hostile, honest for every honest point
    floor = SMOOTHING * float(np.median(typical) or distances[distances > 0].min(initial=np.inf))
    if not np.isfinite(floor):
        return shares
    beta: Floats = shares / np.maximum(floor, typical)
    beta /= beta.sum()
    for _ in range(_STEPS):
        around = gram @ beta
        squares = np.diag(gram) - 2 * around + beta @ around
        following = shares / np.maximum(floor, np.sqrt(np.maximum(squares, 0.0)))
        following /= following.sum()
        moved = float(np.abs(following - beta).max())
        beta = following
        if moved < _STILL:
            break
    return beta


class GeometricMedian(Weighing):
    """All sites, weighted so that their sum is the geometric median of the changes.

    Breakdown point 1/2 of the weight: as long as the hostile sites hold a share q < 1/2 of it,

        ||median - c|| <= 2 (1 - q) / (1 - 2 q) max_honest ||D_k - c||         for every point c

    (Lopuhaa & Rousseeuw 1991). With unequal public weights, see that the f heaviest sites hold less than half.

    A far site keeps a small weight: it pulls as hard as any other, in its direction. So the rule must sum with the
    weights it is given. One that ``weighs`` (hetlora: by the norm of the product) would undo them and is refused.

    | case | outcome |
    |---|---|
    | fewer than 2f + 1 replies | ConfigError at start, AdmissionError in a round |
    | rule hetlora | ConfigError at start |
    | no site moved | the public weights |
    """

    name = "geometric-median"

    def check(self, replies: int, rule: Rule) -> None:
        """See :class:`llmchain_fl.robust.protocol.Robust`."""
        super().check(replies, rule)
        if rule.weighs:
            fault = f'{self.name} gives each site a weight, but rule "{rule.name}" changes weights by what a site sends'
            raise ConfigError([fault], remedy="choose another rule, or median, trimmed-mean, krum or norm-bound")

    def weigh(self, gram: Floats, weights: Floats) -> Floats:
        """The weights of the last Weiszfeld step."""
        return weiszfeld_weights(gram, weights)

    def describe(self, weights: Floats) -> str:
        """The spread of the weights."""
        return f"{self.name}: weights from {weights.min():.3g} to {weights.max():.3g} over {len(weights)} sites"
