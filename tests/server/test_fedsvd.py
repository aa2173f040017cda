"""fedsvd against numpy's dense SVD."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation.admission import reason_of
from llmchain_fl.aggregation.fedsvd import FedSvd
from llmchain_fl.aggregation.ffa import Ffa
from llmchain_fl.aggregation.rule import FactorSchedule, SiteFactors, sent_names
from llmchain_fl.core.errors import AdmissionError, ModelError

SEEDS = st.integers(0, 2**32 - 1)


def start(rng, rank=3, d_out=8, d_in=6):
    a, b = rng.standard_normal((rank, d_in)), rng.standard_normal((d_out, rank))
    return {"q.lora_A": a.astype(np.float32), "q.lora_B": b.astype(np.float32)}


def play(rule, arrays, bs, scale=2.0):
    accumulator = rule.start(arrays, scale)
    for index, b in enumerate(bs):
        accumulator.add(SiteFactors({"q.lora_B": b.astype(np.float32)}, 1.0 + index, 2.0 + index))
    return accumulator.finish()


@given(seed=SEEDS, count=st.integers(1, 4))
def test_the_mean_is_that_of_ffa_and_the_factors_are_its_singular_vectors(seed, count):
    rng = np.random.default_rng(seed)
    arrays = start(rng)
    bs = rng.standard_normal((count, 8, 3))
    result, plain = play(FedSvd(), arrays, bs), play(Ffa(), arrays, bs)
    a, b = (result[f"q.{name}"].astype(np.float64) for name in ("lora_A", "lora_B"))
    want = plain["q.lora_B"].astype(np.float64) @ plain["q.lora_A"]
    np.testing.assert_allclose(b @ a, want, atol=1e-6 * np.linalg.norm(want))
    np.testing.assert_allclose(a @ a.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(b, axis=0), np.linalg.svd(want)[1][:3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(b.T @ b, np.diag(np.diag(b.T @ b)), atol=1e-5 * np.linalg.norm(b) ** 2)


@pytest.mark.parametrize("rank_of_b", [0, 1, 2])
def test_a_mean_of_lower_rank_leaves_a_an_orthonormal_basis_of_its_old_rows(rank_of_b):
    rng = np.random.default_rng(rank_of_b)
    arrays = start(rng)
    b = rng.standard_normal((8, rank_of_b)) @ rng.standard_normal((rank_of_b, 3))
    a = play(FedSvd(), arrays, [b])["q.lora_A"].astype(np.float64)
    np.testing.assert_allclose(a @ a.T, np.eye(3), atol=1e-6)
    old = arrays["q.lora_A"].astype(np.float64)
    np.testing.assert_allclose(old @ a.T @ a, old, atol=1e-5)  # the rows of the old A lie in the span of the new


def test_without_a_site_nothing_is_turned():
    arrays = start(np.random.default_rng(0))
    result = FedSvd().start(arrays, 1.0).finish()
    assert all(np.array_equal(result[name], arrays[name]) for name in arrays)


def test_b_goes_up_and_both_come_down():
    assert FedSvd().schedule(1) == FactorSchedule(("lora_B",), ("lora_B",), ("lora_A", "lora_B"))
    assert FedSvd().schedule(1).keeps == ()
    assert sent_names(FedSvd(), start(np.random.default_rng(0))) == ["q.lora_B"]


def test_noise_on_the_mean_is_in_both_new_factors_not_on_top_of_them():
    rng = np.random.default_rng(1)
    arrays = start(rng)
    b, noise = rng.standard_normal((2, 8, 3)).astype(np.float32)
    accumulator = FedSvd().start(arrays, 2.0)
    accumulator.add(SiteFactors({"q.lora_B": b}, 2.0, 1.0))
    result = accumulator.finish(lambda name, mean: mean + noise)
    np.testing.assert_allclose(
        result["q.lora_B"] @ result["q.lora_A"], (b + noise) @ arrays["q.lora_A"], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(result["q.lora_A"] @ result["q.lora_A"].T, np.eye(3), atol=1e-5)


def test_a_site_under_another_a_is_refused():
    arrays = start(np.random.default_rng(2))
    other = {**arrays, "q.lora_A": np.nextafter(arrays["q.lora_A"], np.float32(9))}
    with pytest.raises(AdmissionError) as caught:
        FedSvd().start(arrays, 1.0).add(SiteFactors(other, 1.0, 1.0))
    assert reason_of(caught.value) == "foreign-factor"


def test_a_rank_above_the_smaller_dimension_is_refused_at_the_start():
    with pytest.raises(ModelError, match="'q' is 8 x 6; rank 7 leaves no 7 orthonormal"):
        FedSvd().check(start(np.random.default_rng(3), rank=7), {})
