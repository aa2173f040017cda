"""The seam of a robust step: it stands between admission and the aggregation rule, and neither knows of it. Numpy only.

::

    robust = ROBUST[name](RobustSettings(...))
    robust.check(fewest_replies, rule)                      # before round 1
    each round:
        screened = robust(sites, global_arrays, scale, rule.schedule(n).up)
        total = rule.start(global_arrays, scale, n)
        for site in screened.sites:
            total.add(site)
        arrays = total.finish()

What is measured is the site's change of the product, over all adapted modules and the head together::

    D_k = s_k B_k A_k - s B A  (every module)  and  head_k - head           ||D_k||, <D_k, D_l>, entries of D_k

never the factors: a site may send ``B M, M^-1 A``, which looks far away and is the same, or a near pair whose product
is far. And what is passed on is what was measured: the sites come back in settled factors (``space.py``),
because a rule that averages factors (fedit, fedex, hetlora) would otherwise still be at the mercy of M.

All steps need every reply of the round at once (K adapters in memory) and are no function of a sum: no secure
aggregation, no central noise (privacy unit ``site``). Noise at the sites is fine: it puts the same expected square
v = E ||noise in D||^2 on every norm and 2 v on every squared distance, so the order of near and far stays. But a
hostile change shorter than about sqrt(v) hides in it, and f of them add up where noise averages out.

| step | keeps | replies needed | holds against |
|---|---|---|---|
| norm-bound | all sites, each change at most the bound | 1 (adaptive bound: 2f + 1) | length, not direction |
| median | the middle of each entry of D | 2f + 1 | f < n / 2 |
| trimmed-mean | each entry without its f highest and f lowest | 2f + 1 | f < n / 2 |
| krum | one site | 2f + 3 | f < (n - 2) / 2 |
| multi-krum | n - f sites | 2f + 3 | f < (n - 2) / 2 |
| geometric-median | all sites, far ones with little weight | 2f + 1 | less than half of the weight |

With f = 0 a step still wants one reply (the Krums three: a site needs a nearest other).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llmchain_fl.aggregation.rule import Arrays, Rule, SiteFactors
from llmchain_fl.core.errors import AdmissionError, ConfigError


@dataclass(frozen=True)
class RobustSettings:
    """Public constants of a robust step.

    Attributes:
        hostile: f, how many sites of one round may be hostile.
        norm_bound: ``norm-bound``: longest change of the product, in the unit of D; 0: adaptive.
        norm_factor: ``norm-bound``, adaptive: the bound is this times the median norm of the round.

    Raises:
        ConfigError: a value out of its bounds.
    """

    hostile: int = 1
    norm_bound: float = 0.0
    norm_factor: float = 1.0

    def __post_init__(self) -> None:
        faults = []
        if self.hostile < 0:
            faults.append(f"hostile is {self.hostile}; it must be 0 or more")
        if not (math.isfinite(self.norm_bound) and self.norm_bound >= 0):
            faults.append(f"norm_bound is {self.norm_bound}; it must be finite and 0 (adaptive) or more")
        if not (math.isfinite(self.norm_factor) and self.norm_factor > 0):
            faults.append(f"norm_factor is {self.norm_factor}; it must be finite and above 0")
        if faults:
            raise ConfigError(faults)


@dataclass(frozen=True)
class Screened:
    """What a robust step hands to the rule.

    Attributes:
        sites: what the rule sums; never empty.
        share: for each site that came in, in its order, how much of it was kept, 0 to 1: whether it was chosen (the
            Krums), its weight over that of the site kept best (geometric median), what its change was multiplied by
            (norm bound), the part of its entries that is in the result (median, trimmed mean).
        note: what was done, for the report; holds numbers of ours only.
        lost: ``||what the round's trained factors cannot hold|| / ||robust change||``, 0 to 1; 0 for steps that keep
            sites.
    """

    sites: list[SiteFactors]
    share: tuple[float, ...]
    note: str
    lost: float = 0.0


class Robust(Protocol):
    """One robust step; a value without state.

    Attributes:
        name: in the configuration.
    """

    @property
    def name(self) -> str: ...

    def check(self, replies: int, rule: Rule) -> None:
        """Refuse, before round 1, what cannot work.

        Args:
            replies: the fewest replies a round may be closed with (``sites.minimum``).
            rule: the rule that sums what this step leaves.

        Raises:
            ConfigError: too few replies for f hostile sites, or a rule that would undo this step.
        """

    def __call__(
        self, sites: Sequence[SiteFactors], global_arrays: Arrays, scale: float, up: Sequence[str]
    ) -> Screened:
        """Screen the replies of one round.

        Args:
            sites: the admitted sites, each of which the rule itself would take (``Accumulator.add``).
            global_arrays: what the round started from.
            scale: s = alpha / r of the global adapter.
            up: endings of what the sites sent (``FactorSchedule.up``).

        Raises:
            AdmissionError: fewer sites than the step needs: the round must not be closed; it never becomes a mean.
            ModelError: arrays that are no adapter, or an ``up`` this step knows no product for.
        """


def check_replies(name: str, replies: int, needed: int, hostile: int) -> None:
    """Refuse a run whose rounds may be closed with fewer replies than ``name`` needs.

    Raises:
        ConfigError: ``replies < needed``.
    """
    if replies < needed:
        message = f"{name} needs {needed} replies against {hostile} hostile sites; a round may be closed with {replies}"
        raise ConfigError([message], remedy="raise sites.minimum (and sites.cohort), or lower aggregation.hostile")


def require_replies(name: str, replies: int, needed: int) -> None:
    """Refuse a round with too few replies.

    Raises:
        AdmissionError: ``replies < needed``; nothing of the round may be summed.
    """
    if replies < needed:
        fault = f"{name} needs {needed} replies and this round has {replies}"
        raise AdmissionError(fault, remedy="leave the global adapter as it is and ask again; set sites.minimum higher")
