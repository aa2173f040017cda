"""``gate``: take a round's step in full, in part or not at all, by scores on public records.

    candidates   Delta W(b) = (1 - b) Delta W(before) + b Delta W(current),  b in {1, 0.75, 0.5, 0.25, 0}
    allowed      for every earlier stage j:  p_j(b) >= min(best_j - drop, p_j(0))
    taken        the allowed b with the highest p_now(b); of equal ones the largest

p_j: score of stage j on public records, higher is better; best_j: the highest of what the run went on with in any round
since stage j began (p_j(0), what it has now, included). b = 0 is a rollback: the round's adapter is dropped, bit for
bit. It is always allowed: where a stage has already fallen by more than ``drop`` (another guard did it), a step may not
make it worse, but the run goes on.

Post-processing of released aggregates and of public records: no epsilon. But a round that is refused has been paid for.

The probe decides, so its scores are chosen for, and are no estimate any more: it must not be the set on which the run
is judged. A run whose probe is the test set is refused (``planning/compatible.py``); ``data.dev`` is read in every
round and ``data.test`` once, at the end.

What was refused stays in the metrics: ``accepted`` (b), ``gain`` (of the current stage, against b = 0), ``worst_drop``
(of earlier stages, against their best), ``offered_gain`` and ``offered_drop`` (the same of b = 1), ``refused`` (rolled
back so far) and ``cut`` (taken in part so far).

Source: a line search with a trust test, as in constrained optimisation; the form is this project's.

==========================================  ======================================================================
case                                        result
==========================================  ======================================================================
first stage                                 nothing to keep: the b with the best score of the stage
drop = 0, every step harms an old stage     b = 0 in every round: ``before``, bit for bit
no earlier stage harmed, all steps help     b = 1: ``current``, bit for bit
a score is NaN                              that b is not allowed; NaN at b = 0 allows nothing but b = 0
a stage without a public set                refused at start; RunError if it happens in a round
a server optimizer                          its moments follow the step that was offered, not the one taken
==========================================  ======================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from llmchain_fl.continual.merge_product import blend
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.guards.site_guard import Settings
from llmchain_fl.guards.guard import Guard, GuardSettings
from llmchain_fl.guards.needs import one_product
from llmchain_fl.guards.protocol import ServerGuard, View

SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
BEST, COUNTS = "best.", "counts"


@dataclass(frozen=True)
class Tried:
    """One b with its adapter and scores (stage -> score)."""

    share: float
    arrays: Arrays
    scores: Mapping[str, float]


class GateServer(ServerGuard):
    """Holds the best score of each stage, and two counts. There is no site half."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._drop = float(settings["drop"])
        self._best: dict[str, float] = {}
        self._refused = self._cut = 0
        self._notes: dict[str, float] = {}

    def step(self, view: View, current: Arrays) -> Arrays:
        """The candidate taken.

        Raises:
            RunError: the probe has no score of this stage or an earlier one.
        """
        now, earlier = view.stages[view.stage], view.stages[: view.stage]
        tried = [self._try(view, current, share) for share in SHARES]
        before = tried[-1].scores
        self._raise(before, earlier)
        floor = {j: min(self._best[j] - self._drop, before[j]) for j in earlier}
        allowed = [
            t for t in tried[:-1] if all(t.scores[j] >= floor[j] for j in earlier) and t.scores[now] >= before[now]
        ]
        taken = max([*allowed, tried[-1]], key=lambda t: t.scores[now])
        self._refused += taken.share == 0.0
        self._cut += 0.0 < taken.share < 1.0
        self._notes = self._told(now, earlier, taken, tried)
        self._raise(taken.scores, (*earlier, now))
        return taken.arrays

    def notes(self) -> Mapping[str, float]:
        """See above; empty before the first round."""
        return dict(self._notes)

    def state(self) -> Arrays:
        """Bests (float64, as pairs of float32 words) and counts."""
        state = {f"{BEST}{stage}": np.array([best], np.float64).view(np.float32) for stage, best in self._best.items()}
        return state | {COUNTS: np.array([self._refused, self._cut], np.float32)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Bests and counts."""
        self._best = {
            name.removeprefix(BEST): float(np.ascontiguousarray(value).view(np.float64)[0])
            for name, value in state.items()
            if name.startswith(BEST)
        }
        self._refused, self._cut = (int(count) for count in state.get(COUNTS, (0, 0)))

    def _raise(self, scores: Mapping[str, float], stages: Sequence[str]) -> None:
        for j in stages:
            self._best[j] = max(self._best.get(j, -math.inf), scores[j])

    def _try(self, view: View, current: Arrays, share: float) -> Tried:
        if share in (0.0, 1.0):
            arrays: Arrays = view.before if share == 0.0 else current
        else:
            arrays = blend([(view.before, 1.0 - share), (current, share)], view.scale, current).arrays
        scores = view.probe(arrays)
        missing = [name for name in view.stages[: view.stage + 1] if name not in scores]
        if missing:
            message = f'guard "gate" has no public score of stage "{missing[0]}"'
            raise RunError(message, remedy="give data.dev records of every stage, or take gate out of continual.guards")
        return Tried(share, arrays, {name: float(scores[name]) for name in view.stages[: view.stage + 1]})

    def _told(self, now: str, earlier: Sequence[str], taken: Tried, tried: Sequence[Tried]) -> dict[str, float]:
        offered, before = tried[0], tried[-1]

        def worst(one: Tried) -> float:
            return max((self._best[j] - one.scores[j] for j in earlier), default=0.0)

        return {
            "accepted": taken.share,
            "gain": taken.scores[now] - before.scores[now],
            "worst_drop": worst(taken),
            "offered_gain": offered.scores[now] - before.scores[now],
            "offered_drop": worst(offered),
            "refused": float(self._refused),
            "cut": float(self._cut),
        }


class GateSettings(GuardSettings):
    """Takes a round's step fully, partly or not, by public scores of earlier stages."""

    drop: Annotated[float, Field(ge=0, le=100)] = 0.02
    """How far a public score of an earlier stage may fall below its best."""


GUARD = Guard(
    "gate",
    GateSettings,
    GateServer,
    needs=(one_product("shortens the step of one Delta W"),),
    stages="earlier",
    refactors=True,
    probes=True,
    notes={
        "accepted": "share of the round's step that was taken",
        "cut": "rounds taken in part so far",
        "gain": "score of the present stage gained by what was taken",
        "offered_drop": "largest drop of an earlier stage that the whole step would have made",
        "offered_gain": "score of the present stage that the whole step would have gained",
        "refused": "rounds rolled back so far",
        "worst_drop": "largest drop of an earlier stage below its best",
    },
)
