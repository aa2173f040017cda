"""fedit by hand, and its error against the covariance of the factors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation.admission import reason_of
from llmchain_fl.aggregation.fedit import FedIt
from llmchain_fl.aggregation.rule import SiteFactors, product_error
from llmchain_fl.core.errors import AdmissionError

SEEDS = st.integers(0, 2**32 - 1)


def factors(b, a):
    return {"q.lora_A": np.asarray(a, np.float32), "q.lora_B": np.asarray(b, np.float32)}


def run(start, scale, sites):
    accumulator = FedIt().start(start, scale)
    for site in sites:
        accumulator.add(site)
    return accumulator.finish()


def test_two_sites_that_swap_signs_cancel_each_other_although_their_products_agree():
    # B_1 A_1 = B_2 A_2 = [[1]], but both means are 0: the worst case, error 1.
    sites = [SiteFactors(factors([[1.0]], [[1.0]]), 1.0, 1.0), SiteFactors(factors([[-1.0]], [[-1.0]]), 1.0, 1.0)]
    result = run(factors([[0.0]], [[1.0]]), 1.0, sites)
    assert result["q.lora_A"] == result["q.lora_B"] == 0.0
    assert product_error(sites, result, 1.0) == pytest.approx(1.0)


def test_two_sites_by_hand_with_unequal_weights_and_alpha():
    sites = [SiteFactors(factors([[2.0]], [[1.0]]), 1.0, 1.0), SiteFactors(factors([[1.0]], [[5.0]]), 2.0, 3.0)]
    result = run(factors([[0.0]], [[1.0]]), 2.0, sites)
    assert result["q.lora_A"] == 4.0  # (1 + 3 * 5) / 4
    assert result["q.lora_B"] == 1.0  # (2 * 1/2 + 3 * 1 * 2/2) / 4
    # ideal: (1 * 1 * 2 * 1 + 3 * 2 * 1 * 5) / 4 = 8; got: 2 * 1 * 4 = 8: no covariance, since both scaled B are 1
    assert product_error(sites, result, 2.0) == pytest.approx(0.0, abs=1e-12)


@given(seed=SEEDS, count=st.integers(1, 5))
def test_the_product_error_is_the_covariance_of_the_factors(seed, count):
    rng = np.random.default_rng(seed)
    scale = 2.0
    scales, weights = rng.uniform(0.5, 4.0, count), rng.uniform(0.1, 5.0, count)
    bs, as_ = rng.standard_normal((count, 8, 2)), rng.standard_normal((count, 2, 6))
    sites = [SiteFactors(factors(*row[:2]), *row[2:]) for row in zip(bs, as_, scales, weights, strict=True)]
    measured = product_error(sites, run(factors(bs[0], as_[0]), scale, sites), scale)

    shares = weights / weights.sum()
    scaled = [s / scale * b for s, b in zip(scales, bs, strict=True)]
    b_mean = sum(w * b for w, b in zip(shares, scaled, strict=True))
    a_mean = sum(w * a for w, a in zip(shares, as_, strict=True))
    covariance = sum(w * (b - b_mean) @ (a - a_mean) for w, b, a in zip(shares, scaled, as_, strict=True))
    ideal = sum(w * s * b @ a for w, s, b, a in zip(shares, scales, bs, as_, strict=True))
    want = scale * np.linalg.norm(covariance) / np.linalg.norm(ideal)
    assert measured == pytest.approx(want, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("common", ["a", "b"])
@given(seed=SEEDS)
def test_one_common_factor_makes_fedit_exact(common, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 6)), rng.standard_normal((8, 2))
    sites = [
        SiteFactors(
            factors(
                b if common == "b" else rng.standard_normal((8, 2)), a if common == "a" else rng.normal(size=(2, 6))
            ),
            2.0,
            weight,
        )
        for weight in (1.0, 2.0, 4.0)
    ]
    assert product_error(sites, run(factors(b, a), 2.0, sites), 2.0) <= 1e-6


def test_the_error_grows_with_the_drift_of_the_sites():
    rng = np.random.default_rng(0)
    b, a = rng.standard_normal((64, 4)), rng.standard_normal((4, 64))
    errors = []
    for drift in (0.05, 0.2, 1.0):
        sites = [
            SiteFactors(
                factors(b + drift * rng.standard_normal(b.shape), a + drift * rng.standard_normal(a.shape)), 1.0, 1.0
            )
            for _ in range(3)
        ]
        errors.append(product_error(sites, run(factors(b, a), 1.0, sites), 1.0))
    assert errors == sorted(errors)
    assert errors[0] < 0.01 < 0.1 < errors[-1]


def test_a_site_of_another_rank_is_refused():
    start = factors(np.zeros((8, 2)), np.ones((2, 6)))
    with pytest.raises(AdmissionError) as caught:
        run(start, 1.0, [SiteFactors(factors(np.ones((8, 4)), np.ones((4, 6))), 1.0, 1.0)])
    assert reason_of(caught.value) == "wrong-shape"


def test_a_site_that_sends_only_b_is_refused():
    start = factors(np.zeros((8, 2)), np.ones((2, 6)))
    with pytest.raises(AdmissionError, match=r"^missing-name: a site brings no 'q\.lora_A'"):
        run(start, 1.0, [SiteFactors({"q.lora_B": start["q.lora_B"]}, 1.0, 1.0)])
