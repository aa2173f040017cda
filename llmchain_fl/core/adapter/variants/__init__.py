"""What of a base is trained: each variant declares it here, without torch; its half in the model is loaded by name.

W(p): the weight that a layer effectively has, p: what is trained. A mean of adapters is the mean of their models
exactly where W is affine in p (``linear``; docs/variants.md has the measured table):

===============  ==========================================  =========================  =======
variant          W x                                         trained                    linear
===============  ==========================================  =========================  =======
lora             W0 x + s B A x                              a rule says which factors  if one
ia3              l * (W0 x + b)                              l  [d_out, 1]              yes
dora-magnitude   (m / ||W0||) * W0 x + b                     m  [d_out]                 yes
bias             W0 x + b + c                                c  [1, d_out]              yes
layer-norm       g * x^ + h, x^ normalised, for W0 x         g, h  [d]                  yes
miss             W0 x + M^T (x_1 + x_2 + ..)                 M  [r, d_out]              yes
===============  ==========================================  =========================  =======

x_i: the i-th r entries of x, the last ones filled up with zeros. Arrays start as the base is: l = 1, m = ||W0||, g and
h of the base, c = M = 0. Sources (arXiv): LoRA 2106.09685, IA3 2205.05638, DoRA 2402.09353, bias 2106.10199, layer norm
2312.11420, MiSS 2409.15371.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

LORA = "lora"


@dataclass(frozen=True)
class Variant:
    """One variant.

    Attributes:
        title: for people, in a sentence.
        trained: endings of the arrays that a site may train.
        linear: W is affine in all of ``trained`` together.
        product: it is a pair of factors of one Delta W = s B A, which rules, guards and robust steps know how to move;
            else arrays that are averaged as they are.
        half: ``module:attribute`` of its half in the model; empty for the pair of factors (``peft_model.py``).
    """

    title: str
    trained: tuple[str, ...]
    linear: bool
    product: bool = False
    half: str = ""


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        LORA: Variant("LoRA", ("lora_A", "lora_B", "lora_R"), linear=False, product=True),
        "ia3": Variant("IA3", ("ia3_l",), True, half="llmchain_fl.core.adapter.variants.ia3:IA3"),
        "layer-norm": Variant(
            "layer norm", ("ln_weight", "ln_bias"), True, half="llmchain_fl.core.adapter.variants.norms:NORMS"
        ),
        "bias": Variant("bias", ("beft_bias",), True, half="llmchain_fl.core.adapter.variants.bias:BIAS"),
        "miss": Variant("MiSS", ("miss_block",), True, half="llmchain_fl.core.adapter.variants.miss:MISS"),
        "dora-magnitude": Variant(
            "magnitude", ("lora_magnitude_vector",), True, half="llmchain_fl.core.adapter.variants.magnitude:MAGNITUDE"
        ),
    }
)
"""Name in the configuration -> variant."""
