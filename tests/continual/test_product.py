"""Against dense float64 matrices, and noise by drawing it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.continual.product_energy import difference, energy, mean_one, noise_energy
from llmchain_fl.core.adapter.product import modules, product_pair, with_start
from llmchain_fl.core.adapter.value import fresh_arrays
from llmchain_fl.core.errors import ModelError

SEEDS = st.integers(0, 2**32 - 1)
BOTH, ONLY_B, ONLY_A = frozenset({"lora_A", "lora_B"}), frozenset({"lora_B"}), frozenset({"lora_A"})


def make(seed: int, *, core: bool = False, fold: int = 0, rank: int = 2) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    shapes = {"lora_A": (rank, 5), "lora_B": (4, rank)}
    shapes |= {"lora_R": (rank, rank)} if core else {}
    shapes |= {"fold_A": (fold, 5), "fold_B": (4, fold)} if fold else {}
    return {f"x.y.{name}": draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@given(SEEDS, st.booleans(), st.integers(0, 3), st.floats(0.1, 4))
def test_the_pair_is_delta_w_with_core_and_fold(dense: Any, seed: int, core: bool, fold: int, scale: float) -> None:
    arrays = make(seed, core=core, fold=fold)
    left, right = product_pair(arrays, "x.y", scale)
    assert left.shape[1] == right.shape[0] == 2 + fold
    assert np.allclose(left @ right, dense(arrays, "x.y", scale))
    assert modules(arrays) == ["x.y"]


def test_half_a_pair_is_refused() -> None:
    arrays = make(1)
    del arrays["x.y.lora_A"]
    with pytest.raises(ModelError, match="pair"):
        product_pair(arrays, "x.y", 1.0)


def test_an_a_that_did_not_travel_is_the_start_at_the_rank_of_its_b() -> None:
    arrays = make(1, rank=3)
    del arrays["x.y.lora_A"]
    whole = with_start(arrays, {"x.y.lora_A": (8, 5), "x.y.lora_B": (4, 8)}, 9)
    assert np.array_equal(whole["x.y.lora_A"], fresh_arrays({"x.y.lora_A": (3, 5)}, 9)["x.y.lora_A"])
    kept = make(2)
    assert with_start(kept, {"x.y.lora_A": (2, 5)}, 9) == kept


@given(SEEDS, SEEDS)
def test_energy_is_the_sum_of_squares_of_rows_and_columns(dense: Any, one: int, two: int) -> None:
    after, before = make(one, fold=1), make(two)
    apart = dense(after, "x.y") - dense(before, "x.y")
    rows, cols = energy(difference(product_pair(after, "x.y", 2.0), product_pair(before, "x.y", 2.0)))
    assert np.allclose(rows, (apart**2).sum(axis=1))
    assert np.allclose(cols, (apart**2).sum(axis=0))


def test_energy_of_a_difference_that_is_zero_is_not_negative() -> None:
    pair = product_pair(make(3), "x.y", 2.0)
    rows, cols = energy(difference(pair, pair))
    assert rows.min() >= 0
    assert cols.min() >= 0
    assert max(rows.max(), cols.max()) < 1e-10


@pytest.mark.parametrize("noised", [BOTH, ONLY_B, ONLY_A, frozenset({"lora_R"})], ids=["A and B", "B", "A", "core"])
def test_known_noise_is_taken_off_without_bias(noised: frozenset[str]) -> None:
    """4,000 draws of the noise; what is left is the energy without noise, within five standard errors."""
    core, std, draws = "lora_R" in noised, 1.0, np.random.default_rng(4)
    before, clean = make(5, core=core), make(6, core=core)
    old = product_pair(before, "x.y", 2.0)
    found = []
    for _ in range(4_000):
        noisy = {n: v + std * draws.normal(size=v.shape) * (n[4:] in noised) for n, v in clean.items()}
        rows, cols = energy(difference(product_pair(noisy, "x.y", 2.0), old))
        less = noise_energy(noisy, "x.y", 2.0, std, noised)
        found.append(np.concatenate([rows - less[0], cols - less[1]]))
    exact = np.concatenate(energy(difference(product_pair(clean, "x.y", 2.0), old)))
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - exact) < 5 * error).all()
    assert (error < 0.2 * exact.mean()).all()


def test_no_noise_and_no_noised_factor_have_no_energy() -> None:
    arrays = make(1, fold=2)
    for std, noised in ((0.0, BOTH), (1.0, frozenset()), (1.0, frozenset({"fold_A", "fold_B"}))):
        assert not np.concatenate(noise_energy(arrays, "x.y", 2.0, std, noised)).any()


def test_values_are_scaled_to_mean_one_and_nothing_known_is_no_difference() -> None:
    assert mean_one(np.array([1.0, 3.0])).tolist() == [0.5, 1.5]
    assert mean_one(np.zeros(3)).tolist() == [1.0, 1.0, 1.0]
    assert mean_one(np.array([np.inf, 1.0])).tolist() == [1.0, 1.0]
