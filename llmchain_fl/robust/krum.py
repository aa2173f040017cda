"""Krum and Multi-Krum (Blanchard, El Mhamdi, Guerraoui & Stainer, NeurIPS 2017, arXiv 1703.02757). Numpy only."""

from __future__ import annotations

import numpy as np

from llmchain_fl.robust.gram import squared_distances
from llmchain_fl.robust.moving import Floats
from llmchain_fl.robust.weighing import Weighing


def krum_scores(gram: Floats, hostile: int) -> Floats:
    """Score of each site (K): the sum of the squared distances to its n - f - 2 nearest others (section 4).

    Args:
        gram: <D_k, D_l>, n x n.
        hostile: f.

    Needs n >= f + 3: at least one neighbour.
    """
    distances = squared_distances(gram)
    np.fill_diagonal(distances, np.inf)
    nearest = np.sort(distances, axis=1)[:, : len(gram) - hostile - 2]
    return np.asarray(nearest.sum(axis=1))


def lowest(scores: Floats, count: int) -> Floats:
    """1 for the ``count`` lowest scores, else 0; of equal ones the first."""
    chosen = np.zeros(len(scores))
    chosen[np.argsort(scores, kind="stable")[:count]] = 1.0
    return chosen


class Krum(Weighing):
    """The one site with the lowest score.

    With n >= 2f + 3 any chosen site has an honest one among its neighbours, so it is not farther from the honest sites
    than they are from each other, up to a factor (the paper's proposition 1: the result stays within an angle of the
    honest mean if the honest sites scatter little). The price: one site speaks for all; on unequal data it learns
    slowly and leaves out whoever is unusual.

    | case | outcome |
    |---|---|
    | fewer than 2f + 3 replies | ConfigError at start, AdmissionError in a round |
    | equal scores | the first in the order of the replies |
    | public weights | not used: one site counts as 1 |
    | f sites that are equal to each other, far away | each has n - 2f - 1 >= 2 far neighbours: not chosen |
    """

    name = "krum"

    @property
    def needed(self) -> int:
        """2f + 3."""
        return 2 * self.settings.hostile + 3

    def weigh(self, gram: Floats, weights: Floats) -> Floats:
        """All weight on one site."""
        return lowest(krum_scores(gram, self.settings.hostile), 1) * weights


class MultiKrum(Krum):
    """The n - f sites with the lowest scores, with their public weights.

    m = n - f keeps as many sites as there are honest ones: none is lost when the hostile ones are far. A hostile site
    among the m has a score not above that of some honest site, so it is as near as they are.

    Where we differ: the paper leaves m open (m = 1 is Krum, m = n the mean).

    | case | outcome |
    |---|---|
    | f = 0 | all sites |
    | fewer than 2f + 3 replies | as Krum |
    """

    name = "multi-krum"

    def weigh(self, gram: Floats, weights: Floats) -> Floats:
        """The public weights of the n - f chosen."""
        hostile = self.settings.hostile
        return lowest(krum_scores(gram, hostile), len(gram) - hostile) * weights
