"""``olora``: each stage learns in a pair of its own, with an A that stays away from the rows of the earlier ones.

O-LoRA (Wang et al. 2023, arXiv 2310.14152, eq. 7-9; their A is our lora_B and their B our lora_A in peft's names):

    Omega = strength / 2  sum_{i < t} sum_{jk} O_jk^2,     O = A A_i^T               form = "squared": the paper
    Omega = strength      sum_{i < t} sum_{jk} |O_jk|                                form = "l1": the released code

At a stage's end its pair goes into the fold (frozen, exact, of rank at most min(d_out, d_in)) and a new one is drawn
with B = 0: without that the guard would push A away from the very rows that hold what is known.

Squared, it is a proximal step after each optimiser step: with ``S = sum_i A_i^T A_i = V diag(e) V^T``,
``A <- A - A V diag(strength e / (1 + strength e)) V^T``; exact for any strength. L1 is a penalty by its subgradient,
after the noise: it swings around orthogonality by about one step of the optimiser, and its strength is the released
code's lambda_1 (0.5 there, 0 to 5 by task).

What it does not do: rows of A that are orthogonal to the old ones protect the old *subspace of updates*, not the old
outputs (``A_new x`` is not 0 for an old input x), and in d_in >> r random rows are nearly orthogonal already. Measured
for this project and said by the authors of InfLoRA: about what one pair for each stage does without it.

All of it reads released factors: no epsilon. Noise on A comes before the step, so it is taken out of the old rows too.

Where we differ: one adapter is sent and scored, old pairs are summed in its fold, not concatenated; the rows kept are
compressed to ``rows`` (their S stays as near as that rank allows, exact below); no L2 term on the new pair.

======================================  ==================================================================
case                                    result
======================================  ==================================================================
first stage                             nothing
strength = 0                            no pull, bit for bit (a new pair for each stage all the same)
strength -> infinity, squared           A A_i^T = 0 after every step
a round that trains B alone             nothing
a rule that never trains A              refused at start
a stage that learnt nothing (B = 0)     no fold, no row kept, A stays
last stage has ended                    nothing changes
======================================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from llmchain_fl.continual.merge import svd_truncate
from llmchain_fl.core.adapter.product import modules, product_pair
from llmchain_fl.core.adapter.value import Array, Arrays, fresh_arrays
from llmchain_fl.core.guards.olora import OLD, Form, OloraSite
from llmchain_fl.core.guards.site_guard import Settings
from llmchain_fl.guards.guard import Guard, GuardSettings, within
from llmchain_fl.guards.needs import pair_of_its_own, trained_a
from llmchain_fl.guards.protocol import ServerGuard, View


class OloraServer(ServerGuard):
    """Collects the rows of A at stage ends; the next stage starts on a new pair."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._most = int(settings["rows"])
        self._old: Arrays = {}
        self._overlap = 0.0

    def payload(self) -> Arrays:
        """``olora-rows.<module>``: at most ``rows`` rows [n, d_in]."""
        return {f"{OLD}.{module}": rows for module, rows in self._old.items()}

    def step(self, view: View, current: Arrays) -> Arrays:
        """Looks how far the released A is from orthogonal."""
        self._overlap = overlap(current, self._old)
        return current

    def on_stage_end(self, view: View, current: Arrays, serving: Arrays) -> Arrays:
        """Pair into fold, rows into the collection, a new pair drawn; nothing after the last stage."""
        if view.stage == len(view.stages) - 1:
            return current
        result = dict(current)
        shapes = {name: value.shape for name, value in current.items() if name.endswith(".lora_A")}
        fresh = fresh_arrays(shapes, view.seed + 104_729 * (view.stage + 1))
        for module in modules(current):
            a, b = f"{module}.lora_A", f"{module}.lora_B"
            if not current[b].any():
                continue
            old = self._old.get(module, np.zeros((0, current[a].shape[1]), dtype=np.float32))
            self._old[module] = compressed(np.vstack([old, current[a]]), self._most)
            result |= folded(current, module, view.scale)
            result[a], result[b] = fresh[a], np.zeros_like(current[b])
        return result

    def notes(self) -> Mapping[str, float]:
        """``overlap``: share of A's energy in the span of the old rows, 0 (orthogonal) to 1."""
        return {"overlap": self._overlap} if self._old else {}

    def state(self) -> Arrays:
        """The rows."""
        return dict(self._old)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The rows."""
        self._old = dict(state)


def compressed(rows: Array, most: int) -> Array:
    """At most ``most`` rows R' with R'^T R' as near to R^T R as that many allow (R itself if there are no more)."""
    if len(rows) <= most:
        return rows
    _, values, vt = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    return np.asarray(values[:most, None] * vt[:most], dtype=np.float32)


def folded(arrays: Arrays, module: str, scale: float) -> Arrays:
    """``{fold_A, fold_B}`` of the module with its pair put in; exact, its rank at most min(d_out, d_in)."""
    left, right = product_pair(arrays, module, scale)
    most = min(left.shape[0], right.shape[1])
    if left.shape[1] > most:
        left, right = svd_truncate(left, right, most)  # type: ignore[assignment]
    return {f"{module}.fold_B": left.astype(np.float32), f"{module}.fold_A": right.astype(np.float32)}


def overlap(arrays: Arrays, old: Arrays) -> float:
    """Share of the energy of all A that lies in the span of the old rows; 0 where there are none."""
    inside, whole = 0.0, 0.0
    for module, rows in old.items():
        a = arrays[f"{module}.lora_A"].astype(np.float64)
        _, values, vt = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
        span = vt[values > 1e-6 * values.max(initial=0.0)]
        inside, whole = inside + float(np.square(a @ span.T).sum()), whole + float(np.square(a).sum())
    return inside / whole if whole > 0 else 0.0


class OloraSettings(GuardSettings):
    """A pair for each stage, its A kept away from the rows of earlier ones."""

    strength: Annotated[float, within(OloraSite.bounds["strength"])] = 1.0
    """Weight of the overlap of A with the rows of earlier stages."""
    form: Form = "squared"
    """The paper's squared overlap, or the released code's sum of absolute values."""
    rows: Annotated[int, Field(ge=1, le=4096)] = 64
    """Most rows of earlier stages kept for each layer."""


GUARD = Guard(
    "olora",
    OloraSettings,
    OloraServer,
    OloraSite,
    needs=(trained_a("turns A away from earlier rows"), pair_of_its_own("freezes a pair for each stage")),
    stages="earlier",
    new_pairs=True,
    idle_at_zero=("strength",),
    notes={
        "overlap": "share of A inside the span of earlier stages",
    },
)
