"""What becomes of each architecture when a site opens it: adapted exactly, or refused in one error that says why."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REFUSED = {
    ("bert", "causal-lm"): "sees the words that follow",
    ("xlnet", "causal-lm"): "sees the words that follow",
    ("funnel", "encoder"): "cannot compute 1 token ids alone",
    ("canine", "encoder"): "cannot compute 1 token ids alone",
    ("xmod", "encoder"): "Input language unknown",
    ("ibert", "encoder"): "changes with every pass",
    ("squeezebert", "encoder"): "has no linear layers to adapt (its layers are made of Conv1d",
    ("mamba", "causal-lm"): "peft cannot adapt MambaForCausalLM",
    ("falcon_mamba", "causal-lm"): "peft cannot adapt FalconMambaForCausalLM",
    ("mamba2", "causal-lm"): "peft cannot adapt Mamba2ForCausalLM",
    **{(name, "encoder"): "is an encoder with a decoder" for name in ("t5", "mt5", "umt5", "bart")},
}
"""Why a base cannot be adapted."""
ONE_RECORD = {"deberta", "deberta-v2"}
"""Layers whose rows serve all records (relative positions): one record a pass."""
COMPUTED = {
    *("convbert", "fnet", "nystromformer", "mobilebert"),  # let padding into a text's numbers
    *("longformer", "xlnet", "xlm", "flaubert"),  # ask for more than hidden states, or hold them in another order
    "albert",  # its layers are one
}
"""Frozen layers that cannot be replayed."""


@pytest.mark.part(16)
def test_a_base_is_adapted_exactly_or_refused_with_a_reason(
    architecture: str, kind: str, written: Callable[[str, str], Path]
) -> None:
    bench: Any = sys.modules["bench_bases"]
    told = bench.verdict(written(architecture, kind), kind)
    reason = REFUSED.get((architecture, kind))
    if reason is not None:
        assert reason in told.refused
        assert "\n  -> " in told.refused
        return
    assert not told.refused
    by_place = (
        told.rows == 1 and "moe" in architecture
    )  # few tokens an expert, which some machines round by their place
    assert by_place or told.rows == (1 if architecture in ONE_RECORD else 3)
    assert told.far < 1e-4
    assert told.kept == (architecture not in COMPUTED)
    assert told.kept_far < 1e-4


def test_at_least_forty_architectures_are_adapted() -> None:
    rows = {(name, kind) for name, (kinds, _) in sys.modules["bench_bases"].BASES.items() for kind in kinds}
    assert set(REFUSED) <= rows
    assert len({name for name, _ in rows - set(REFUSED)}) >= 40
