"""flora: stack all factors, fold the sum, start anew (FLoRA, Wang et al., NeurIPS 2024, arXiv 2409.05976)."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.factors import SiteShape, rescaled, sliced
from llmchain_fl.aggregation.mean import Noise, no_noise
from llmchain_fl.aggregation.rule import (
    FOLD_A,
    FOLD_B,
    LORA_A,
    LORA_B,
    Adapter,
    Arrays,
    FactorSchedule,
    Rule,
    WeightOf,
    modules,
)
from llmchain_fl.aggregation.stack import ProductRound, folded, folded_matrix


class Flora(Rule):
    """``fold <- fold + [w_1 s_1 B_1 .. w_K s_K B_K] [A_1; ..; A_K]``; then B = 0 and A is drawn anew.

    Exact: stacking is the sum of the products. A site starts each round from a fresh pair on top of the fold.

    | asked of the rule | answer |
    |---|---|
    | a site trains and sends | lora_A and lora_B at its own rank (and the head): r_k (d_out + d_in) per matrix |
    | it is sent | A and the fold: r_k d_in + f (d_out + d_in), f <= min(d_out, d_in); B is 0 |
    | exact in the product | yes |
    | linear in what is sent | no: it needs each site's product |
    | DP noise | weak: the products of the noises are kept, exactly, and add up over the rounds |
    | sites of different rank | yes, up to the global rank |
    | sites of different alpha | yes |

    Where we differ: the paper sends the stack of the round and every site folds it into its W0 for good; ours sends
    the cumulated fold, so a site keeps nothing and may miss rounds. The paper's scale alpha / r, which the released
    code of others forgets, is inside the sum. The new A is a public function of the old one (see :func:`drawn_anew`),
    the same at server and sites. A site of lower rank starts from its first r_k rows.

    | case | outcome |
    |---|---|
    | no site | the global adapter; A is not drawn again |
    | nothing learnt (B_k = 0 everywhere) | the fold as it was, none in the first round |
    | the global B is not 0 (an earlier adapter) | ``begin`` moves its product into the fold |
    | equal sites | the product of one; each has its columns, for nothing is factorised |
    | more than m = min(d_out, d_in) columns | their sum is kept itself, beside the identity; memory stays bounded |
    """

    name = "flora"
    trained = (LORA_A, LORA_B)
    exact = True
    linear = False
    unsteady = "re-factorises them every round"
    folds = True
    any_rank = True

    def schedule(self, number: int) -> FactorSchedule:
        """The pair up; A and the fold down."""
        return FactorSchedule(self.trained, self.trained, (LORA_A, FOLD_A, FOLD_B))

    def begin(self, arrays: Arrays, scale: float, weight_of: WeightOf | None = None) -> Adapter:
        """An adapter that is not at its start goes into the fold."""
        start = super().begin(arrays, scale, weight_of)
        for module in modules(arrays):
            name = f"{module}.{LORA_B}"
            if start[name].any():
                start |= folded(start, module, [(1.0, scale, start[name], start[f"{module}.{LORA_A}"])])
                start[name] = np.zeros_like(start[name])
        return start

    def handed(self, arrays: Arrays, scale: float, shape: SiteShape) -> Arrays:
        """The first r_k rows of A and columns of B (which are 0), and the fold."""
        return sliced(rescaled(arrays, scale / shape.scale), shape.rank)

    def start(self, global_arrays: Arrays, scale: float, number: int = 1) -> _Stacked:
        """Open a round; see :class:`llmchain_fl.aggregation.rule.Rule`."""
        return _Stacked(global_arrays, scale)


class _Stacked(ProductRound):
    def finish(self, noise: Noise | None = None) -> Adapter:
        no_noise(noise)
        arrays = self._head.finish()
        if not self._head.counted:
            return arrays
        result = {n: a for n, a in arrays.items() if not n.endswith((FOLD_A, FOLD_B))}
        for module in modules(arrays):
            a, b = f"{module}.{LORA_A}", f"{module}.{LORA_B}"
            terms = self._products.terms(module)
            if terms is None:
                result |= folded_matrix(arrays, module, self._products.matrix(module))
            else:
                result |= folded(arrays, module, terms)
            result[a], result[b] = drawn_anew(a, arrays[a]), np.zeros_like(arrays[b])
        return result


def drawn_anew(name: str, old: NDArray[np.float32]) -> NDArray[np.float32]:
    """The next lora_A: U(-1/sqrt(d_in), 1/sqrt(d_in)) from a key over the name and the bytes of the old one.

    The distribution is that of a fresh adapter (peft's start); the key is public, so the draw holds no secret and
    server and sites could make it alike.
    """
    key = hashlib.sha256(name.encode() + np.ascontiguousarray(old, dtype="<f4").tobytes()).digest()
    draw = np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little")))
    bound = 1.0 / np.sqrt(old.shape[1])
    return draw.uniform(-bound, bound, size=old.shape).astype(np.float32)
