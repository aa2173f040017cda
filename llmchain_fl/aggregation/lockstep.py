"""Lockstep: all sites send a gradient at the same adapter, the server takes the one step of the round. Numpy only.

    D   = (1 / n) sum_k u_k            u_k = -(g_k / b + p): what site k sends (``client/lockstep.py``)
    x  <- x + lr m' / (sqrt(v') + 1e-8)        (adam: beta1 = ``train.momentum``, beta2 = 0.999)
    x  <- x + lr m,  m <- momentum m + D       (sgd)
    M  <- M + (x - M) / k          over the k late rounds of a stage so far (``train.average``); its last one leaves M

In the first rounds of a stage of new labels (``train.sums``) sites send sums over each label's records instead, and the
head's rows follow from these (``class_sums.py``); no optimizer is in it.

n: sites that answered; b: ``train.batch_size``, the units that a site draws in a step on average. So n b stands for
the batch of the federation, and the sequence of x is that of large-batch training with all units in one place, for any
split over the sites: sums of gradients at one point add up (McMahan et al. 2017, arXiv 1602.05629, FedSGD; with clipped
units and noise on the sum: Abadi et al. 2016, arXiv 1607.00133, algorithm 1). The optimizer sees released sums alone.

Only rules whose product is linear in the one steady factor that moves are taken: of two that move, noise would enter
the product twice. The moments begin anew with each stage: those of the last one belong to other records. The mean of
late adapters is left by the last round (Polyak & Juditsky 1992); under privacy it is post-processing and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation import DEFAULT
from llmchain_fl.aggregation.class_sums import WEIGHT, LabelRound, LabelSums
from llmchain_fl.aggregation.optimizers import Settings, Stepping
from llmchain_fl.aggregation.rule import (
    Accumulator,
    Adapter,
    Arrays,
    FactorMean,
    Noise,
    Rule,
    SiteFactors,
    SiteShape,
    sent_names,
)
from llmchain_fl.core.errors import ModelError

KINDS: Mapping[str, str] = {"adam": "adam", "sgd": "momentum"}
"""``train.optimizer`` -> the same among the server optimizers."""
EPSILON, BETA2 = 1e-8, 0.999
Rate = Callable[[int], float]
"""Round -> learning rate."""
Late = Callable[[int], tuple[int, bool]]
"""Round -> the first of the late rounds of its stage (0: it is none of them), and whether it is the last one."""
Sums = Callable[[int], LabelRound | None]
"""Round -> what the sums of a round over labels are for; None: a round of gradients."""
_MEAN, _COUNTED, _SUMS = "mean/", "counted", "sums/"


def _never(_number: int) -> tuple[int, bool]:
    return 0, False


def _no_sums(_number: int) -> LabelRound | None:
    return None


def lacks(rule: Rule) -> str:
    """Why ``rule`` has no lockstep, in words that follow its name; empty where it has one."""
    if rule.owns:
        return "keeps a part of the adapter at each site"
    if not rule.moves_one or rule.turns:
        return "moves more than one factor, or factors that do not keep their coordinates"
    return ""


class Lockstep(Stepping):
    """The step of a round around a rule that says which arrays are trained.

    | case | outcome |
    |---|---|
    | no site | the global adapter, which counts in no mean; the moments stay as they are |
    | a late round that does not come about | left out of the mean; if it is the last one, no mean is left |
    | sgd, momentum 0 | x + lr D |
    | sites of another rank or alpha | ModelError before round 1: their gradients are of other factors |
    | a rule that :func:`lacks` something | ModelError |

    Raises:
        ModelError: see above.
    """

    direct = True

    def __init__(
        self, rule: Rule, kind: str, momentum: float, rate: Rate, late: Late = _never, sums: Sums = _no_sums
    ) -> None:
        if lacks(rule):
            message = f'lockstep steps along one shared factor, but rule "{rule.name}" {lacks(rule)}'
            raise ModelError(message, remedy=f'set aggregation.rule = "{DEFAULT}", or train.method = "local"')
        super().__init__(rule, KINDS[kind])
        self.name, self._rate, self._momentum = f"{rule.name}+lockstep", rate, momentum
        self._late: Late = late
        self._mean: dict[str, NDArray[np.float64]] = {}
        self._counted = (0, 0)
        self._sums_of, self._sums = sums, LabelSums()

    def check(self, arrays: Arrays, sites: Mapping[str, SiteShape]) -> None:
        """The rule's; and all sites alike."""
        super().check(arrays, sites)
        if len(set(sites.values())) > 1:
            raise ModelError(
                "sites of different rank or alpha have no common gradient",
                remedy='leave adapter.site_ranks and adapter.site_alphas empty, or set train.method = "local"',
            )

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> Accumulator:
        """Open a round; sites bring directions, not trained factors."""
        names = sent_names(self, global_arrays, number)
        asked = self._sums_of(number)
        if asked is not None:
            return _Directions(global_arrays, scale, names, lambda mean, done: self._with_rows(asked, mean, done))
        given = Settings(self._rate(number), self._momentum, BETA2, EPSILON)

        def stepped(mean: Adapter, done: Adapter) -> Adapter:
            for name in names:
                step = self._steps.along(name, mean[name].astype(np.float64), given)
                done[name] = (done[name] + step).astype(np.float32)
            return self.averaged(number, names, done)

        return _Directions(global_arrays, scale, names, stepped)

    def _with_rows(self, asked: LabelRound, mean: Adapter, done: Adapter) -> Adapter:
        """The adapter whose head has the rows of the stage's labels from their sums so far."""
        head = self._sums.with_round(done[WEIGHT].astype(np.float64), mean[WEIGHT].astype(np.float64), asked)
        return {**done, WEIGHT: head.astype(np.float32)}

    def averaged(self, number: int, names: list[str], done: Adapter) -> Adapter:
        """What round ``number`` leaves of ``done``: itself, or the mean at the end of the late rounds of a stage."""
        first, last = self._late(number)
        if not first:
            return done
        k = 1 + (self._counted[1] if self._counted[0] == first else 0)
        self._counted = (first, k)
        for name in names:
            past = self._mean[name] if k > 1 else np.zeros(done[name].shape)
            self._mean[name] = past + (done[name] - past) / k
        return {**done, **{name: self._mean[name].astype(np.float32) for name in names}} if last else done

    def state(self) -> Arrays:
        """The moments, the mean and the sums so far."""
        mean = {f"{_MEAN}{name}": array.copy() for name, array in self._mean.items()}
        sums = {f"{_SUMS}{name}": array for name, array in self._sums.state().items()}
        return {**super().state(), **mean, **sums, **({_COUNTED: np.array(self._counted, np.float64)} if mean else {})}

    def load_state(self, state: Arrays) -> None:
        """Take up what :meth:`state` gave."""
        sums = {name: array for name, array in state.items() if name.startswith(_SUMS)}
        self._sums.load_state({name.removeprefix(_SUMS): array for name, array in sums.items()})
        state = {name: array for name, array in state.items() if name not in sums}
        own = {name: array for name, array in state.items() if name.startswith(_MEAN) or name == _COUNTED}
        first, count = own.pop(_COUNTED, np.zeros(2))
        self._mean = {name.removeprefix(_MEAN): array.astype(np.float64) for name, array in own.items()}
        self._counted = (int(first), int(count))
        super().load_state({name: array for name, array in state.items() if name not in own and name != _COUNTED})


class _Directions:
    """The mean of what sites send, then what ``close`` makes of it and of the global arrays; closed once."""

    def __init__(
        self, start: Arrays, scale: float, names: list[str], close: Callable[[Adapter, Adapter], Adapter]
    ) -> None:
        self._start = {name: np.array(array, dtype=np.float32) for name, array in start.items()}
        self._mean, self._close = FactorMean(start, scale, names), close
        self._done: Adapter | None = None

    def add(self, site: SiteFactors) -> None:
        self._mean.add(site)

    def finish(self, noise: Noise | None = None) -> Adapter:
        if self._done is None:
            if not self._mean.counted:
                return dict(self._start)
            self._done = self._close(dict(self._mean.finish(noise)), dict(self._start))
        return {name: array.copy() for name, array in self._done.items()}
