"""Texts that a language model writes by itself, from the start token on: what it remembers of what it has read.

=====================  ===================================================
case                   result
=====================  ===================================================
the same seed          the same texts, on the same machine
a blank text           left out, so there may be fewer than ``count``
count = 0              none
the caller's draws     as if nothing had been drawn
=====================  ===================================================
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from llmchain_fl.core.tasks.base import Task
from llmchain_fl.core.tasks.causal_lm import CausalLM

AT_ONCE = 64
NUCLEUS = 0.95
"""Share of the probability that is drawn from at each token (Holtzman et al. 2020, arXiv 1904.09751)."""


def imagine(task: Task, count: int, seed: Sequence[int]) -> list[str]:
    """Up to ``count`` texts of at most the task's length, drawn at temperature 1 from the adapter that is loaded.

    Raises:
        TypeError: the task is not one of a causal language model (a fault of the configuration, told before).
    """
    if not isinstance(task, CausalLM):
        raise TypeError("only a causal language model writes texts")
    texts: list[str] = []
    with torch.random.fork_rng(devices=_devices(task)), torch.no_grad():
        torch.manual_seed(int(np.random.SeedSequence(list(map(int, seed))).generate_state(1)[0]))
        for start in range(0, count, AT_ONCE):
            texts += task.sampled(min(AT_ONCE, count - start), NUCLEUS)
    return [text.strip() for text in texts if text.strip()]


def _devices(task: CausalLM) -> list[torch.device]:
    device = task.resident.base.device
    return [device] if device.type == "cuda" else []
