"""The file beside an adapter that says which rows are whose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llmchain_fl.adapter.slots_file import NAME, Slots, read_slots, split, without_stage, write_slots
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.routing import FOLD, PAIR
from llmchain_fl.core.adapter.value import CENTRE, KEYS, TAU
from llmchain_fl.core.errors import ModelError

STAGES = ("cards", "fraud", "loans", "later")


def adapter(rank: int = 6, seed: int = 1) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    shapes = {"x.lora_A": (rank, 5), "x.lora_B": (4, rank), "y.lora_A": (rank, 3), "y.lora_B": (7, rank)}
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def beside(*, route: bool = True) -> dict[str, Any]:
    """The third stage is taught: two blocks of the fold, of 1 and 3 rows, and a pair of 2."""
    found = {PAIR: np.full(2, 3), FOLD: np.array([1, 2, 2, 2])}
    if route:
        found |= {KEYS: np.eye(3, 5), CENTRE: np.ones(5), TAU: np.full(1, 0.05)}
    return {name: value.astype(np.float32) for name, value in found.items()}


def written(folder: Path, *, route: bool = True) -> tuple[dict[str, Any], Slots]:
    arrays = adapter()
    slots = split({**arrays, **beside(route=route)}, STAGES)[1]
    assert slots is not None
    write_slots(folder, slots, digest(arrays))
    return arrays, slots


@pytest.mark.parametrize("route", [True, False])
def test_slots_survive_the_folder(tmp_path: Path, route: bool) -> None:
    arrays, slots = written(tmp_path, route=route)
    back = read_slots(tmp_path, arrays)
    assert back is not None
    assert back.stages == back.held == ("cards", "fraud", "loans")
    assert back.rows.tolist() == slots.rows.tolist() == [3, 3, 1, 2, 2, 2]  # the pair first, as in the plain adapter
    assert digest(back.route) == digest({n: v for n, v in beside(route=route).items() if n.startswith("route.")})
    assert back.arrays().get(PAIR, np.zeros(0)).tolist() == ([3, 3, 1, 2, 2, 2] if route else [])


def test_an_adapter_without_slots_has_no_file_and_takes_an_old_one_away(tmp_path: Path) -> None:
    arrays, _ = written(tmp_path)
    plain, nothing = split(adapter(), STAGES)
    assert digest(plain) == digest(adapter())
    assert nothing is None
    write_slots(tmp_path, nothing, "")
    assert read_slots(tmp_path, arrays) is None


def test_what_stands_beside_is_parted_from_the_adapter() -> None:
    assert digest(split({**adapter(), **beside()}, STAGES)[0]) == digest(adapter())


def test_the_file_of_another_adapter_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ModelError, match="another adapter"):
        read_slots(tmp_path, adapter(seed=2))


@pytest.mark.parametrize(
    ("changes", "stages", "word"),
    [
        ({"rows": np.array([3, 3, 1, 2, 2])}, None, "rank"),
        ({"rows": np.array([3, 3, 1, 2, 2, 4])}, None, "rows of 3 stages"),
        ({"rows": np.array([3, 3, 0, 2, 2, 2])}, None, "rows of 3 stages"),
        ({"keys": np.eye(2, 5)}, None, "2 keys for 3 stages"),
        ({"more": np.ones(1)}, None, "more"),
        ({}, '["a", "a", "b"]', "name its stages"),
        ({}, '["a", "b", 3]', "name its stages"),
        ({}, '{"a": 1}', "name its stages"),
        ({}, "[", "cannot be read"),
    ],
)
def test_names_and_sizes_are_checked(tmp_path: Path, changes: dict[str, Any], stages: str | None, word: str) -> None:
    arrays, _ = written(tmp_path)
    told = {"stages": stages or '["cards", "fraud", "loans"]', "content": digest(arrays)}
    save_file({**load_file(tmp_path / NAME), **changes}, tmp_path / NAME, metadata=told)
    with pytest.raises(ModelError, match=word):
        read_slots(tmp_path, arrays)


@pytest.mark.parametrize("content", [b"", b"not a tensor file"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    arrays, _ = written(tmp_path)
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        read_slots(tmp_path, arrays)
    save_file({"rows": np.ones(6, np.int64)}, tmp_path / NAME)  # no header
    with pytest.raises(ModelError, match="cannot be read"):
        read_slots(tmp_path, arrays)


@pytest.mark.parametrize("ending", ["", ".weight"])
def test_without_a_stage_the_other_slots_are_what_they_were(ending: str) -> None:
    arrays = adapter() | {"head.bias": np.ones(2, np.float32)}
    slots = split({**arrays, **beside()}, STAGES)[1]
    assert slots is not None
    left, rest = without_stage({name + ending: value for name, value in arrays.items()}, slots, "cards")
    for module in ("x", "y"):
        assert np.array_equal(left[f"{module}.lora_A{ending}"], arrays[f"{module}.lora_A"][[0, 1, 3, 4, 5]])
        assert np.array_equal(left[f"{module}.lora_B{ending}"], arrays[f"{module}.lora_B"][:, [0, 1, 3, 4, 5]])
    assert left[f"head.bias{ending}"].tolist() == [1, 1]
    assert rest.stages == rest.held == ("fraud", "loans")
    assert rest.rows.tolist() == [2, 2, 1, 1, 1]
    assert np.array_equal(rest.route[KEYS], np.eye(3, 5)[1:])
    assert rest.route[TAU].tolist() == slots.route[TAU].tolist()


def test_two_slots_can_be_taken_out_in_either_order() -> None:
    slots = split({**adapter(), **beside()}, STAGES)[1]
    assert slots is not None
    ways = [
        without_stage(*without_stage(adapter(), slots, one), other)
        for one, other in (("cards", "loans"), ("loans", "cards"))
    ]
    assert digest(ways[0][0]) == digest(ways[1][0])
    assert ways[0][1].rows.tolist() == ways[1][1].rows.tolist() == [1, 1, 1]
    assert ways[0][1].stages == ways[1][1].stages == ("fraud",)
    for stage in ("fraud", "other"):
        with pytest.raises(ModelError, match="cannot be taken out"):
            without_stage(*ways[0], stage)
