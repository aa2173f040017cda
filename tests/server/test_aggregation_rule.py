"""The values and the measure that all rules share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.admission import reason_of
from llmchain_fl.aggregation.rule import FactorMean, SiteFactors, modules, product_error, product_norm
from llmchain_fl.core.errors import AdmissionError, ModelError

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = {"enc.0.q": (9, 7), "enc.0.v": (5, 11)}


def make_adapter(rng, rank=2, head=True):
    arrays = {"head.bias": rng.standard_normal(3).astype(np.float32)} if head else {}
    for module, (d_out, d_in) in SHAPES.items():
        arrays[f"{module}.lora_A"] = rng.standard_normal((rank, d_in)).astype(np.float32)
        arrays[f"{module}.lora_B"] = rng.standard_normal((d_out, rank)).astype(np.float32)
    return arrays


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), float("-inf")])
def test_a_weight_or_scale_that_is_not_finite_and_above_zero_is_refused(bad):
    for reason, values in (("weight", {"scale": 1.0, "weight": bad}), ("scale", {"scale": bad, "weight": 1.0})):
        with pytest.raises(AdmissionError) as caught:
            SiteFactors({}, **values)
        assert reason_of(caught.value) == reason


def test_weights_whose_sum_overflows_are_refused_and_the_site_not_counted():
    start = make_adapter(np.random.default_rng(5))
    mean = FactorMean(start, 1.0, list(start))
    mean.add(SiteFactors(start, 1.0, 1.7e308))
    with pytest.raises(AdmissionError, match=r"^weight: the sum"):
        mean.add(SiteFactors({n: a + 1 for n, a in start.items()}, 1.0, 1.7e308))
    assert all(np.array_equal(array, start[name]) for name, array in mean.finish().items())


@pytest.mark.parametrize(
    ("change", "scale"),
    [
        ({}, 0.0),
        ({}, float("nan")),
        ({"classifier.weight": np.zeros((2, 2))}, 1.0),
        ({"enc.1.q.lora_A": np.zeros((2, 2))}, 1.0),
        ({"enc.1.q.lora_B": np.zeros((2, 2))}, 1.0),
        ({"enc.0.q.lora_A": np.zeros((3, 7))}, 1.0),
        ({"enc.0.q.lora_A": np.zeros(2)}, 1.0),
    ],
    ids=["scale 0", "scale nan", "foreign name", "A without B", "B without A", "ranks differ", "A not a matrix"],
)
def test_a_round_cannot_be_opened_on_arrays_that_are_no_adapter(change, scale):
    start = make_adapter(np.random.default_rng(6)) | change
    for rule in RULES.values():
        with pytest.raises(ModelError):
            rule.start(start, scale)


@given(seed=SEEDS, rank=st.integers(1, 14))
def test_the_norm_of_a_product_is_the_dense_norm_also_for_ranks_above_the_dimensions(seed, rank):
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((6, rank)), rng.standard_normal((rank, 9))
    assert product_norm(left, right) == pytest.approx(np.linalg.norm(left @ right), rel=1e-10)


def test_the_norm_of_a_product_that_cancels_is_seen_far_below_what_the_gram_form_can_see():
    rng = np.random.default_rng(7)
    b, a = rng.standard_normal((40, 4)), rng.standard_normal((4, 30))
    left, right = np.hstack([b, -b]), np.vstack([a, a])
    assert product_norm(left, right) < 1e-12 * np.linalg.norm(b @ a)


def test_the_product_error_takes_sites_of_different_rank():
    rng = np.random.default_rng(8)
    sites = [SiteFactors(make_adapter(rng, rank, head=False), 8 / rank, rank) for rank in (1, 2, 4)]
    result = make_adapter(rng, 3, head=False)
    error = ideal = 0.0
    for m in SHAPES:
        b, a = f"{m}.lora_B", f"{m}.lora_A"
        parts = [s.weight / 7 * s.scale * s.arrays[b].astype(np.float64) @ s.arrays[a] for s in sites]
        ideal += np.sum(sum(parts) ** 2)
        error += np.sum((1.5 * result[b].astype(np.float64) @ result[a] - sum(parts)) ** 2)
    want = np.sqrt(error / ideal)
    assert product_error(sites, result, 1.5) == pytest.approx(want, rel=1e-9)


def test_the_product_error_of_an_ideal_of_zero_is_zero_or_infinite():
    start = make_adapter(np.random.default_rng(9), head=False)
    nothing = {n: np.zeros_like(a) if n.endswith("lora_B") else a for n, a in start.items()}
    site = SiteFactors(nothing, 1.0, 1.0)
    assert product_error([site], nothing, 1.0) == 0.0
    assert product_error([site], start, 1.0) == float("inf")
    assert product_error([site], {"head.bias": np.ones(3)}, 1.0) == 0.0


def test_the_product_error_needs_sites_and_their_b():
    start = make_adapter(np.random.default_rng(10))
    for sites in ([], [SiteFactors({"head.bias": start["head.bias"]}, 1.0, 1.0)]):
        with pytest.raises(AdmissionError):
            product_error(sites, start, 1.0)


def test_modules_are_listed_once_in_the_order_given():
    assert modules(["b.lora_A", "b.lora_B", "a.x.lora_B", "a.x.lora_A", "head.bias"]) == ["b", "a.x"]
