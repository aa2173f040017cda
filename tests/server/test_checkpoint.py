"""The state of a round: whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from llmchain_fl.core.errors import RunError
from server.checkpoint import RunState, load_state, save_state


def state(number: int) -> RunState:
    array = np.full((2, 3), number, dtype=np.float32)
    return RunState(
        run="r",
        work="w",
        round=number,
        current={"m.lora_B": array},
        serving={"m.lora_B": array + 1},
        noise_multiplier=1.25,
        guards={"ema": {"m.lora_B": array + 2}, "distill": {}},
        spendings={"a": {"training": number}},
        receipts={"a": "r"},
        clip=0.5,
        lineage="abc",
        stopped="why",
        used_up={"a": [["training:cards", "training:loans"], []]},
        summed=2,
    )


def test_a_state_is_read_back_as_it_was(tmp_path: Path) -> None:
    save_state(tmp_path, state(3))
    found = load_state(tmp_path)
    assert found is not None
    wanted = state(3)
    for part in ("current", "serving"):
        assert {k: v.tobytes() for k, v in getattr(found, part).items()} == {
            k: v.tobytes() for k, v in getattr(wanted, part).items()
        }
    assert found.guards["ema"]["m.lora_B"].tobytes() == wanted.guards["ema"]["m.lora_B"].tobytes()
    assert found.guards["distill"] == {}
    keep = ("run", "work", "round", "noise_multiplier", "spendings", "receipts", "clip", "lineage", "stopped")
    keep = (*keep, "used_up", "summed")
    assert {k: getattr(found, k) for k in keep} == {k: getattr(wanted, k) for k in keep}


def test_the_last_two_states_are_kept_and_the_last_one_is_read(tmp_path: Path) -> None:
    for number in range(1, 6):
        save_state(tmp_path, state(number))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "round-000004.safetensors",
        "round-000005.safetensors",
    ]
    found = load_state(tmp_path)
    assert found is not None
    assert found.round == 5


def test_no_state_is_no_error(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None


@pytest.mark.parametrize("size", [0, 5, 40, 100])
def test_a_damaged_state_is_refused_and_its_remedy_works(size: int, tmp_path: Path) -> None:
    save_state(tmp_path, state(1))
    path = save_state(tmp_path, state(2))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RunError, match="damaged"):
        load_state(tmp_path)
    path.unlink()
    found = load_state(tmp_path)
    assert found is not None
    assert found.round == 1


@pytest.mark.parametrize("facts", ["[]", "1", "null", "{}", '{"guards": 5}', '{"guards": [[]]}', "[" * 3000])
def test_a_state_whose_facts_are_no_facts_is_damaged(facts: str, tmp_path: Path) -> None:
    save_state(tmp_path, state(1))
    (tmp_path / "round-000002.safetensors").write_bytes(save({}, metadata={"state": facts}))
    with pytest.raises(RunError, match="damaged"):
        load_state(tmp_path)


def test_groups_and_receipts_of_all_sites_survive(tmp_path: Path) -> None:
    saved = state(1)
    saved.spendings = {"a": {"training:cards": 3, "held-out": 6}, "b": {}}
    saved.receipts = {"a": "x" * 1024, "b": "größe 数"}
    save_state(tmp_path, saved)
    found = load_state(tmp_path)
    assert found is not None
    assert (found.spendings, found.receipts, found.clip) == (saved.spendings, saved.receipts, 0.5)


def test_a_state_of_the_version_before_there_were_groups_is_refused(tmp_path: Path) -> None:
    """Read as if nothing had been spent, it would forget what was."""
    path = save_state(tmp_path, state(1))
    with safe_open(path, framework="numpy") as opened:
        facts = json.loads(opened.metadata()["state"])
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    facts["site_rounds"] = {"a": sum(facts.pop("spendings")["a"].values())}
    path.write_bytes(save(arrays, metadata={"state": json.dumps(facts)}))
    with pytest.raises(RunError, match="written by another version"):
        load_state(tmp_path)


def test_the_rounds_of_a_run_that_0_1_began_count_as_rounds_that_were_summed(tmp_path: Path) -> None:
    path = save_state(tmp_path, state(3))
    with safe_open(path, framework="numpy") as opened:
        facts = json.loads(opened.metadata()["state"])
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    del facts["summed"], facts["used_up"]
    path.write_bytes(save(arrays, metadata={"state": json.dumps(facts)}))
    found = load_state(tmp_path)
    assert found is not None
    assert (found.summed, found.used_up) == (3, {})
