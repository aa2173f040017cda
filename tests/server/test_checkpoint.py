"""The state of a run: every part of it in one file, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from llmchain_fl.core.errors import RunError
from server.checkpoint import load_state, read_state, save_state
from server.state import AWAY, RunState, last_state


class Part:
    """A stateful part that a newcomer might add: nothing but these two methods."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = tree

    def state(self) -> Mapping[str, Any]:
        return self.tree

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.tree = state


def state(number: int) -> RunState:
    array = np.full((2, 3), number, dtype=np.float32)
    return RunState(
        run="r",
        round=number,
        current={"m.lora_B": array},
        serving={"m.lora_B": array + 1},
        nodes={"b": 7, "a": 5},
        receipts={"a": "x" * 1024, "b": "größe 数"},
        ended={"cards": 2},
        lineage="abc",
        stopped="why",
        summed=2,
        settings={"seed": 3},
        labels={"pay": "pay a bill"},
        changes=[{"how": "resume"}],
    )


def keep(folder: Path, number: int) -> Path:
    return save_state(folder, number, {"run": state(number)})


def test_a_state_is_read_back_as_it_was_and_only_the_connections_are_gone(tmp_path: Path) -> None:
    keep(tmp_path, 3)
    found, wanted = last_state(tmp_path), state(3)
    assert found is not None
    assert found.nodes == {"a": AWAY, "b": AWAY}
    for part in ("current", "serving"):
        assert {k: v.tobytes() for k, v in getattr(found, part).items()} == {
            k: v.tobytes() for k, v in getattr(wanted, part).items()
        }
    plain = [name for name in vars(wanted) if name not in ("current", "serving", "nodes")]
    assert {name: getattr(found, name) for name in plain} == {name: getattr(wanted, name) for name in plain}


def test_a_new_stateful_part_is_saved_and_loaded_by_its_name_alone(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    tree = {"deep": {"er/m": array, "n": 1.5}, "nothing": {}, "list": [["a"], []], "none": None, "whole": 7}
    save_state(tmp_path, 1, {"run": state(1), "mine": Part(tree)})
    saved, mine = read_state(tmp_path), Part({})
    assert saved is not None
    load_state(saved, {"mine": mine})
    assert mine.tree["deep"].pop("er/m").tobytes() == np.ascontiguousarray(array).tobytes()
    assert mine.tree == {**tree, "deep": {"n": 1.5}}


def test_the_last_two_states_are_kept_and_the_last_one_is_read(tmp_path: Path) -> None:
    for number in range(1, 6):
        keep(tmp_path, number)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "round-000004.safetensors",
        "round-000005.safetensors",
    ]
    found = last_state(tmp_path)
    assert found is not None
    assert found.round == 5


def test_no_state_is_no_error(tmp_path: Path) -> None:
    assert read_state(tmp_path) is last_state(tmp_path) is None


@pytest.mark.parametrize("size", [0, 5, 40, 100])
def test_a_damaged_state_is_refused_and_its_remedy_works(size: int, tmp_path: Path) -> None:
    keep(tmp_path, 1)
    path = keep(tmp_path, 2)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RunError, match="damaged"):
        read_state(tmp_path)
    path.unlink()
    found = last_state(tmp_path)
    assert found is not None
    assert found.round == 1


FACTS = ["[]", "1", "null", '{"version": 2}', '{"version": 2, "parts": 5}', "[" * 3000]


@pytest.mark.parametrize("facts", [*FACTS, '{"version": 2, "parts": {"run": {"current": {"m": {"$array": "lost"}}}}}'])
def test_a_state_whose_facts_are_no_facts_is_damaged(facts: str, tmp_path: Path) -> None:
    keep(tmp_path, 1)
    (tmp_path / "round-000002.safetensors").write_bytes(save({}, metadata={"state": facts}))
    with pytest.raises(RunError, match="damaged"):
        read_state(tmp_path)


@pytest.mark.parametrize("facts", [{"run": "r", "round": 3, "guards": []}, {"version": 1, "parts": {}}])
def test_a_state_of_another_version_is_refused_in_one_sentence(facts: dict[str, Any], tmp_path: Path) -> None:
    """Read as if nothing had been spent, it would forget what was."""
    (tmp_path / "round-000003.safetensors").write_bytes(save({}, metadata={"state": json.dumps(facts)}))
    with pytest.raises(RunError, match="was written by another version"):
        read_state(tmp_path)


def test_a_part_that_finds_nothing_of_its_own_is_of_another_version(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    saved = read_state(tmp_path)
    assert saved is not None
    with pytest.raises(RunError, match=r"\(mine\) was written by another version"):
        load_state(saved, {"mine": Part({})})
    del saved["run"]["receipts"]
    with pytest.raises(RunError, match="another version"):
        load_state(saved, {"run": RunState("")})
