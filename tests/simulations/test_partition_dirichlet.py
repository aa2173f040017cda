"""The two Dirichlet partitions follow the laws they are named after."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from simulations.partition import partition


def test_dirichlet_has_uneven_sizes() -> None:
    sizes = [len(part) for part in partition("dirichlet", list("abcd") * 100, sites=4, seed=0, alpha=0.3)]
    assert max(sizes) > 2 * min(sizes)


def distance(way: str, alpha: float) -> float:
    """Mean total-variation distance of a site's label mix from that of all rows, over 20 seeds; 10 labels, 5 sites."""
    labels = list("abcdefghij") * 100
    found = []
    for seed in range(20):
        for part in partition(way, labels, sites=5, seed=seed, alpha=alpha):
            count = Counter(labels[index] for index in part)
            found.append(sum(abs(count[label] / count.total() - 0.1) for label in "abcdefghij") / 2)
    return float(np.mean(found))


# What is left at a large alpha: rounding for the one, and for the other the chance of drawing 200 rows (10 labels:
# about 5 x 0.8 x sqrt(0.09 / 200) = 0.085, more for the sites that get the rest).
@pytest.mark.parametrize(("way", "chance"), [("dirichlet-equal", 0.13), ("dirichlet", 0.01)])
def test_a_smaller_alpha_makes_sites_more_different(way: str, chance: float) -> None:
    distances = [distance(way, alpha) for alpha in (0.01, 0.5, 5.0, 1e6)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.6
    assert distances[-1] < chance


def test_the_first_dirichlet_site_follows_hsu() -> None:
    """Over many seeds the first site's share of a label has the moments of Dir(alpha p) (+ the draw's own noise).

    q_1 ~ Beta(a, A - a), a = alpha p_1, A = alpha: mean p_1, variance p_1 (1 - p_1) / (alpha + 1). A site of m rows
    out of n adds E[q (1 - q)] / m. alpha is large enough that no label runs out.
    """
    labels = ["a"] * 600 + ["b"] * 1400
    alpha, p, m = 50.0, 0.3, 100
    shares = [
        sum(labels[index] == "a" for index in partition("dirichlet-equal", labels, sites=20, seed=seed, alpha=alpha)[0])
        / m
        for seed in range(1500)
    ]
    variance = p * (1 - p) / (alpha + 1)
    variance += (p * (1 - p) - variance) / m
    assert abs(np.mean(shares) - p) < 5 * np.sqrt(variance / 1500)
    assert abs(np.var(shares) / variance - 1) < 5 * np.sqrt(2 / 1500)


def test_the_first_shares_of_dirichlet_follow_the_dirichlet() -> None:
    """One label, s sites: a site's share ~ Beta(alpha, (s - 1) alpha), variance (s - 1) / (s^2 (s alpha + 1))."""
    sites, alpha = 4, 2.0
    shares = np.array(
        [
            [len(part) / 2000 for part in partition("dirichlet", ["a"] * 2000, sites=sites, seed=seed, alpha=alpha)]
            for seed in range(1500)
        ]
    )
    variance = (sites - 1) / (sites**2 * (sites * alpha + 1))
    assert np.abs(shares.mean(axis=0) - 1 / sites).max() < 5 * np.sqrt(variance / 1500)
    assert np.abs(shares.var(axis=0) / variance - 1).max() < 0.25
