"""How the server sums: rule, server optimizer, robust step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmchain_fl.aggregation import DEFAULT, RULES
from llmchain_fl.config.names import one_of
from llmchain_fl.core.section import Section
from llmchain_fl.robust import ROBUST


class AggregationConfig(Section):
    """The server's rule."""

    rule: Annotated[str, one_of(lambda: list(RULES))] = DEFAULT
    """How the factors of the sites become one adapter; the rules and what each declares stand below."""
    personal_head: bool = False
    """Every site keeps a trained head of its own; only the LoRA factors are shared."""
    max_update_norm: Annotated[float, Field(ge=0)] = 0.0
    """Refuse an update with a larger L2 norm. 0: what an honest site of a private run can reach, else a million."""
    optimizer: Literal["none", "momentum", "adagrad", "adam", "yogi"] = "none"
    """What the server makes of a round's step: itself, or a step of a server optimizer (FedOpt) along it."""
    optimizer_lr: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Server learning rate; adaptive optimizers need about the size of one round's change, such as 0.01."""
    optimizer_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the server's first moment (momentum)."""
    optimizer_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the server's second moment (`adam`, `yogi`)."""
    optimizer_tau: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Entries that move less than this are not blown up to a full step (`adagrad`, `adam`, `yogi`)."""
    robust: Annotated[str, one_of(lambda: ["none", *ROBUST])] = "none"
    """Screens the replies of a round before they are summed, by what they change of the product; needs all of them in
    memory, and sites whose updates the server may see."""
    hostile: Annotated[int, Field(ge=0, le=100_000)] = 1
    """`robust`: how many sites of one round may be hostile."""
    norm_bound: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """`norm-bound`: longest change of the product that one site may make; 0: `norm_factor` times the round's median."""
    norm_factor: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """`norm-bound` without a fixed bound: the bound is this times the median length of the round."""
    weights: list[Annotated[float, Field(gt=0)]] = []
    """Public weight of each site in the order of their names; empty is uniform. Never reported by a site."""
