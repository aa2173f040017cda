"""ffa by hand: A stays, B is the mean with s_k / s."""

from __future__ import annotations

import numpy as np
import pytest

from llmchain_fl.aggregation.admission import reason_of
from llmchain_fl.aggregation.ffa import Ffa
from llmchain_fl.aggregation.rule import SiteFactors, product_error, sent_names
from llmchain_fl.core.errors import AdmissionError

A = np.array([[1.0, 2.0, 3.0]], np.float32)
START = {"q.lora_A": A, "q.lora_B": np.zeros((2, 1), np.float32), "head.bias": np.zeros(2, np.float32)}


def site(b, scale=1.0, weight=1.0, **more):
    return SiteFactors(
        {"q.lora_B": np.array(b, np.float32), "head.bias": np.ones(2, np.float32), **more}, scale, weight
    )


def test_two_sites_of_different_alpha_by_hand():
    accumulator = Ffa().start(START, 2.0)
    accumulator.add(site([[4.0], [0.0]], scale=1.0, weight=3.0))
    accumulator.add(site([[0.0], [8.0]], scale=4.0, weight=1.0))
    result = accumulator.finish()
    # B = 3/4 * 1/2 * (4, 0) + 1/4 * 4/2 * (0, 8) = (1.5, 4)
    np.testing.assert_array_equal(result["q.lora_B"], [[1.5], [4.0]])
    # Delta W = 3/4 * 1 * (4, 0) A + 1/4 * 4 * (0, 8) A = (3, 8) A = 2 * B A
    np.testing.assert_array_equal(2.0 * result["q.lora_B"] @ result["q.lora_A"], [[3, 6, 9], [8, 16, 24]])


def test_a_site_sends_b_and_the_head_only():
    assert sent_names(Ffa(), START) == ["q.lora_B", "head.bias"]


def test_the_frozen_factor_comes_back_bit_for_bit():
    accumulator = Ffa().start(START, 1.0)
    accumulator.add(site([[1.0], [1.0]]))
    assert accumulator.finish()["q.lora_A"].tobytes() == A.tobytes()


@pytest.mark.parametrize(
    "other",
    [np.nextafter(A, np.float32(9)), A[:, :2], np.array([[1, 2, np.nan]], np.float32), np.float32(1.0)],
    ids=["one bit", "another shape", "nan", "a scalar"],
)
def test_a_site_that_trained_under_another_a_is_refused_and_not_counted(other):
    accumulator = Ffa().start(START, 1.0)
    with pytest.raises(AdmissionError) as caught:
        accumulator.add(site([[1.0], [1.0]], **{"q.lora_A": other}))
    assert reason_of(caught.value) == "foreign-factor"
    assert not accumulator.finish()["q.lora_B"].any()


def test_a_site_that_sends_the_global_a_along_is_welcome():
    accumulator = Ffa().start(START, 1.0)
    accumulator.add(site([[1.0], [1.0]], **{"q.lora_A": A.copy()}))
    np.testing.assert_array_equal(accumulator.finish()["q.lora_B"], [[1.0], [1.0]])


def test_the_rule_is_linear_so_noise_on_b_passes_through_as_its_mean():
    rng = np.random.default_rng(0)
    bs, noises = rng.standard_normal((2, 5, 2, 1)).astype(np.float32)
    quiet, noisy, noise_only = (Ffa().start(START, 1.0) for _ in range(3))
    for b, noise in zip(bs, noises, strict=True):
        quiet.add(site(b))
        noisy.add(site(b + noise))
        noise_only.add(site(noise))
    got = noisy.finish()["q.lora_B"] - quiet.finish()["q.lora_B"]
    np.testing.assert_allclose(got, noise_only.finish()["q.lora_B"], atol=1e-6)


def test_the_measured_product_error_of_ffa_is_rounding_also_when_sites_send_no_a():
    rng = np.random.default_rng(1)
    sites = [site(rng.standard_normal((2, 1)), scale=scale, weight=scale + 1) for scale in (0.5, 1.0, 4.0)]
    accumulator = Ffa().start(START, 2.0)
    for one in sites:
        accumulator.add(one)
    assert product_error(sites, accumulator.finish(), 2.0) <= 1e-6
