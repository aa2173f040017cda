from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.value import AdapterSpec, fresh_arrays, is_trained

SHAPES = {"x.lora_A": (2, 9), "x.lora_B": (5, 2), "y.lora_A": (2, 9), "head.weight": (3, 5), "head.bias": (3,)}


@given(st.permutations(list(SHAPES)), st.integers(0, 2**32 - 1))
def test_the_start_is_deterministic_and_does_not_depend_on_order(names: list[str], seed: int) -> None:
    shuffled = fresh_arrays({name: SHAPES[name] for name in names}, seed)
    assert digest(shuffled) == digest(fresh_arrays(SHAPES, seed))


def test_the_start_of_one_array_does_not_depend_on_the_others() -> None:
    alone = fresh_arrays({"y.lora_A": (2, 9)}, 3)["y.lora_A"]
    assert np.array_equal(alone, fresh_arrays(SHAPES, 3)["y.lora_A"])


def test_names_and_seeds_give_different_starts() -> None:
    first, second = fresh_arrays(SHAPES, 1), fresh_arrays(SHAPES, 2)
    assert not np.array_equal(first["x.lora_A"], first["y.lora_A"])
    assert not np.array_equal(first["x.lora_A"], second["x.lora_A"])


def test_only_lora_a_is_drawn_and_delta_w_is_zero() -> None:
    start = fresh_arrays(SHAPES, 1)
    assert {name for name, value in start.items() if value.any()} == {"x.lora_A", "y.lora_A"}
    assert all(value.dtype == np.float32 for value in start.values())


def test_lora_a_is_uniform_within_its_bound() -> None:
    draw = fresh_arrays({"x.lora_A": (64, 400)}, 1)["x.lora_A"]
    bound = 1 / np.sqrt(400)
    assert np.abs(draw).max() <= bound
    assert np.abs(draw).max() > 0.999 * bound
    assert abs(draw.std() / (bound / np.sqrt(3)) - 1) < 0.02


def test_the_start_is_the_one_of_every_other_machine() -> None:
    """A site draws A itself: another numpy or another platform must give the same numbers."""
    assert digest(fresh_arrays({"encoder.layer.0.attention.self.query.lora_A": (4, 8)}, 7)).startswith(
        "55feaf4835bf594c"
    )


@pytest.mark.parametrize(
    ("name", "trained", "answer"),
    [
        ("x.lora_A", ("lora_B",), False),
        ("x.lora_B", ("lora_B",), True),
        ("x.lora_A", ("lora_A", "lora_B"), True),
        ("head.weight", ("lora_B",), True),
        ("head.bias", (), True),
    ],
)
def test_what_is_trained_follows_from_the_ending_and_a_head_always_is(
    name: str, trained: tuple[str, ...], answer: bool
) -> None:
    assert is_trained(name, trained) is answer


def test_the_digest_changes_with_every_bit_name_and_shape() -> None:
    arrays = fresh_arrays(SHAPES, 1)
    seen = {digest(arrays)}
    for name in arrays:
        other = {key: value.copy() for key, value in arrays.items()}
        other[name].flat[-1] = np.nextafter(other[name].flat[-1], np.float32(1))
        seen.add(digest(other))
    seen.add(digest({**arrays, "head.weight": arrays["head.weight"].reshape(5, 3)}))
    seen.add(digest({f"{name}_": value for name, value in arrays.items()}))
    seen.add(digest({name: value for name, value in arrays.items() if name != "head.bias"}))
    assert len(seen) == len(SHAPES) + 4


def test_the_digest_does_not_depend_on_order_or_memory_layout() -> None:
    arrays = fresh_arrays(SHAPES, 1)
    turned = {name: np.asfortranarray(arrays[name]) for name in reversed(list(arrays))}
    assert digest(turned) == digest(arrays)


def test_the_scale_is_alpha_over_rank() -> None:
    assert AdapterSpec(rank=8, alpha=16.0).scale == 2.0
