"""A run that learns heads in closed form: a round brings sums instead of factors, and the head is computed from all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmchain_fl.aggregation.closed_form import Sums, solved
from llmchain_fl.aggregation.mean import no_noise
from llmchain_fl.aggregation.ridge import Matrix
from llmchain_fl.aggregation.rule import Accumulator, Adapter, Arrays, FactorSchedule, Noise, Rule, SiteFactors
from llmchain_fl.core.tasks.random_features import RandomFeatures


class ClosedForm(Rule):
    """Sites send sums over their records (``client/closed_form.py``); the head follows from all sums so far.

    Args:
        features: those of the head.
        labels: L.
        version: of the features (``features_version``): sums of another one are refused.
        scale: what the head's inputs are multiplied with; its weights are divided by it.
        texts: the label texts' vectors, [L, H]: where labels without records, and few records, are pulled to.

    | case | outcome |
    |---|---|
    | no site | the global adapter; the sums stay as they are |
    | sums of a mean over n sites with weight n | the sums of the n |
    | sites of different shape | fine: the adapter is that of the start for all |
    | noise at the server | ModelError: the head is no function of one noised sum |
    """

    name = "closed-form"
    trained = ()
    exact = True
    linear = True
    direct = True

    def __init__(
        self, features: RandomFeatures, labels: int, version: str, scale: float, texts: Matrix | None = None
    ) -> None:
        self._sums, self._scale, self._texts = Sums(features, labels, version), scale, texts

    def schedule(self, number: int) -> FactorSchedule:
        """Nothing is trained at a site; the adapter is handed down."""
        return FactorSchedule((), (), ())

    def sends(self, handed: Arrays, number: int) -> dict[str, tuple[int, ...]]:
        """The sums."""
        return self._sums.features.shapes(self._sums.labels)

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> Accumulator:
        """Open a round; sites bring sums."""
        return _Collected(self, global_arrays)

    def with_sums(self, arrays: Arrays, sites: list[SiteFactors]) -> Adapter:
        """The adapter with the head of everything so far and of ``sites``; they are counted now.

        Raises:
            AdmissionError: sums that cannot be counted.
        """
        for site in sites:
            weighed = {name: site.weight * value.astype(np.float64) for name, value in site.arrays.items()}
            self._sums.add(weighed, self._sums.version)
        adapter: Adapter = {name: np.array(value, dtype=np.float32) for name, value in arrays.items()}
        return adapter | solved(self._sums, self._texts).arrays(self._scale)

    def state(self) -> dict[str, Any]:
        """The sums so far and their version."""
        return self._sums.state() if self._sums.records else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            RunError: sums of other features or labels.
        """
        if state:
            self._sums.load_state(state)


class _Collected:
    """The sums of one round; closed once."""

    def __init__(self, rule: ClosedForm, start: Arrays) -> None:
        self._rule, self._start, self._sites = rule, dict(start), list[SiteFactors]()
        self._done: Adapter | None = None

    def add(self, site: SiteFactors) -> None:
        wanted = self._rule.sends(self._start, 1)
        self._sites.append(SiteFactors({name: site.arrays[name] for name in wanted}, site.scale, site.weight))

    def finish(self, noise: Noise | None = None) -> Adapter:
        no_noise(noise)
        if self._done is None:
            if not self._sites:
                return {name: np.array(value, dtype=np.float32) for name, value in self._start.items()}
            self._done = self._rule.with_sums(self._start, self._sites)
        return {name: array.copy() for name, array in self._done.items()}
