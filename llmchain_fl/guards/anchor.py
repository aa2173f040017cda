"""``anchor``: stay near the Delta W that the last stage ended with, where it mattered.

Online EWC (Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3; Schwarz et al. 2018, arXiv 1805.06370, eq. 9-10) and L2-SP
(Li et al. 2018, arXiv 1802.01483), in product space:

    Omega = strength / 2  sum_ij F_ij (Delta W - Delta W*)_ij^2,     F = row col^T,     each stage: F <- decay F + F_new

Factors are no place for it: (B, A) and (c B, A / c) are one adapter, a fresh adapter (B = 0) has no Fisher in A, and
sites hold different factors of one W. The rank-1 F makes it O(r^2 (d_out + d_in)).

    importance    F_new (mean 1)                                                     costs
    "plain"       1 everywhere, whatever the decay: L2-SP                            nothing
    "public"      Fisher on public records of the ended stages (``fisher.py``)       no epsilon
    "path"        squared steps of the released rounds (``released_path.py``)        no epsilon

At the site it is a proximal step after each optimiser step (``product_pull.py``), not a penalty: exact for any
strength, never divergent, after the noise. A penalty under Adam would be as strong as the task's gradients are small.

Where we differ: F from single records, normalised and never 0, so that a strength means the same at any batch size,
model and importance; rank 1; nothing private is read (their F needs the old task's records: charged).

=======================================  =================================================================
case                                     result
=======================================  =================================================================
first stage                              nothing
strength = 0                             nothing, bit for bit
strength -> infinity                     Delta W* after every step, for any rule that could reach it
only B (or A, or a core) is trained      that factor alone moves
both                                     B given A, then A given B: each exact, together one sweep
a site of lower rank                     the nearest Delta W of its rank, not Delta W*
a fold                                   counts on both sides
a trained head                           entry by entry; one that never left its start (personal) is left alone
B stays at the site (``fedsa``)          refused at start: no common Delta W
=======================================  =================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from llmchain_fl.continual.fisher import public_fisher
from llmchain_fl.continual.product_energy import difference, energy, mean_one
from llmchain_fl.continual.public_shelf import of_ended
from llmchain_fl.continual.released_path import HEAD, ReleasedPath
from llmchain_fl.core.adapter.product import Pair, modules, product_pair, with_start
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.guards.anchor import COL, ROW, STAR, AnchorSite
from llmchain_fl.core.guards.site_guard import Settings
from llmchain_fl.guards.guard import Guard, GuardSettings, Records, within
from llmchain_fl.guards.needs import one_product
from llmchain_fl.guards.protocol import ServerGuard, View

PATH = "path"
FLOOR = 1e-3
"""Least importance of a row or column, of a mean of 1: few records or rounds cannot tell that an entry is free."""


class AnchorServer(ServerGuard):
    """Takes Delta W* and F at the end of each stage and sends them along."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._kind, self._decay = str(settings["importance"]), float(settings["decay"])
        self._told: dict[str, Any] = {}
        self._path = ReleasedPath()
        self._distance = 0.0

    def payload(self) -> Arrays:
        """``anchor.<module>.lora_B`` holds s too; lora_A; rows and columns of F unless all are 1."""
        return dict(self._told)

    def step(self, view: View, current: Arrays) -> Arrays:
        """Looks at the released step."""
        before, after = _whole(view, view.before), _whole(view, current)
        if self._kind == "path":
            self._path.add(before, after, view.scale, view.noise)
        self._distance = self._far(after, view.scale)
        return current

    def on_stage_end(self, view: View, current: Arrays, serving: Arrays) -> Arrays:
        """What the next stage starts from is the anchor: guards that change it come before this one.

        Raises:
            ConfigError: importance ``public`` and the run has no public records of the stages so far.
        """
        whole = _whole(view, current)
        star: dict[str, Any] = {}
        for module in modules(whole):
            left, right = product_pair(whole, module, view.scale)
            star |= {f"{STAR}.{module}.lora_B": left.astype(np.float32), f"{STAR}.{module}.lora_A": right.astype("f4")}
        head = {name: value for name, value in whole.items() if name.startswith(f"{HEAD}.")}
        fresh = view.task.resident.fresh() if head else {}
        if any(not np.array_equal(value, fresh.get(name, 0)) for name, value in head.items()):
            star |= {f"{STAR}.{name}": value for name, value in head.items()}
        self._told = star | self._merged(self._new(view, whole))
        self._distance = 0.0
        return current

    def notes(self) -> Mapping[str, float]:
        """``distance``: of the released adapter from the anchor, as a share of the anchor's length."""
        return {"distance": self._distance} if self._told else {}

    def state(self) -> Arrays:
        """Anchor, F and the path of the stage so far."""
        path: dict[str, Any] = {f"{PATH}/{name}": value for name, value in self._path.state().items()}
        return {**self._told, **path}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The same."""
        path = {name.removeprefix(f"{PATH}/"): value for name, value in state.items() if name.startswith(f"{PATH}/")}
        self._path.load_state(path)
        self._told = {name: value for name, value in state.items() if not name.startswith(f"{PATH}/")}

    def _new(self, view: View, whole: Arrays) -> dict[str, Pair]:
        """F of the stage that ends, by module, not normalised; empty for ``plain``."""
        if self._kind == "path":
            return self._path.finish(whole, view.scale)
        if self._kind == "plain":
            return {}
        rows = of_ended(view.public_rows, view.stages, view.stage)
        if not rows:
            raise ConfigError(
                ['continual.anchor.importance = "public" needs continual.public with records of the ended stages']
            )
        resident = view.task.resident
        paths = [*modules(whole), *([HEAD] if resident.head is not None else [])]
        with resident.swapped(resident.state_of(whole)):
            return public_fisher(view.task, view.task.encode(rows), paths, view.seed + view.stage)

    def _merged(self, new: Mapping[str, Pair]) -> dict[str, Any]:
        """F <- decay F + F_new in rows and columns, both of one mean; a stage that told nothing leaves F as it was."""
        if not new:
            return {name: value for name, value in self._told.items() if name.startswith((f"{ROW}.", f"{COL}."))}
        merged: dict[str, Any] = {}
        for module, pair in new.items():
            for name, energies in zip((f"{ROW}.{module}", f"{COL}.{module}"), pair, strict=True):
                old, values = self._told.get(name), np.maximum(mean_one(energies), FLOOR)
                total = values if old is None else self._decay * old.astype(np.float64) + values
                merged[name] = total.astype(np.float32)
        return merged

    def _far(self, after: Arrays, scale: float) -> float:
        star = {name.removeprefix(f"{STAR}."): v for name, v in self._told.items() if name.startswith(f"{STAR}.")}
        apart, whole = 0.0, 0.0
        for module in modules(star):
            old = product_pair(star, module, 1.0)
            apart += float(energy(difference(product_pair(after, module, scale), old))[0].sum())
            whole += float(energy(old)[0].sum())
        return float(np.sqrt(apart / whole)) if whole > 0 else 0.0


def _whole(view: View, arrays: Arrays) -> Arrays:
    """With every lora_A, also one that no round has moved."""
    if all(f"{module}.lora_A" in arrays for module in modules(arrays)):
        return arrays
    resident = view.task.resident
    return with_start(arrays, resident.shapes, resident.spec.adapter.seed)


class AnchorSettings(GuardSettings):
    """Stays near the Delta W that the last stage ended with, where it mattered."""

    strength: Annotated[float, within(AnchorSite.bounds["strength"])] = 1.0
    """Weight of the squared distance to the Delta W of the last stage."""
    importance: Literal["plain", "public", "path"] = "plain"
    """What matters: all alike, what public records need, or what the released rounds have moved."""
    decay: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the old importance that is kept at each stage."""

    @property
    def records(self) -> Records:
        """Any text tells what is needed."""
        return "public" if self.importance == "public" else "none"


GUARD = Guard(
    "anchor",
    AnchorSettings,
    AnchorServer,
    AnchorSite,
    needs=(one_product("stays near one Delta W"),),
    stages="earlier",
    holds_start=True,
    idle_at_zero=("strength",),
    notes={
        "distance": "distance from the anchor, as a share of its length",
    },
)
