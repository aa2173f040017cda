"""fedsb: a small core between two frozen factors (Fed-SB, Singhal et al., 2025, arXiv 2502.15436)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmchain_fl.aggregation.factors import SiteShape, check_thin
from llmchain_fl.aggregation.pairs import leading_pair
from llmchain_fl.aggregation.rule import (
    CORE,
    LORA_A,
    LORA_B,
    Adapter,
    Arrays,
    FactorMean,
    FactorSchedule,
    Rule,
    WeightOf,
    modules,
    sent_names,
)
from llmchain_fl.core.errors import ModelError


class FedSb(Rule):
    """``Delta W = s B R A`` with B, A frozen and orthonormal; ``R = sum_k w_k (s_k / s) R_k`` (r x r), R = 0 at first.

    Exact: B and A are common, the product is linear in R.

    | asked of the rule | answer |
    |---|---|
    | a site trains and sends | lora_R (and the head): r^2 numbers per matrix, whatever its size |
    | it is sent | lora_R and, because a site keeps nothing, the frozen A and B; kept by their digest it would be r^2 |
    | exact in the product | yes |
    | linear in what is sent | yes: the sum of secure aggregation is all it needs |
    | DP noise | enters once, on r^2 numbers instead of r (d_out + d_in): the least of all rules at one clip norm |
    | sites of different rank | no |
    | sites of different alpha | yes; such a site starts from ``R s / s_k`` |

    ``begin`` makes B and A: the first r singular directions of a public d_out x d_in matrix of each module.

    Where we differ: the paper takes them from an estimate of the first step of full fine-tuning, which needs records
    (at the sites: a release before round 1). We take any public matrix (the frozen W0, or a gradient on public
    records), and R = 0, so that Delta W = 0 at the start. Sites need no extra layer: with ``B' = B R`` and B
    orthonormal, ``dL/dR = B^T dL/dB'``.

    | case | outcome |
    |---|---|
    | no site | the global adapter |
    | no public matrix | ModelError at start |
    | a start that already has a core | taken as it is |
    | rank above min(d_out, d_in) | ModelError at start |
    | a site sends an A or B that differs | AdmissionError foreign-factor |
    """

    name = "fedsb"
    trained = (CORE,)
    exact = True
    linear = True

    def schedule(self, number: int) -> FactorSchedule:
        """The core up; all three down."""
        return FactorSchedule(trains=(CORE,), up=(CORE,), down=(LORA_A, LORA_B, CORE))

    def check(self, arrays: Arrays, sites: Mapping[str, SiteShape]) -> None:
        """One rank, and not above min(d_out, d_in)."""
        super().check(arrays, sites)
        check_thin(arrays, self.name)

    def begin(self, arrays: Arrays, scale: float, weight_of: WeightOf | None = None) -> Adapter:
        """Orthonormal B and A from the public matrices, R = 0."""
        start = super().begin(arrays, scale, weight_of)
        names = modules(arrays)
        if all(f"{module}.{CORE}" in arrays for module in names):
            return start
        if weight_of is None:
            message = "fedsb needs a public matrix of each module to take its frozen factors from"
            raise ModelError(message, remedy="pass the frozen weights of the base model")
        for module in names:
            a, b = f"{module}.{LORA_A}", f"{module}.{LORA_B}"
            weight = weight_of(module)
            wanted = (start[b].shape[0], start[a].shape[1])
            if weight.shape != wanted:
                message = f"the matrix of {module!r} has shape {weight.shape}; its Delta W has {wanted}"
                raise ModelError(message, remedy="pass W0 as d_out x d_in (a Conv1D stores it transposed)")
            left, right = leading_pair(weight, start[a])
            start[b], start[a] = left.astype(np.float32), right.astype(np.float32)
            start[f"{module}.{CORE}"] = np.zeros((right.shape[0],) * 2, dtype=np.float32)
        return start

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> FactorMean:
        """Open a round; see :class:`llmchain_fl.aggregation.rule.Rule`.

        Raises:
            ModelError: there is no core: ``begin`` was not called.
        """
        names = sent_names(self, global_arrays, number)
        if len([name for name in names if name.endswith(CORE)]) != len(modules(global_arrays)):
            raise ModelError("the global adapter has no core (lora_R)", remedy="start from what begin() returns")
        return FactorMean(global_arrays, scale, names, frozen=(LORA_A, LORA_B))
