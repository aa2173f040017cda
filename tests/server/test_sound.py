"""Which arrays a run may go on with: each row of the table in ``sound.py``, and the law behind it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation.rule import serving
from server.sound import LARGEST, unsound


def pair(a: float, b: float, **more: float) -> dict[str, np.ndarray]:
    """One module whose arrays are a single number each."""
    named = {"q.lora_A": a, "q.lora_B": b, **{f"q.{name}": value for name, value in more.items()}}
    return {name: np.full((1, 1), value, dtype=np.float32) for name, value in named.items()}


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({}, ""),
        (pair(0, 0), ""),
        (pair(1, 1), ""),
        (pair(np.nan, 1), "q.lora_A is not finite"),
        (pair(1, -np.inf), "q.lora_B is not finite"),
        (pair(1e30, 1e-30), "q.lora_A has norm 1e+30"),
        (pair(1e10, 1e10), "the product of q may be as large as 2e+20"),
        (pair(1, 1, lora_R=1e12), "the product of q may be as large as 2e+12"),
        (pair(1e5, 1e5, lora_R=1e-3), ""),
        (pair(1, 1, fold_A=1e7, fold_B=1e7), "the product of q may be as large as 1e+14"),
        ({"head.weight": np.full(4, 1e13, "f4")}, "head.weight has norm 2e+13"),
        ({"head.weight": np.full(4, 3.4e38, "f4")}, "head.weight has norm 6.8e+38"),
    ],
)
def test_what_is_sound(arrays: dict[str, np.ndarray], fault: str) -> None:
    assert unsound(arrays, 2.0) == fault


SIZE = st.floats(-20.0, 14.0)


@given(SIZE, SIZE, SIZE, SIZE, st.integers(0, 999))
def test_every_product_of_sound_arrays_can_be_computed_in_float32_and_squared_with_an_activation_of_a_million(
    a: float, b: float, fold_a: float, fold_b: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    shapes = {"lora_A": (3, 5), "lora_B": (6, 3), "fold_A": (2, 5), "fold_B": (6, 2)}
    sizes = dict(zip(shapes, (a, b, fold_a, fold_b), strict=True))
    arrays = {f"q.{n}": (10.0 ** sizes[n] * draw.standard_normal(s)).astype("f4") for n, s in shapes.items()}
    fault = unsound(arrays, 2.0)
    whole = serving(arrays, 2.0)
    with np.errstate(over="ignore", invalid="ignore"):
        product = 2.0 * (whole["q.lora_B"] @ whole["q.lora_A"])
        squared = np.square(np.float32(1e6) * product)
    exact = (
        2.0 * arrays["q.lora_B"].astype("f8") @ arrays["q.lora_A"]
        + arrays["q.fold_B"].astype("f8") @ arrays["q.fold_A"]
    )
    if not fault:
        assert np.isfinite(squared).all()
    if float(np.linalg.norm(exact)) > LARGEST * (1 + 1e-6):
        assert fault
