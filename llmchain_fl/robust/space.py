"""The space in which robust steps measure: the change of the product over all modules, and of the head. Numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.factors import check_adapter
from llmchain_fl.aggregation.rule import CORE, HEAD, LORA_A, LORA_B, Arrays, SiteFactors, modules
from llmchain_fl.core.errors import ModelError
from llmchain_fl.robust.both_factors import BothFactors
from llmchain_fl.robust.moving import Floats, Moving, Path
from llmchain_fl.robust.one_factor import OneFactor, moving_ending


class Space:
    """Points are sites; the vector of site k is D_k of every module and ``head_k - head``, all in float64.

    Head arrays count with their plain entries: one unit of a head weight is as long as one unit of Delta W. A head that
    some site does not bring (it stays at the sites) is no part of the space.

    Args:
        global_arrays: what the round started from.
        scale: s = alpha / r of the global adapter.
        up: endings of what the sites sent.
        sites: the sites of the round.

    Raises:
        ModelError: arrays that are no adapter, or ``up`` names neither one factor of each module nor both.
    """

    def __init__(self, global_arrays: Arrays, scale: float, up: Sequence[str], sites: Sequence[SiteFactors]) -> None:
        check_adapter(global_arrays, scale)
        self.modules = {module: _moving(global_arrays, module, scale, up) for module in modules(global_arrays)}
        names = [n for n in HEAD if n in global_arrays and all(n in site.arrays for site in sites)]
        self.head = {name: global_arrays[name].astype(np.float64) for name in names}

    def settled(self, site: SiteFactors) -> SiteFactors:
        """The same product in the coordinates of the global adapter; the site itself where they are fixed anyway."""
        changed: dict[str, NDArray[np.float32]] = {}
        for moving in self.modules.values():
            changed |= moving.settled(site)
        return replace(site, arrays={**site.arrays, **changed}) if changed else site

    def gram(self, sites: Sequence[SiteFactors]) -> Floats:
        """``<D_k, D_l>`` (K x K), of settled sites."""
        gram = np.zeros((len(sites), len(sites)))
        for moving in self.modules.values():
            gram += moving.gram(sites)
        for name in self.head:
            rows = np.stack([self.head_move(site, name).ravel() for site in sites])
            gram += rows @ rows.T
        return gram

    def path(self, site: SiteFactors) -> Path:
        """Length of the site's own change along its way back to its start."""
        moves = [self.head_move(site, name) for name in self.head]
        path = Path(sum(float(np.vdot(move, move)) for move in moves))
        for moving in self.modules.values():
            path = path + moving.path(site)
        return path

    def shrunk(self, site: SiteFactors, t: float) -> SiteFactors:
        """The site at t on that way, head and all."""
        arrays = {name: (self.head[name] + t * self.head_move(site, name)).astype(np.float32) for name in self.head}
        for moving in self.modules.values():
            arrays |= moving.shrunk(site, t)
        return replace(site, arrays={**site.arrays, **arrays})

    def head_move(self, site: SiteFactors, name: str) -> Floats:
        """``head_k - head`` of one head array."""
        move: Floats = site.arrays[name].astype(np.float64) - self.head[name]
        return move


def _moving(arrays: Arrays, module: str, scale: float, up: Sequence[str]) -> Moving:
    ending = moving_ending(arrays, module, up)
    if ending is not None:
        return OneFactor(arrays, module, ending, scale)
    if {LORA_A, LORA_B} <= set(up) and f"{module}.{CORE}" not in arrays:
        return BothFactors(arrays, module, scale)
    message = f"no robust step knows the product of {module!r} when the sites send {sorted(up)}"
    raise ModelError(message, remedy="pass the endings the rule names in FactorSchedule.up")
