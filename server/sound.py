"""Which arrays a run may go on with: finite, and so small that nothing made of them leaves float32.

Each array, and for each adapted matrix the product of its factors, is at most ``LARGEST`` long:

    ||X||_F <= LARGEST       s ||B||_F ||R||_F ||A||_F + ||fold_B||_F ||fold_A||_F <= LARGEST     (R: 1 without a core)

The left side bounds ||Delta W||_F, and so every entry of it and every partial sum on the way. With LARGEST = 1e12 an
activation of a million gives at most 1e18, and the square of that (an attention score, a layer norm) fits float32.
A trained adapter is smaller by nine powers of ten.

==========================================  =========================================
arrays                                      result
==========================================  =========================================
none, or all zeros                          sound
NaN or infinity in any                      not
A = 1e30, B = 1e-30                         not: a gradient of B is as large as A
A = B = 1e10, each finite and sound         not: the product
a fold beside a small pair                  the fold counts
norms whose squares leave float64           not (a float32 array has none)
==========================================  =========================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.admission import update_norm
from llmchain_fl.aggregation.factors import CORE, FOLD_A, FOLD_B, LORA_A, LORA_B, modules

LARGEST = 1e12


def unsound(arrays: Mapping[str, NDArray[np.floating]], scale: float) -> str:
    """What is wrong with an adapter of scale s, in words and without a name that a site chose; "" if nothing is."""
    norms = {name: update_norm({name: array}) for name, array in arrays.items()}
    for name, norm in norms.items():
        if not norm <= LARGEST:
            return f"{name} is not finite" if not math.isfinite(norm) else f"{name} has norm {norm:.3g}"
    for module in modules(arrays):
        parts = (norms.get(f"{module}.{ending}", 1.0) for ending in (LORA_B, CORE, LORA_A))
        fold = norms.get(f"{module}.{FOLD_B}", 0.0) * norms.get(f"{module}.{FOLD_A}", 0.0)
        product = scale * math.prod(parts) + fold
        if not product <= LARGEST:
            return f"the product of {module} may be as large as {product:.3g}"
    return ""
