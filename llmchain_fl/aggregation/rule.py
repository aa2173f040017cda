"""The seam between an aggregation rule and the rest of the server. Numpy only.

Site k holds B_k (d_out x r_k), A_k (r_k x d_in), the scale s_k = alpha_k / r_k and a public weight w_k; a rule divides
the weights by their sum over the sites it was given. The ideal is

    Delta W = sum_k w_k (fold + s_k B_k A_k)                                  (ideal)

where the fold is the frozen part that all sites were handed (``factors.py``; for most rules there is none). A rule is
*exact* when its result is the ideal to 1e-6 relative. Heads have no factors and are averaged plainly by every rule.

One run, seen from the server::

    rule.check(arrays, {site: SiteShape(rank, alpha)})      # before round 1: can these sites work together?
    arrays = rule.begin(arrays, scale, weight_of)           # round 0: the start the rule wants
    each round n:
        schedule = rule.schedule(n)                             # what a site trains, sends, is sent, keeps
        handed = rule.handed(arrays, scale, shape)          # one for each shape of site, not one for each site
        down = names_of(schedule.down, handed)              # what travels; the rest follows from the seed or is kept
        total = rule.start(arrays, scale, n)
        total.add(SiteFactors(handed + delta, shape.scale, weight))      # names_of(schedule.up, handed)
        arrays = total.finish()
        serving(arrays, scale)                              # a plain pair (its rank may have grown), to score and save

A rule is a value without state: what must outlive a round is in the arrays (frozen factors, core, fold), so a
checkpoint of the arrays is a checkpoint of the rule. Only a server optimizer remembers more (``state``).

A new rule: subclass :class:`Rule`, give the attributes and ``start``, override what differs; one line in the table.
Guards, robust steps and the server ask a rule for what it declares, never for its name (``planning/compatible.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.factors import (
    CORE,
    FOLD_A,
    FOLD_B,
    HEAD,
    LORA_A,
    LORA_B,
    Adapter,
    Arrays,
    SiteFactors,
    SiteShape,
    modules,
    names_of,
    rank_of,
    rescaled,
    serving,
)
from llmchain_fl.aggregation.mean import FactorMean, Noise
from llmchain_fl.aggregation.measure import product_error, product_norm
from llmchain_fl.core.adapter.variants import Variant
from llmchain_fl.core.errors import ModelError

__all__ = [
    "CORE",
    "FOLD_A",
    "FOLD_B",
    "HEAD",
    "LORA_A",
    "LORA_B",
    "Accumulator",
    "Adapter",
    "Arrays",
    "FactorMean",
    "Noise",
    "Rule",
    "SiteFactors",
    "SiteShape",
    "FactorSchedule",
    "WeightOf",
    "modules",
    "names_of",
    "product_error",
    "product_norm",
    "sent_names",
    "serving",
]

WeightOf = Callable[[str], NDArray[np.floating]]
"""Module path -> its frozen W0 (d_out x d_in), or another public matrix of that shape."""


@dataclass(frozen=True)
class FactorSchedule:
    """One round from a site's side, in endings of array names; heads are always trained, sent and sent down.

    Attributes:
        trains: what local training changes. With privacy, one clip and one noise over all of it.
        up: what the site sends, as a delta; a part of ``trains``.
        down: what the site is sent. A factor that is neither down nor kept follows from the seed.
    """

    trains: tuple[str, ...]
    up: tuple[str, ...]
    down: tuple[str, ...]

    @property
    def keeps(self) -> tuple[str, ...]:
        """Trained but not sent: stays at the site, which starts its next round from it."""
        return tuple(ending for ending in self.trains if ending not in self.up)


class Accumulator(Protocol):
    """The sum of one round while it is being made."""

    def add(self, site: SiteFactors) -> None:
        """Count one site in, or raise AdmissionError and count nothing of it."""

    def finish(self, noise: Noise | None = None) -> Adapter:
        """The new global arrays, float32, owned by the caller; the old ones when no site was added.

        ``noise`` is put on each averaged array before anything else is made of it (an SVD, an optimizer's moments):
        noise on the finished arrays would come too late for both.

        Raises:
            ModelError: ``noise`` under a rule that is not ``linear``.
        """


class Rule(ABC):
    """How the factors of many sites become one adapter.

    Attributes:
        name: in the configuration.
        trained: every factor a site trains in some round: what it moves (and what the site's model must have ready).
        exact: the result is the ideal, see above.
        linear: the result is a function of ``sum_k w_k x_k`` over what the sites send and of nothing else of them, so
            that secure aggregation and central DP are possible.
        idempotent: equal sites, whatever their weights, give the product of one of them.
        weighs: how much a site counts depends on what it sends.
        unsteady: what happens to the factors between rounds so that they do not keep their coordinates, such as
            "re-factorises them every round"; empty: they keep them, so that a step between two rounds, or a mean over
            rounds, factor by factor has a meaning.
        folds: what earlier rounds have left is in the fold, which the rule itself writes.
        direct: a site sends a direction and not trained factors: ``SiteFactors.arrays`` are it, and ``finish`` steps
            along their mean.
        any_rank: sites may have less than the global rank. alpha may differ by site under every rule.
        factors: it moves a pair of factors (or leaves one as it is); else arrays of a variant without a product.
        any_variant: it can be turned (:meth:`of`) to the arrays of any variant, each averaged by itself.
    """

    name: str
    trained: tuple[str, ...]
    exact: bool
    linear: bool
    idempotent: bool = True
    weighs: bool = False
    unsteady: str = ""
    folds: bool = False
    any_rank: bool = False
    direct: bool = False
    factors: bool = True
    any_variant: bool = False

    def of(self, variant: Variant) -> Rule:
        """The rule over what this variant trains; by default itself, made for the pair of factors."""
        return self

    @property
    def steady(self) -> bool:
        """Whether the factors keep their coordinates from round to round."""
        return not self.unsteady

    @property
    def owns(self) -> tuple[str, ...]:
        """Factors that are trained and stay at the site, one of each site."""
        return tuple(ending for ending in self.trained if any(ending in schedule.keeps for schedule in self._cycle))

    @property
    def shares(self) -> tuple[str, ...]:
        """Factors that are trained and summed: there is one of them for all."""
        return tuple(ending for ending in self.trained if any(ending in schedule.up for schedule in self._cycle))

    @property
    def turns(self) -> bool:
        """Whether rounds differ in what they train."""
        return len(set(self._cycle)) > 1

    @property
    def moves_one(self) -> bool:
        """Whether the model is linear in what moves: one steady factor at most, the others being common and fixed; or
        all arrays of a variant that declares it."""
        return self.steady and (len(self.trained) <= 1 if self.factors else self.exact)

    @property
    def averages(self) -> bool:
        """Whether each entry of A and B is in each round the weighted mean of what was sent: noise on it is known."""
        plain = self.linear and self.steady and not self.turns and not self.owns
        return plain and CORE not in self.trained

    @property
    def _cycle(self) -> tuple[FactorSchedule, ...]:
        """The first rounds; no rule has a longer period."""
        return tuple(self.schedule(number) for number in range(1, 5))

    @abstractmethod
    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> Accumulator:
        """Open round ``number`` (from 1, over all stages) on the global arrays, whose scale is s = alpha / r.

        Raises:
            ModelError: the global arrays are not an adapter.
        """

    def schedule(self, number: int) -> FactorSchedule:
        """What happens in round ``number``; by default ``trained`` is trained and travels both ways."""
        return FactorSchedule(self.trained, self.trained, self.trained)

    def check(self, arrays: Arrays, sites: Mapping[str, SiteShape]) -> None:
        """Refuse, before round 1, sites that this rule cannot bring together.

        Args:
            arrays: the start of the global adapter, at the global rank.
            sites: shape of every site that may ever be asked.

        Raises:
            ModelError: a site has another rank under a rule that does not mix ranks, or more than the global rank.
        """
        rank = rank_of(arrays) if self.factors else max((shape.rank for shape in sites.values()), default=1)
        for site, shape in sorted(sites.items()):
            if shape.rank != rank and not self.any_rank:
                message = f"site {site} has rank {shape.rank}; {self.name} needs the global rank {rank} at every site"
                raise ModelError(message, remedy="give all sites adapter.rank, or choose a rule that mixes ranks")
            if shape.rank > rank:
                message = f"site {site} has rank {shape.rank}, more than the global rank {rank}"
                raise ModelError(message, remedy="raise adapter.rank to the largest rank of a site")

    def begin(self, arrays: Arrays, scale: float, weight_of: WeightOf | None = None) -> Adapter:
        """The arrays of round 0, from a fresh (or earlier) adapter of scale s; by default as they are.

        Raises:
            ModelError: the rule needs ``weight_of`` and there is none.
        """
        return {name: np.array(array, dtype=np.float32) for name, array in arrays.items()}

    def handed(self, arrays: Arrays, scale: float, shape: SiteShape) -> Arrays:
        """What a site of this shape starts the round from; by default ``B s / s_k``, so that its product is ours.

        Not for writing: arrays that need no change are the global ones themselves.
        """
        return rescaled(arrays, scale / shape.scale)

    def sends(self, handed: Arrays, number: int) -> dict[str, tuple[int, ...]]:
        """Name -> shape of what a site sends in round ``number``; by default of its part of what it was ``handed``."""
        return {name: handed[name].shape for name in sent_names(self, handed, number)}

    def state(self) -> Mapping[str, Any]:
        """What the rule remembers beyond the global arrays; most rules nothing."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave; a rule without saved state keeps its start.

        Raises:
            ModelError: it is no state of this rule.
        """
        if state:
            message = f"{self.name} remembers nothing between rounds, but the saved state has {len(state)} arrays of it"
            raise ModelError(message, remedy="resume with the rule and the server optimizer of this run")


def sent_names(rule: Rule, names: Iterable[str], number: int = 1) -> list[str]:
    """The names among ``names`` that a site sends in round ``number`` under ``rule``, in the order given."""
    return names_of(rule.schedule(number).up, names)
