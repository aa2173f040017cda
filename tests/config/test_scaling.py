"""rsLoRA: one number, folded into the alpha that everybody reads."""

from __future__ import annotations

import math

import pytest

from llmchain_fl.config.schema import AdapterConfig
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.adapter.variants import LORA, VARIANTS
from server.handing import shapes


@pytest.mark.parametrize("rank", [1, 4, 16, 64])
def test_the_scale_is_alpha_over_the_root_of_the_rank(rank: int) -> None:
    told = AdapterConfig(rank=rank, alpha=16.0, scaling="rslora")
    assert told.folded(16.0, rank) / rank == pytest.approx(16.0 / math.sqrt(rank))
    assert AdapterConfig(rank=rank).folded(16.0, rank) == 16.0


def test_sites_have_it_at_their_own_rank() -> None:
    told = AdapterConfig(rank=16, alpha=8.0, scaling="rslora", site_ranks=[16, 4], site_alphas=[8.0, 6.0])
    assert [one.scale for one in shapes(["a", "b"], told).values()] == pytest.approx([8 / 4, 6 / 2])


def test_sites_without_an_alpha_of_their_own_have_the_scale_of_the_adapter() -> None:
    told = AdapterConfig(rank=16, alpha=8.0, scaling="rslora", site_ranks=[16, 4])
    assert [one.scale for one in shapes(["a", "b"], told).values()] == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_work_that_trains_what_its_variant_has_not_is_faulty(variant: str) -> None:
    own = VARIANTS[variant].trained
    assert AdapterSpec(4, 8.0, trained=own, variant=variant).faults() == []
    foreign = ("ia3_l",) if variant == LORA else ("lora_B",)
    assert AdapterSpec(4, 8.0, trained=foreign, variant=variant).faults() == [f"trained: some of {', '.join(own)}"]


def test_an_unknown_variant_is_a_fault() -> None:
    assert [fault for fault in AdapterSpec(4, 8.0, variant="adalora").faults() if "variant" in fault]
