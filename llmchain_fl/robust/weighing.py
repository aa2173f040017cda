"""Robust steps whose result is the sites themselves with other weights. Numpy only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llmchain_fl.aggregation.rule import Arrays, Rule, SiteFactors
from llmchain_fl.robust.moving import Floats
from llmchain_fl.robust.protocol import RobustSettings, Screened, check_replies, require_replies
from llmchain_fl.robust.space import Space


class Weighing(ABC):
    """Base of the steps that need nothing but the Gram matrix of the changes.

    A rule that is exact gives exactly the weighted sum of the products; a site of weight 0 is left out.

    Args:
        settings: public constants.
    """

    name: str

    def __init__(self, settings: RobustSettings) -> None:
        self.settings = settings

    @property
    def needed(self) -> int:
        """The fewest replies this step can work with."""
        return 2 * self.settings.hostile + 1

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
        before = np.array([site.weight for site in sites])
        after = self.weigh(space.gram(settled), before)
        left = [replace(site, weight=float(weight)) for site, weight in zip(settled, after, strict=True) if weight > 0]
        trust = after / before
        return Screened(left, tuple(float(share) for share in trust / trust.max()), self.describe(after))

    @abstractmethod
    def weigh(self, gram: Floats, weights: Floats) -> Floats:
        """New weights (K), at least one above 0, from the Gram matrix (K x K) and the public weights (K)."""

    def describe(self, weights: Floats) -> str:
        """What was done, in numbers of ours."""
        return f"{self.name}: {int(np.sum(weights > 0))} of {len(weights)} sites kept"
