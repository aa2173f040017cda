"""The values all rules share: names, what a site looks like, what it sends, and how an adapter is read. Numpy only.

An adapter is named arrays, one group for each adapted matrix W0 (d_out x d_in), plus a head where one is trained:

| array | shape | there |
|---|---|---|
| ``<module>.lora_A``, ``<module>.lora_B`` | r x d_in, d_out x r | always |
| ``<module>.lora_R`` (the core) | r x r | ``fedsb`` only; then A and B are frozen |
| ``<module>.fold_A``, ``<module>.fold_B`` (the fold) | f x d_in, d_out x f | ``fedex``, ``flora``, once f > 0 |
| ``head.weight``, ``head.bias`` | any | with a trained head |
| those of a variant without a product (``core/adapter/variants``) | any | in place of A and B |

    Delta W = fold_B fold_A + s B R A          (R = 1 where there is no core; no fold, no first term)

The fold is frozen: sites add it to W0 (or carry it as a second, untrained pair) and never train it. Its scale is 1
at every site whatever its alpha; its rank f never passes min(d_out, d_in).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.admission import refuse
from llmchain_fl.core.adapter.variants import VARIANTS
from llmchain_fl.core.errors import ModelError

Arrays = Mapping[str, NDArray[np.floating]]
Adapter = dict[str, NDArray[np.float32]]
WITHOUT_PRODUCT: tuple[str, ...] = tuple(
    ending for variant in VARIANTS.values() if not variant.product for ending in variant.trained
)
"""Endings of arrays that belong to no pair of factors."""
HEAD = ("head.weight", "head.bias")
LORA_A, LORA_B, CORE = "lora_A", "lora_B", "lora_R"
FOLD_A, FOLD_B = "fold_A", "fold_B"
_REMEDY = "start from the arrays of an adapter: <module>.lora_A (r x d_in), <module>.lora_B (d_out x r), head.*"


@dataclass(frozen=True)
class SiteShape:
    """The adapter of one site: rank r_k and alpha_k, public constants.

    Raises:
        ModelError: a rank below 1, or an alpha that is not finite and above 0.
    """

    rank: int
    alpha: float

    def __post_init__(self) -> None:
        if self.rank < 1 or not (math.isfinite(self.alpha) and self.alpha > 0):
            message = f"a site cannot have rank {self.rank} and alpha {self.alpha}"
            raise ModelError(message, remedy="give a rank of at least 1 and a finite alpha above 0")

    @property
    def scale(self) -> float:
        """s_k = alpha_k / r_k."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class SiteFactors:
    """One admitted site after local training.

    Args:
        arrays: full factors (what it was handed + its delta) under the names above, at the site's own rank. What the
            rule keeps frozen may be left out.
        scale: s_k = alpha_k / r_k, no unit.
        weight: a public constant, never the number of this site's records; any positive unit.

    Raises:
        AdmissionError: ``weight`` or ``scale`` is zero, negative or not finite.
    """

    arrays: Arrays
    scale: float
    weight: float

    def __post_init__(self) -> None:
        for reason, value in (("weight", self.weight), ("scale", self.scale)):
            if not (math.isfinite(value) and value > 0):
                text = f"a site's {reason} is {value}; it must be finite and above 0"
                raise refuse(reason, text, remedy="leave the site out of the round, or correct the run's configuration")


def modules(names: Iterable[str]) -> list[str]:
    """Module paths that have a ``lora_B``, in the order given."""
    return [name.removesuffix(f".{LORA_B}") for name in names if name.endswith(f".{LORA_B}")]


def names_of(endings: Iterable[str], names: Iterable[str]) -> list[str]:
    """The names among ``names`` with one of the ``endings``, and those of the head, in the order given."""
    wanted = tuple(endings)
    return [name for name in names if name in HEAD or name.rpartition(".")[2] in wanted]


def scaled_names(names: Iterable[str]) -> set[str]:
    """The factor of each module that carries s_k / s between a site and the server: the core if any, else lora_B."""
    known = set(names)
    return {f"{m}.{CORE}" if f"{m}.{CORE}" in known else f"{m}.{LORA_B}" for m in modules(known)}


def rescaled(arrays: Arrays, ratio: float) -> dict[str, NDArray[np.floating]]:
    """``arrays`` with lora_B (or the core) times ``ratio`` = s / s_k: the same product under a site's scale s_k."""
    if ratio == 1.0:
        return dict(arrays)
    changed = {n: (arrays[n].astype(np.float64) * ratio).astype(np.float32) for n in scaled_names(arrays)}
    return {**arrays, **changed}


def sliced(arrays: Arrays, rank: int) -> dict[str, NDArray[np.floating]]:
    """The first ``rank`` rows of every lora_A and columns of every lora_B; all else as it is."""
    cut = {LORA_A: (slice(rank),), LORA_B: (slice(None), slice(rank))}
    return {n: a[cut[n.rpartition(".")[2]]] if n.rpartition(".")[2] in cut else a for n, a in arrays.items()}


def product_pair(
    arrays: Arrays, module: str, scale: float, other: Arrays | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Delta W of one module as one pair (d_out x R, R x d_in), float64: ``[s B R, fold_B] [A; fold_A]``.

    ``other`` gives lora_A and lora_B where ``arrays`` has none of its own (frozen factors that did not travel).
    """

    def get(ending: str, source: Arrays | None = None) -> NDArray[np.float64] | None:
        array = arrays.get(f"{module}.{ending}", (source or {}).get(f"{module}.{ending}"))
        return None if array is None else array.astype(np.float64)

    right, left, core = get(LORA_A, other), get(LORA_B, other), get(CORE)
    if left is None or right is None:
        raise ModelError(f"{module!r} has no pair of factors", remedy=_REMEDY)
    left = scale * (left if core is None else left @ core)
    fold_b, fold_a = get(FOLD_B), get(FOLD_A)
    if fold_b is None or fold_a is None:
        return left, right
    return np.hstack([left, fold_b]), np.vstack([right, fold_a])


def serving(arrays: Arrays, scale: float) -> Adapter:
    """The same Delta W as a plain adapter: lora_A, lora_B and the head only, read with the same scale s.

    ``B' = [B R, fold_B / s]``, ``A' = [A; fold_A]``; exact, nothing is truncated. All modules get one rank (the
    largest), padded with zeros, so that alpha' = s x rank'. To bring it to a rank that sites can train on, project
    with ``llmchain_fl.continual.merge.truncate`` (best rank-r approximation).

    | arrays | result |
    |---|---|
    | neither core nor fold | the arrays, bit for bit, rank r |
    | a fold of rank f | rank r + f (the largest over the modules) |
    """
    check_adapter(arrays, scale)
    own = {name: np.array(array, dtype=np.float32) for name, array in arrays.items()}
    if not any(name.endswith((CORE, FOLD_B)) for name in arrays):
        return own
    result = {name: array for name, array in own.items() if name in HEAD}
    pairs = {module: product_pair(arrays, module, scale) for module in modules(arrays)}
    rank = max(right.shape[0] for _, right in pairs.values())
    for module, (left, right) in pairs.items():
        spare = rank - right.shape[0]
        result[f"{module}.{LORA_A}"] = np.pad(right, ((0, spare), (0, 0))).astype(np.float32)
        result[f"{module}.{LORA_B}"] = np.pad(left / scale, ((0, 0), (0, spare))).astype(np.float32)
    return result


def rank_of(arrays: Arrays) -> int:
    """The one rank r of an adapter (the fold does not count).

    Raises:
        ModelError: no module, or modules of different rank.
    """
    ranks: list[int] = sorted({arrays[f"{module}.{LORA_B}"].shape[1] for module in modules(arrays)})
    if len(ranks) != 1:
        raise ModelError(f"the modules of the adapter have the ranks {ranks}; one is needed", remedy=_REMEDY)
    return ranks[0]


def check_thin(arrays: Arrays, rule: str) -> None:
    """Refuse a rank above min(d_out, d_in), for rules with orthonormal factors.

    Raises:
        ModelError: some module is smaller than the rank.
    """
    for module in modules(arrays):
        (d_out, rank), d_in = arrays[f"{module}.{LORA_B}"].shape, arrays[f"{module}.{LORA_A}"].shape[1]
        if rank > min(d_out, d_in):
            message = f"{module!r} is {d_out} x {d_in}; rank {rank} leaves no {rank} orthonormal directions in it"
            raise ModelError(message, remedy=f"lower adapter.rank, or choose another rule than {rule}")


def check_adapter(arrays: Arrays, scale: float) -> None:
    """Refuse global arrays that are no adapter.

    Raises:
        ModelError: a scale that is not finite and above 0, a name without its partner, or shapes that do not multiply.
            An array that has no partner in any variant, and one of a head, may have any shape.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ModelError(f"the scale alpha/r of the global adapter is {scale}; it must be above 0", remedy=_REMEDY)
    expected = {name for name in arrays if name in HEAD or name.rpartition(".")[2] in WITHOUT_PRODUCT}
    for module in modules(arrays):
        expected |= {f"{module}.{LORA_A}", f"{module}.{LORA_B}"}
        expected |= {f"{module}.{CORE}"} & set(arrays)
        if {f"{module}.{FOLD_A}", f"{module}.{FOLD_B}"} & set(arrays):
            expected |= {f"{module}.{FOLD_A}", f"{module}.{FOLD_B}"}
    odd = set(arrays) ^ expected
    if odd:
        raise ModelError(f"{min(odd)!r} is not part of a pair of factors or of a head", remedy=_REMEDY)
    more = [ending for ending in (CORE, FOLD_A, FOLD_B) if any(name.endswith(f".{ending}") for name in arrays)]
    for module in modules(arrays):
        a, b = arrays[f"{module}.{LORA_A}"].shape, arrays[f"{module}.{LORA_B}"].shape
        if more or len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            names = [(ending, f"{module}.{ending}") for ending in (LORA_A, LORA_B, *more)]
            _check_shapes({ending: arrays[name].shape for ending, name in names if name in arrays}, module)


def _check_shapes(shapes: dict[str, tuple[int, ...]], module: str) -> None:
    d_out, d_in, rank = shapes[LORA_B][:1], shapes[LORA_A][1:], shapes[LORA_A][:1]
    wanted = {LORA_A: rank + d_in, LORA_B: d_out + rank, CORE: rank + rank}
    if FOLD_A in shapes:
        wanted |= {FOLD_A: shapes[FOLD_A][:1] + d_in, FOLD_B: d_out + shapes[FOLD_A][:1]}
    for ending, shape in shapes.items():
        if shape != wanted[ending] or len(shape) != 2:
            raise ModelError(f"the arrays of {module!r} have the shapes {shapes}", remedy=_REMEDY)
