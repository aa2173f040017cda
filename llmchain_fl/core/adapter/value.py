"""An adapter as a value: named float32 arrays, and the few facts that give them meaning.

Names: ``<module path>.lora_A`` (rank x d_in), ``<module path>.lora_B`` (d_out x rank), ``head.weight``, ``head.bias``;
those of other variants stand in ``variants/__init__.py``. Beside them may come a frozen second pair (``.fold_A``,
``.fold_B``: ``fold.py``) and a choice among slots (``slots.*``, ``route.*``: ``routing.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from llmchain_fl.core.adapter.variants import LORA, VARIANTS
from llmchain_fl.core.ranges import Bound, Range, range_faults

FOLD_A, FOLD_B = "fold_A", "fold_B"
KEYS, CENTRE, TAU = "route.keys", "route.centre", "route.tau"
Array = npt.NDArray[np.float32]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class AdapterSpec:
    """Shape and start of an adapter.

    Attributes:
        rank: r of every adapted matrix.
        alpha: Delta W = alpha / rank * B A.
        targets: ``("all-linear",)`` or names of linear layers inside the transformer layers.
        last_layers: adapt only the last n layers; 0 adapts all.
        trained: endings of the array names a site trains, such as ``("lora_B",)``; none: the head alone, which is
            trained wherever there is one.
        seed: of the start (A uniform, B zero), a public constant: a site can draw A itself.
        variant: what of the base is trained (``variants/__init__.py``).
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] = ("all-linear",)
    last_layers: int = 0
    trained: tuple[str, ...] = ("lora_A", "lora_B")
    seed: int = 1
    variant: str = LORA

    @property
    def scale(self) -> float:
        """s = alpha / rank."""
        return self.alpha / self.rank

    def faults(self) -> list[str]:
        """Fields outside their bounds, one line each."""
        faults = range_faults(self, _BOUNDS)
        if not 1 <= len(self.targets) <= MOST_TARGETS or not all(
            0 < len(name) <= 200 and name.isprintable() for name in self.targets
        ):
            faults.append(f"targets: 1 to {MOST_TARGETS} printable names of 1 to 200 characters")
        known = VARIANTS[self.variant].trained if self.variant in VARIANTS else ()
        if known and not set(self.trained) <= set(known):
            faults.append(f"trained: some of {', '.join(known)}")
        return faults


_BOUNDS: Mapping[str, Bound] = MappingProxyType(
    {
        "rank": Range(1, 1024),
        "alpha": Range(0, 1024 * 4096, above=True),
        "last_layers": Range(0, 1024),
        "seed": Range(0, 2**63),
        "variant": tuple(VARIANTS),
    }
)
ENDINGS = tuple(ending for variant in VARIANTS.values() for ending in variant.trained)
"""Endings of the arrays that a site may train (and heads)."""
MOST_TARGETS = 100


def is_fold(name: str) -> bool:
    """Whether an array belongs to the fold."""
    return name.endswith((f".{FOLD_A}", f".{FOLD_B}"))


def is_beside(name: str) -> bool:
    """Whether an array stands beside the adapter (which slot is whose, how to choose) and is no factor or head."""
    return name.startswith(("slots.", "route."))


def is_trained(name: str, trained: Sequence[str]) -> bool:
    """Whether a site trains and sends the array ``name``."""
    return name.startswith("head.") or name.endswith(tuple(trained))


def fresh_arrays(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Arrays:
    """The start of an adapter, the same on every machine for the same names, shapes and seed.

    ``lora_A`` ~ U(-1/sqrt(d_in), 1/sqrt(d_in)) (the start of peft, Kaiming uniform with a = sqrt 5); all else zero,
    so that Delta W = 0. Each array has its own generator, keyed by its name: order does not matter.
    """
    arrays: Arrays = {}
    for name, shape in shapes.items():
        if name.endswith("lora_A"):
            key = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            draw = np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little")))
            bound = 1.0 / np.sqrt(shape[1])
            arrays[name] = draw.uniform(-bound, bound, size=shape).astype(np.float32)
        else:
            arrays[name] = np.zeros(shape, dtype=np.float32)
    return arrays
