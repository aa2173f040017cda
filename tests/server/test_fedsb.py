"""fedsb: orthonormal frozen factors from a public matrix, and a core that is averaged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation.admission import reason_of
from llmchain_fl.aggregation.fedsb import FedSb
from llmchain_fl.aggregation.rule import SiteFactors, SiteShape, sent_names, serving
from llmchain_fl.core.errors import AdmissionError, ModelError

SEEDS = st.integers(0, 2**32 - 1)
D_OUT, D_IN, RANK = 12, 10, 3


def fresh(rng, rank=RANK):
    a = rng.uniform(-0.3, 0.3, (rank, D_IN)).astype(np.float32)
    return {"q.lora_A": a, "q.lora_B": np.zeros((D_OUT, rank), np.float32)}


def begun(rng):
    weight = rng.standard_normal((D_OUT, D_IN))
    return FedSb().begin(fresh(rng), 2.0, lambda module: weight)


def play(start, sites, scale=2.0):
    accumulator = FedSb().start(start, scale)
    for site in sites:
        accumulator.add(site)
    return accumulator.finish()


@given(seed=SEEDS)
def test_the_frozen_factors_are_the_leading_singular_directions_of_the_public_matrix(seed):
    rng = np.random.default_rng(seed)
    u, v = np.linalg.qr(rng.standard_normal((D_OUT, D_IN))).Q, np.linalg.qr(rng.standard_normal((D_IN, D_IN))).Q
    weight = (u * 0.5 ** np.arange(D_IN)) @ v.T
    start = FedSb().begin(fresh(rng), 2.0, lambda module: weight)
    b, a = start["q.lora_B"].astype(np.float64), start["q.lora_A"].astype(np.float64)
    np.testing.assert_allclose(b.T @ b, np.eye(RANK), atol=1e-6)
    np.testing.assert_allclose(a @ a.T, np.eye(RANK), atol=1e-6)
    assert np.linalg.norm(b.T @ weight @ a.T) >= 0.999 * np.linalg.norm(0.5 ** np.arange(RANK))
    assert not start["q.lora_R"].any()
    assert start["q.lora_R"].shape == (RANK, RANK)


@pytest.mark.parametrize("weight", [np.zeros((D_OUT, D_IN)), np.eye(D_OUT, D_IN), np.ones((D_OUT, D_IN))])
def test_a_matrix_without_as_many_directions_gives_orthonormal_factors_all_the_same(weight):
    start = FedSb().begin(fresh(np.random.default_rng(0)), 2.0, lambda module: weight)
    np.testing.assert_allclose(start["q.lora_B"].T @ start["q.lora_B"], np.eye(RANK), atol=1e-5)
    np.testing.assert_allclose(start["q.lora_A"] @ start["q.lora_A"].T, np.eye(RANK), atol=1e-5)


def test_the_start_is_the_same_each_time_and_module_names_reach_the_matrix():
    rng = np.random.default_rng(1)
    arrays, asked = fresh(rng), []
    weight = rng.standard_normal((D_OUT, D_IN))

    def weight_of(module):
        asked.append(module)
        return weight

    first, second = (FedSb().begin(arrays, 2.0, weight_of) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert asked == ["q", "q"]
    assert not arrays["q.lora_B"].any()


def test_a_start_with_a_core_is_taken_as_it_is_and_needs_no_matrix():
    start = begun(np.random.default_rng(2))
    again = FedSb().begin(start, 2.0)
    assert all(np.array_equal(again[name], start[name]) for name in start)


def test_a_missing_or_wrong_public_matrix_and_a_round_without_a_core_are_refused():
    arrays = fresh(np.random.default_rng(3))
    with pytest.raises(ModelError, match="needs a public matrix"):
        FedSb().begin(arrays, 2.0)
    with pytest.raises(ModelError, match="Conv1D"):
        FedSb().begin(arrays, 2.0, lambda module: np.ones((D_IN, D_OUT)))
    with pytest.raises(ModelError, match="finite"):
        FedSb().begin(arrays, 2.0, lambda module: np.full((D_OUT, D_IN), np.nan))
    with pytest.raises(ModelError, match="no core"):
        FedSb().start(arrays, 2.0)
    with pytest.raises(ModelError, match="orthonormal"):
        FedSb().check(fresh(np.random.default_rng(3), 11), {})


def test_only_the_core_travels_up_and_two_sites_of_different_alpha_are_averaged_by_hand():
    start = begun(np.random.default_rng(4))
    assert sent_names(FedSb(), start) == ["q.lora_R"]
    first = SiteFactors({"q.lora_R": np.full((RANK, RANK), 4.0, np.float32)}, 1.0, 3.0)
    second = SiteFactors({"q.lora_R": np.eye(RANK, dtype=np.float32)}, 4.0, 1.0)
    result = play(start, [first, second])
    np.testing.assert_array_equal(result["q.lora_R"], 0.75 * 0.5 * 4.0 + 0.25 * 2.0 * np.eye(RANK))
    handed = FedSb().handed(result, 2.0, SiteShape(RANK, 4.0 * RANK))
    np.testing.assert_array_equal(handed["q.lora_R"], result["q.lora_R"] / 2)
    np.testing.assert_array_equal(handed["q.lora_B"], result["q.lora_B"])


def test_the_gradient_of_the_core_is_the_projected_gradient_of_b_so_a_plain_layer_can_train_it():
    rng = np.random.default_rng(5)
    start = begun(rng)
    b, a = start["q.lora_B"].astype(np.float64), start["q.lora_A"].astype(np.float64)
    outer = rng.standard_normal((D_OUT, D_IN))  # dL / dW
    by_core = 2.0 * b.T @ outer @ a.T
    by_b = b.T @ (2.0 * outer @ a.T)
    np.testing.assert_allclose(by_core, by_b, rtol=1e-12)
    step = rng.standard_normal((RANK, RANK))
    np.testing.assert_allclose(b.T @ (b @ step), step, atol=1e-6)  # what a site sends, read off B' = B R


def test_the_serving_pair_has_the_core_inside_b():
    start = begun(np.random.default_rng(6)) | {"q.lora_R": np.diag([1.0, 2.0, 3.0]).astype(np.float32)}
    plain = serving(start, 2.0)
    assert set(plain) == {"q.lora_A", "q.lora_B"}
    np.testing.assert_allclose(plain["q.lora_B"], start["q.lora_B"] * [1.0, 2.0, 3.0], rtol=1e-6)


@pytest.mark.parametrize("name", ["q.lora_A", "q.lora_B"])
def test_a_site_with_another_frozen_factor_is_refused(name):
    start = begun(np.random.default_rng(7))
    with pytest.raises(AdmissionError) as caught:
        play(start, [SiteFactors({**start, name: np.nextafter(start[name], np.float32(9))}, 8.0, 1.0)])
    assert reason_of(caught.value) == "foreign-factor"
