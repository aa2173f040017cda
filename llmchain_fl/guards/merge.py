"""``merge``: at the end of a stage, mix the old adapter and the new one, and go on from the mixture.

    M_1 = G_1;    Delta W(M_t) = (1 - b_t) Delta W(M_{t-1}) + b_t Delta W(G_t)

G_t: what would have been served after stage t. M_t is served, scored and kept from the end of stage t on, and stage
t + 1 starts from it. Kinds:

=======  ==========================  =========================================================================
kind     b_t                         source
=======  ==========================  =========================================================================
wise     ``beta``                    WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903, eq. 1
mean     1 / t                       the mean of all stages, one after the other
root     1 / sqrt(t)                 SLAO, Qiao & Mahdavi 2025, arXiv 2512.23017 (its time-aware weight)
ties     ``beta``, as weights        TIES, Yadav et al. 2023, arXiv 2306.01708 (``continual/merge_ties.py``)
=======  ==========================  =========================================================================

Post-processing at the server: no epsilon, nothing to do at a site. The product is merged, not the factors
(``continual/merge_product.py``); what the rank of the run cuts off is told as ``lost``.

Where we differ: WiSE-FT mixes all weights, ours the adapter; SLAO mixes B and replaces A, ours mixes the product, and
does not make A orthonormal; G_t was trained from M_{t-1}, so the mixture is mild. TIES has two parts: the old, the new.

==========================  ===========================================================
case                        result
==========================  ===========================================================
first stage                 M_1 = G_1, bit for bit
b_t = 1                     M_t = G_t, bit for bit
b_t = 0                     M_t = M_{t-1}, bit for bit: a stage teaches nothing
A frozen (``ffa``)          A is not touched, B is mixed: exact
a fold, a core              exact (``ties`` refuses a core)
not the last round          nothing happens
==========================  ===========================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from llmchain_fl.aggregation.rule import CORE, Rule
from llmchain_fl.continual.merge_product import blend, distance
from llmchain_fl.continual.merge_ties import ties
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards.site_guard import Settings
from llmchain_fl.guards.guard import Guard, GuardSettings
from llmchain_fl.guards.needs import one_product
from llmchain_fl.guards.protocol import ServerGuard, View

SHARES: Mapping[str, Callable[[float, int], float]] = MappingProxyType(
    {
        "wise": lambda beta, _t: beta,
        "mean": lambda _beta, t: 1.0 / t,
        "root": lambda _beta, t: 1.0 / math.sqrt(t),
        "ties": lambda beta, _t: beta,
    }
)
"""Kind -> b_t of (``beta``, t)."""
OLD = "old."


class MergeServer(ServerGuard):
    """Holds M and t. There is no site half."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._kind = str(settings["kind"])
        self._beta, self._density = float(settings["beta"]), float(settings["density"])
        self._old: Arrays = {}
        self._stages = 0
        self._made: Arrays = {}
        self._notes: dict[str, float] = {}

    def serve(self, view: View, serving: Arrays) -> Arrays:
        """In the last round of a stage M_t, else what was handed in."""
        self._notes, self._made = {}, {}
        if not view.last:
            return serving
        self._made = self._merged(view, serving)
        return dict(self._made)

    def on_stage_end(self, view: View, current: Arrays, serving: Arrays) -> Arrays:
        """M_t, in the form in which sites train on."""
        made = self._made or self._merged(view, current)  # no round was made of the last one: nothing was served anew
        self._old, self._made, self._stages = made, {}, self._stages + 1
        return dict(blend([(made, 1.0)], view.scale, current).arrays)

    def notes(self) -> Mapping[str, float]:
        """``share_new``: b_t; ``moved``: how far M_t is from G_t, relative; ``lost``: what the rank cut off."""
        return dict(self._notes)

    def state(self) -> Arrays:
        """M and t."""
        state = {f"{OLD}{name}": value for name, value in self._old.items()}
        return state | {"stages": np.array([self._stages], np.float32)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """M and t."""
        self._old = {name.removeprefix(OLD): value for name, value in state.items() if name.startswith(OLD)}
        self._stages = int(state["stages"][0]) if "stages" in state else 0

    def _merged(self, view: View, new: Arrays) -> Arrays:
        share = SHARES[self._kind](self._beta, self._stages + 1) if self._old else 1.0
        parts = [(self._old or new, 1.0 - share), (new, share)]
        mixed = self._kind == "ties" and 0.0 < share < 1.0
        merged = ties(parts, view.scale, new, self._density) if mixed else blend(parts, view.scale, new)
        self._notes = {"share_new": share, "lost": merged.lost, "moved": distance(merged.arrays, new, view.scale)}
        return dict(merged.arrays)


class MergeSettings(GuardSettings):
    """Mixes old and new at a stage's end, in product space."""

    kind: Literal["wise", "mean", "root", "ties"] = "wise"
    """Share of the new stage: `beta`, 1 / t, 1 / sqrt t, or TIES with `beta` as weights."""
    beta: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the new stage (`wise`, `ties`)."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.5
    """With `ties`: share of the entries of each change that is kept."""

    def faults(self, rule: Rule) -> list[str]:
        """

        | settings | fault |
        |---|---|
        | ``ties`` under a rule that trains a core | yes: entries of the product are no entries of a core |
        | ``wise`` or ``ties`` with ``beta`` 0 or 1 | yes: no stage is learnt, or nothing is merged |
        """
        faults = []
        if self.kind == "ties" and CORE in rule.trained:
            faults.append(f'continual.merge.kind = "ties" compares entries of factors; rule "{rule.name}" has a core')
        if self.kind in ("wise", "ties") and self.beta in (0, 1):
            does = "keeps the first stage for good" if self.beta == 0 else "makes the guard `merge` do nothing"
            faults.append(f"continual.merge.beta = {self.beta:g} {does}")
        return faults


GUARD = Guard(
    "merge",
    MergeSettings,
    MergeServer,
    needs=(one_product("mixes adapters in product space"),),
    stages="ended",
    serves_another=True,
    mixes=True,
    refactors=True,
    notes={
        "lost": "share of the mixture that its rank cut off",
        "moved": "how far the mixture is from the new adapter, relative",
        "share_new": "share of the new adapter in the mixture",
    },
)
