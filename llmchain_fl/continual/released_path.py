"""How much each entry of W has moved, from released rounds alone: an importance that costs no epsilon.

    F_ij = mean over the rounds of a stage of (Delta_ij)^2,     Delta = Delta W after the round - before

as row and column sums, in factors (``product.py``). After Synaptic Intelligence (Zenke et al. 2017, arXiv 1703.04200):
what a stage moved far, it needed. Where we differ: their path integral needs gradients, which are private; squared
steps need what every round publishes anyway.

Noise moves entries too. Known noise on the released arrays is taken off by its expectation (``noise_energy``). Noise of
unknown size (after Adam, or a factorisation) is taken off without knowing it: it is independent between rounds, so

    F_ij = mean over pairs of rounds m != n of Delta_m,ij Delta_n,ij
         = ((sum_m Delta_m)_ij^2 - sum_m Delta_m,ij^2) / (M (M - 1))                                  (pairs)

keeps what goes one way and loses what noise does. Both are cut at 0.

====================================  ==========================================================
case                                  result
====================================  ==========================================================
no round of the stage was seen        nothing
no noise, M rounds                    mean of squared steps
noise alone                           about 0 before the cut; half the entries 0 after it
noise of unknown size, one round      zeros: one round cannot tell
====================================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmchain_fl.continual.product_energy import difference, energy, noise_energy
from llmchain_fl.core.adapter.product import Arrays as Floating
from llmchain_fl.core.adapter.product import Float, Pair, modules, product_pair
from llmchain_fl.core.adapter.value import Arrays

HEAD = "head"


class ReleasedPath:
    """Adds up the rounds of one stage. Its state is arrays: a run may be resumed in any round."""

    def __init__(self) -> None:
        self._state: dict[str, Float] = {}

    def add(self, before: Arrays, after: Arrays, scale: float, noise: float | None) -> None:
        """One round.

        Args:
            before: the global arrays that it began with, whole.
            after: those it ended with.
            scale: s.
            noise: standard deviation of the known noise on each entry of the released arrays; 0 for none, None where
                there is noise of unknown size.
        """
        if not self._state:
            self._state = {f"start/{name}": value.astype(np.float64) for name, value in before.items()}
        self._state["rounds"] = self._state.get("rounds", np.zeros(1)) + 1
        if noise is None:
            self._state["unknown"] = np.ones(1)
        for module, (rows, cols) in _energies(before, after, scale, noise or 0.0).items():
            for kind, sums in (("row", rows), ("col", cols)):
                self._state[f"{kind}/{module}"] = self._state.get(f"{kind}/{module}", np.zeros(len(sums))) + sums

    def finish(self, after: Arrays, scale: float) -> dict[str, Pair]:
        """Module (or ``head``) -> (rows, columns) of F; ``after``: the arrays of the stage's end. Starts anew."""
        state, self._state = self._state, {}
        if not state:
            return {}
        rounds, start = float(state["rounds"][0]), _under(state, "start/")
        sums = {module: (rows, state[f"col/{module}"]) for module, rows in _under(state, "row/").items()}
        if "unknown" in state:
            whole = _energies(start, after, scale, 0.0)
            pairs = max(1.0, rounds * (rounds - 1))
            return {
                module: (_positive(whole[module][0] - rows) / pairs, _positive(whole[module][1] - cols) / pairs)
                for module, (rows, cols) in sums.items()
            }
        return {m: (_positive(rows) / rounds, _positive(cols) / rounds) for m, (rows, cols) in sums.items()}

    def state(self) -> dict[str, Float]:
        """What must survive a crash."""
        return dict(self._state)

    def load_state(self, state: Mapping[str, Float]) -> None:
        """Take it up."""
        self._state = dict(state)


def _energies(before: Floating, after: Floating, scale: float, std: float) -> dict[str, Pair]:
    """Energy of one step less that of the known noise, by module; for a head over its weight."""
    energies: dict[str, Pair] = {}
    for module in modules(after):
        rows, cols = energy(difference(product_pair(after, module, scale), product_pair(before, module, scale)))
        noised = frozenset(
            ending
            for ending in ("lora_A", "lora_B", "lora_R")
            if not np.array_equal(before.get(f"{module}.{ending}", 0), after.get(f"{module}.{ending}", 0))
        )
        less = noise_energy(after, module, scale, std, noised)
        energies[module] = rows - less[0], cols - less[1]
    name = f"{HEAD}.weight"
    if name in after:
        step = np.square(after[name].astype(np.float64) - before[name])
        moved = std**2 if step.any() else 0.0
        energies[HEAD] = step.sum(axis=1) - moved * step.shape[1], step.sum(axis=0) - moved * step.shape[0]
    return energies


def _under(state: Mapping[str, Float], prefix: str) -> dict[str, Float]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _positive(values: Float) -> Float:
    return np.maximum(values, 0.0)
