"""Norm bounding (Sun, Kairouz, Suresh & McMahan 2019, arXiv 1911.07963), of the product. Numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmchain_fl.aggregation.rule import Arrays, Rule, SiteFactors
from llmchain_fl.robust.moving import Path
from llmchain_fl.robust.protocol import RobustSettings, Screened, check_replies, require_replies
from llmchain_fl.robust.space import Space


def way_back(path: Path, bound: float) -> float:
    """The t in [0, 1] at which a change has length ``bound``; 1 where it is within it anyway.

    ``||D(t)||`` is 0 at t = 0 and above the bound at t = 1, so halving finds a crossing: to 2^-60 of the way.

    | length at t = 1 | t |
    |---|---|
    | at most the bound | 1 |
    | above it, one factor moves | bound / length |
    | bound 0 | 0 |
    """
    if path.length(1.0) <= bound:
        return 1.0
    if not bound > 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(1100):  # 60 halvings from the first t that is not too long, however small (a change may be 1e300)
        middle = (low + high) / 2
        if path.length(middle) <= bound:
            low = middle
        else:
            high = middle
        if high - low <= 2.0**-60 * high:
            break
    return low


class NormBound:
    """Every site is kept; a change longer than the bound is pulled back to the site's start until it has that length.

    The paper scales the update: ``D min(1, bound / ||D||)``. In factors:

    * one factor moves: its move times t = bound / ||D||; the product change is exactly t D.
    * both move: t D has up to twice the rank and no pair of rank r. Both moves, in settled factors, are multiplied by
      one t such that the product of the shrunk pair has changed by exactly the bound. The direction of its change bends
      on the way, its length cannot pass the bound.

    Bound: ``norm_bound``, or, where that is 0, norm_factor times the median of the norms of the round (half of the
    sites are cut at factor 1); f < n / 2 hostile sites cannot move that median beyond the honest norms. A site of lower
    rank is measured from its own start, not from directions that it was never handed.

    Limits each site's length, not its direction: f hostile sites still move the mean by f / n of the bound.

    | case | outcome |
    |---|---|
    | adaptive, and most sites did not move | the bound is 0: nothing moves |
    | adaptive, fewer than 2f + 1 replies | ConfigError at start, AdmissionError in a round |
    | a fixed bound | works from one reply |
    """

    name = "norm-bound"

    def __init__(self, settings: RobustSettings) -> None:
        self.settings = settings

    @property
    def needed(self) -> int:
        """2f + 1 where the bound comes from the sites."""
        return 1 if self.settings.norm_bound else 2 * self.settings.hostile + 1

    def check(self, replies: int, rule: Rule) -> None:
        """See :class:`llmchain_fl.robust.protocol.Robust`."""
        check_replies(self.name, replies, self.needed, self.settings.hostile)

    def __call__(
        self, sites: Sequence[SiteFactors], global_arrays: Arrays, scale: float, up: Sequence[str]
    ) -> Screened:
        """See :class:`llmchain_fl.robust.protocol.Robust`."""
        require_replies(self.name, len(sites), self.needed)
        space = Space(global_arrays, scale, up, sites)
        settled = [space.settled(site) for site in sites]
        paths = [space.path(site) for site in settled]
        bound = self.settings.norm_bound or self.settings.norm_factor * float(np.median([p.length(1.0) for p in paths]))
        ways = [way_back(path, bound) for path in paths]
        screened = [site if t == 1.0 else space.shrunk(site, t) for site, t in zip(settled, ways, strict=True)]
        cut = sum(t < 1.0 for t in ways)
        return Screened(screened, tuple(ways), f"{self.name}: {cut} of {len(sites)} sites cut to {bound:.4g}")
