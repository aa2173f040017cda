"""Coordinate median and trimmed mean (Yin, Chen, Ramchandran & Bartlett, ICML 2018, arXiv 1803.01498). Numpy only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.rule import Arrays, Rule, SiteFactors
from llmchain_fl.robust.moving import Floats, Moving, Rows
from llmchain_fl.robust.protocol import RobustSettings, Screened, check_replies, require_replies
from llmchain_fl.robust.space import Space

BLOCK = 200_000
"""Entries of D, over all sites, that are sorted at once."""


def middle_mean(values: Floats, trim: int) -> tuple[Floats, NDArray[np.intp]]:
    """Mean along the first axis (K) without the ``trim`` lowest and the ``trim`` highest; K > 2 trim.

    ``trim = (K - 1) // 2`` is the median (of even K the mean of the two in the middle).

    Returns the mean, and for each of the K how many of its entries lie among those kept (equal values all do).
    """
    ordered = np.sort(values, axis=0)
    middle = ordered[trim : len(values) - trim]
    inside = (values >= middle[0]) & (values <= middle[-1])
    return middle.mean(axis=0), inside.reshape(len(values), -1).sum(axis=1)


class TrimmedMean:
    """Of each entry of D, over the sites, the f highest and f lowest are dropped and the others averaged.

    In the paper's words beta = f / n; f < n / 2. Every entry of the result lies between entries of honest sites.

    Entries of the product do not depend on a site's factors, settled or not. They are made in blocks of rows (memory:
    one block of all sites, and the stacks of factors of one module) and brought back to one pair of factors, which
    stands for all sites:

    * A frozen (ffa, fedsvd), or B (rolora, even), or both (fedsb): the nearest change that the moving factor can hold,
      by least squares; ``lost`` says how much of the robust change it could not. A mean would be held whole; a median
      of entries is not linear and leaves the row space of A.
    * both move: the best rank-r approximation of the global product plus the change; one dense module at a time.

    Weights: every site has one vote for each entry, whatever its public weight; otherwise f hostile sites could hold
    more than f / n of an entry.

    | case | outcome |
    |---|---|
    | fewer than 2f + 1 replies | ConfigError at start, AdmissionError in a round |
    | equal sites | that site's product |
    | f = 0 | the plain mean of the products, equal weights |
    | sites of lower rank | their product; the result has the global rank |
    | no module and no head moves | the global adapter |
    """

    name = "trimmed-mean"

    def __init__(self, settings: RobustSettings) -> None:
        self.settings = settings

    @property
    def needed(self) -> int:
        """2f + 1."""
        return 2 * self.settings.hostile + 1

    def trim(self, count: int) -> int:
        """How many are dropped at each end."""
        return self.settings.hostile

    def check(self, replies: int, rule: Rule) -> None:
        """See :class:`llmchain_fl.robust.protocol.Robust`."""
        check_replies(self.name, replies, self.needed, self.settings.hostile)

    def __call__(
        self, sites: Sequence[SiteFactors], global_arrays: Arrays, scale: float, up: Sequence[str]
    ) -> Screened:
        """See :class:`llmchain_fl.robust.protocol.Robust`."""
        require_replies(self.name, len(sites), self.needed)
        space = Space(global_arrays, scale, up, sites)
        tally = _Tally(len(sites), self.trim(len(sites)))
        arrays: dict[str, NDArray[np.float32]] = {}
        total = lost = 0.0
        for moving in space.modules.values():
            fitted, square, rest = moving.fit(tally.rows(moving, sites))
            arrays |= fitted
            total, lost = total + square, lost + rest
        for name, start in space.head.items():
            move = tally.middle(np.stack([space.head_move(site, name) for site in sites]))
            arrays[name] = (start + move).astype(np.float32)
            total += float(np.vdot(move, move))
        part = math.sqrt(min(1.0, lost / total)) if total > 0 else 0.0
        note = f"{self.name}: of {len(sites)}, {tally.trim} dropped at each end of an entry; {part:.1%} of it lost"
        return Screened([SiteFactors(arrays, scale, 1.0)], tally.shares(), note, part)


class Median(TrimmedMean):
    """Of each entry of D the median over the sites: the trimmed mean that keeps one (or two). Breakdown point 1/2.

    Robust for any f < n / 2, also for more than ``hostile``; noisier than the trimmed mean when most sites are honest.
    On unequal data an entry that only a few sites want to move does not move.
    """

    name = "median"

    def trim(self, count: int) -> int:
        """All but one or two."""
        return (count - 1) // 2


class _Tally:
    """Middle means, and how many entries of each site they were made of."""

    def __init__(self, count: int, trim: int) -> None:
        self.trim = trim
        self._inside, self._entries = np.zeros(count, dtype=np.intp), 0

    def middle(self, values: Floats) -> Floats:
        mean, inside = middle_mean(values, self.trim)
        self._inside += inside
        self._entries += mean.size
        return mean

    def rows(self, moving: Moving, sites: Sequence[SiteFactors]) -> Iterator[Rows]:
        pairs = [moving.pair(site) for site in sites]
        height, width = pairs[0][0].shape[0], pairs[0][1].shape[1]
        step = min(height, max(1, BLOCK // (len(sites) * width)))
        block = np.empty((len(sites), step, width))
        for low in range(0, height, step):
            where = slice(low, min(height, low + step))
            values = block[:, : where.stop - low]
            for part, (left, right) in zip(values, pairs, strict=True):
                np.matmul(left[where], right, out=part)
            yield where, self.middle(values)

    def shares(self) -> tuple[float, ...]:
        return tuple(float(share) for share in self._inside / max(1, self._entries))
