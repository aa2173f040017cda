"""Server optimizers: the aggregated step of a round is a gradient (FedOpt, Reddi et al., ICLR 2021, arXiv 2003.00295).

With x the global arrays, y what the rule makes of the round and ``D = y - x`` (algorithm 2), entry by entry:

| kind | first moment m | second moment v | x <- |
|---|---|---|---|
| momentum | beta1 m + D | | x + lr m |
| adagrad | beta1 m + (1 - beta1) D | v + D^2 | x + lr m' / (sqrt(v) + tau) |
| adam | beta1 m + (1 - beta1) D | beta2 v + (1 - beta2) D^2 | x + lr m' / (sqrt(v') + tau) |
| yogi | beta1 m + (1 - beta1) D | v - (1 - beta2) D^2 sign(v - D^2) | x + lr m' / (sqrt(v) + tau) |

Bias correction, with t the steps this array has taken: ``m' = m / (1 - beta1^t)``, ``v' = v / (1 - beta2^t)``; yogi
starts from ``v_1 = D_1^2`` (Zaheer et al. 2018), which needs none. So the first step of all three is
lr D / (|D| + tau), and D that never changes gives that step for ever (adagrad: divided by sqrt(t)).

Post-processing of a released sum: no epsilon, and secure aggregation stays possible (central noise goes in before the
moments, see ``Accumulator.finish``). Under DP noise of variance n^2 per
entry v tends to D^2 + n^2: tau below n makes steps of noise as long as those of signal.

Where we differ: the paper has no bias correction and starts v at tau^2. Optimizers act factor by factor, so only on a
``steady`` rule; a momentum of U S in coordinates that turn each round would be a sum of unrelated vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.rule import (
    Accumulator,
    Adapter,
    Arrays,
    FactorSchedule,
    Noise,
    Rule,
    SiteFactors,
    SiteShape,
    WeightOf,
    sent_names,
)
from llmchain_fl.core.errors import ModelError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """Public constants of an optimizer.

    Attributes:
        lr: server learning rate; 1 with ``momentum`` and beta1 = 0 is the rule itself.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment (adam, yogi), in [0, 1).
        tau: in the unit of D, above 0: entries that move less than this are not blown up to a full step.

    Raises:
        ModelError: out of these bounds.
    """

    lr: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        bounds = {
            "lr": 0 < self.lr < math.inf,
            "beta1": 0 <= self.beta1 < 1,
            "beta2": 0 <= self.beta2 < 1,
            "tau": 0 < self.tau < math.inf,
        }
        for name, good in bounds.items():
            if not good:
                message = f"{name} = {getattr(self, name)} of the server optimizer is out of its bounds"
                raise ModelError(message, remedy="lr and tau above 0, beta1 and beta2 in [0, 1)")


@dataclass
class Moments:
    """What one array remembers: first and second moment, float64, and the steps taken so far."""

    first: Floats
    second: Floats
    steps: int = 0


def momentum(delta: Floats, past: Moments, given: Settings) -> Floats:
    """FedAvgM (Hsu et al. 2019): ``m <- beta1 m + D``; the step is ``m``."""
    past.first = given.beta1 * past.first + delta
    return past.first


def adagrad(delta: Floats, past: Moments, given: Settings) -> Floats:
    """``v <- v + D^2``."""
    past.second = past.second + delta**2
    return _first(delta, past, given) / (np.sqrt(past.second) + given.tau)


def adam(delta: Floats, past: Moments, given: Settings) -> Floats:
    """``v <- beta2 v + (1 - beta2) D^2``, bias-corrected."""
    past.second = given.beta2 * past.second + (1 - given.beta2) * delta**2
    second = past.second / (1 - given.beta2**past.steps)
    return _first(delta, past, given) / (np.sqrt(second) + given.tau)


def yogi(delta: Floats, past: Moments, given: Settings) -> Floats:
    """``v <- v - (1 - beta2) D^2 sign(v - D^2)``, v_1 = D_1^2."""
    square = delta**2
    change = (1 - given.beta2) * square * np.sign(past.second - square)
    past.second = square if past.steps == 1 else past.second - change
    return _first(delta, past, given) / (np.sqrt(past.second) + given.tau)


def _first(delta: Floats, past: Moments, given: Settings) -> Floats:
    past.first = given.beta1 * past.first + (1 - given.beta1) * delta
    corrected: Floats = past.first / (1 - given.beta1**past.steps)
    return corrected


OPTIMIZERS: Mapping[str, Callable[[Floats, Moments, Settings], Floats]] = MappingProxyType(
    {"momentum": momentum, "adagrad": adagrad, "adam": adam, "yogi": yogi}
)
"""Kind -> (D, moments, settings) -> step; each updates the moments it was given."""


class Steps:
    """One optimizer over named arrays, with the moments of each. Its state outlives a round."""

    def __init__(self, kind: str) -> None:
        self._step = OPTIMIZERS[kind]
        self._moments: dict[str, Moments] = {}

    def along(self, name: str, delta: Floats, given: Settings) -> Floats:
        """What is added to the array ``name`` for the direction D = ``delta``; moves its moments on.

        Raises:
            ModelError: the moments are those of an array of another shape.
        """
        past = self._moments.setdefault(name, Moments(np.zeros(delta.shape), np.zeros(delta.shape)))
        if past.first.shape != delta.shape:
            message = f"the moments of {name!r} have shape {past.first.shape}; the array has {delta.shape}"
            raise ModelError(message, remedy="resume with the optimizer state of this run")
        past.steps += 1
        return given.lr * self._step(delta, past, given)

    def state(self) -> Arrays:
        """``first/<array>``, ``second/<array>`` and ``steps/<array>``, float64."""
        state: dict[str, Floats] = {}
        for name, past in self._moments.items():
            state |= {f"first/{name}": past.first.copy(), f"second/{name}": past.second.copy()}
            state[f"steps/{name}"] = np.array([past.steps], dtype=np.float64)
        return state

    def load_state(self, state: Arrays) -> None:
        """Take up what :meth:`state` gave; nothing: begin anew.

        Raises:
            ModelError: it is not such a state.
        """
        names = [key.removeprefix("steps/") for key in state if key.startswith("steps/")]
        if {f"{part}/{name}" for part in ("first", "second", "steps") for name in names} != set(state):
            raise ModelError("this is no state of a server optimizer", remedy="resume the run it belongs to")
        self._moments = {
            name: Moments(
                state[f"first/{name}"].astype(np.float64),
                state[f"second/{name}"].astype(np.float64),
                int(state[f"steps/{name}"][0]),
            )
            for name in names
        }


class Stepping(Rule):
    """A rule around another one, which takes an optimizer's step; what it does not say itself is that rule's.

    ``exact``, ``linear``, ``any_rank`` and the rest are the rule's: exactness is that of the step D.
    """

    def __init__(self, rule: Rule, kind: str) -> None:
        self.trained, self.exact, self.linear = rule.trained, rule.exact, rule.linear
        self.any_rank, self.weighs, self.factors = rule.any_rank, rule.weighs, rule.factors
        self._rule, self._steps = rule, Steps(kind)

    def schedule(self, number: int) -> FactorSchedule:
        """The rule's."""
        return self._rule.schedule(number)

    def check(self, arrays: Arrays, sites: Mapping[str, SiteShape]) -> None:
        """The rule's."""
        self._rule.check(arrays, sites)

    def begin(self, arrays: Arrays, scale: float, weight_of: WeightOf | None = None) -> Adapter:
        """The rule's."""
        return self._rule.begin(arrays, scale, weight_of)

    def handed(self, arrays: Arrays, scale: float, shape: SiteShape) -> Arrays:
        """The rule's."""
        return self._rule.handed(arrays, scale, shape)

    def state(self) -> Arrays:
        """The moments (:class:`Steps`)."""
        return self._steps.state()

    def load_state(self, state: Arrays) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            ModelError: it is not such a state.
        """
        self._steps.load_state(state)


class ServerOptimizer(Stepping):
    """Any steady rule with an optimizer on its step. One object for one run: it remembers moments.

    | case | outcome |
    |---|---|
    | momentum, beta1 = 0, lr = 1 | the rule |
    | no site | the global adapter; the moments stay as they are |
    | an array that the round does not train (rolora) | untouched, and its moments too |
    | the state of another optimizer or adapter | ModelError |

    Raises:
        ModelError: the rule is not steady, or there is no such kind.
    """

    def __init__(self, rule: Rule, kind: str, settings: Settings | None = None) -> None:
        if not rule.steady:
            fault = f'a server optimizer steps along LoRA factors, but rule "{rule.name}" {rule.unsteady}'
            raise ModelError(fault, remedy="choose no server optimizer, or a rule whose factors keep their coordinates")
        if kind not in OPTIMIZERS:
            raise ModelError(f"there is no server optimizer {kind!r}", remedy=f"choose one of {', '.join(OPTIMIZERS)}")
        super().__init__(rule, kind)
        self.name, self._settings = f"{rule.name}+{kind}", settings or Settings()

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> _Stepped:
        """Open a round; see :class:`llmchain_fl.aggregation.rule.Rule`."""
        inner = self._rule.start(global_arrays, scale, number)
        return _Stepped(self, inner, sent_names(self, global_arrays, number))

    def stepped(self, old: Arrays, new: Adapter, names: list[str]) -> Adapter:
        """``new`` with the optimizer's step from ``old`` in the arrays ``names``; moves the moments on."""
        for name in names:
            delta = new[name].astype(np.float64) - old[name]
            new[name] = (old[name] + self._steps.along(name, delta, self._settings)).astype(np.float32)
        return new


class _Stepped:
    """The rule's own sum, then one step; closed once."""

    def __init__(self, optimizer: ServerOptimizer, inner: Accumulator, names: list[str]) -> None:
        self._optimizer, self._inner, self._names = optimizer, inner, names
        self._old = inner.finish()
        self._done: Adapter | None = None
        self._count = 0

    def add(self, site: SiteFactors) -> None:
        self._inner.add(site)
        self._count += 1

    def finish(self, noise: Noise | None = None) -> Adapter:
        if self._done is None:
            if not self._count:
                return self._inner.finish()
            self._done = self._optimizer.stepped(self._old, self._inner.finish(noise), self._names)
        return {name: array.copy() for name, array in self._done.items()}
