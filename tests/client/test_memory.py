"""What a site keeps between rounds is believed only if the ledger sealed the very payload that left with it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import client.memory
from client.memory import KEPT_RUNS, Kept, Memory, believed
from llmchain_fl.core.errors import RunError

BEFORE, AFTER = {"x": np.zeros(1, np.float32)}, {"x": np.ones(1, np.float32)}
KEPT = Kept(5, hashlib.sha256(b"payload").hexdigest(), BEFORE, AFTER)


def sealed(payload: bytes) -> Any:
    """A ledger that sealed ``payload`` for round 5 and nothing else."""
    return lambda number: hashlib.sha256(payload).hexdigest() if number == 5 else ""


def nothing(number: int) -> str:
    return ""


@pytest.mark.parametrize(
    ("number", "seal_of", "expected"),
    [
        (4, None, {}),
        (4, sealed(b"payload"), {}),
        (5, None, BEFORE),
        (5, nothing, BEFORE),
        (6, None, AFTER),
        (9, None, AFTER),
        (6, sealed(b"payload"), AFTER),
        (9, sealed(b"payload"), AFTER),
        (6, nothing, BEFORE),
        (9, nothing, BEFORE),
        (6, sealed(b"another"), {}),
    ],
)
def test_each_row_of_the_table(number: int, seal_of: Any, expected: Any) -> None:
    found = believed(KEPT, number, seal_of)
    assert found is expected or found == expected == {}
    assert believed(None, number, seal_of) == {}


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["seal", "die", "die before the file"])), max_size=12))
def test_a_round_starts_from_sealed_rounds_alone_whatever_breaks_off(
    tmp_path_factory: Any, course: list[tuple[int, str]]
) -> None:
    """Each attempt leaves a number of its own; what a later one starts from holds numbers of sealed attempts only."""
    with mock.patch("os.fsync"):
        play(Memory(tmp_path_factory.mktemp("site"), "run", "personal"), course)


def play(memory: Memory, course: list[tuple[int, str]]) -> None:
    seals: dict[int, str] = {}
    released: set[int] = set()
    for attempt, (number, end) in enumerate(course):
        if number in seals:
            continue  # the sealed bytes are sent again, nothing is computed
        start = memory.before(number, lambda n: seals.get(n, ""))
        seen = {int(value) for value in start.get("x", np.zeros(0))}
        assert seen <= released
        left = {"x": np.array([*start.get("x", []), attempt], dtype=np.float32)}
        payload = repr((number, attempt)).encode()
        if end == "die before the file":
            continue
        memory.keep(number, payload, start, left)
        if end == "seal":
            seals[number] = hashlib.sha256(payload).hexdigest()
            released.add(attempt)


def test_what_was_written_is_read_and_the_rest_of_the_site_is_not_touched(tmp_path: Path) -> None:
    memory = Memory(tmp_path, "run", "personal")
    assert memory.read() is None
    memory.keep(5, b"payload", BEFORE, AFTER)
    found = Memory(tmp_path, "run", "personal").read()
    assert found is not None
    assert (found.round, found.payload) == (5, KEPT.payload)
    assert (found.before["x"].tolist(), found.after["x"].tolist()) == ([0.0], [1.0])
    assert [file.parent for file in tmp_path.rglob("*.safetensors")] == [tmp_path / ".memory"]


@pytest.mark.parametrize("run", ["../../etc/passwd", "/root", "a/b", "", "x" * 5000, "\ud800", "run\n"])
def test_the_name_of_a_run_cannot_lead_out_of_the_folder(tmp_path: Path, run: str) -> None:
    names = {Memory(tmp_path, told, purpose).file for told in (run, run + "x") for purpose in ("personal", "feedback")}
    assert len(names) == 4
    assert {name.parent for name in names} == {tmp_path / ".memory"}


def test_run_and_purpose_cannot_be_shifted_into_each_other(tmp_path: Path) -> None:
    assert Memory(tmp_path, "ab", "c").file != Memory(tmp_path, "a", "bc").file
    assert Memory(tmp_path, 'a", "b', "c").file != Memory(tmp_path, "a", 'b", "c').file


def test_only_the_files_written_last_are_kept_and_nobody_else_may_read_them(tmp_path: Path) -> None:
    for number in range(KEPT_RUNS + 3):
        memory = Memory(tmp_path, f"run-{number}", "personal")
        memory.keep(1, b"", BEFORE, AFTER)
        os.utime(memory.file, ns=(number, number))
    expected = {Memory(tmp_path, f"run-{number}", "personal").file for number in range(3, KEPT_RUNS + 3)}
    folder = tmp_path / ".memory"
    assert set(folder.iterdir()) == expected
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "content", [b"", b"not safetensors", save({"before/x": BEFORE["x"]}), save({}, {"memory": "[]"})]
)
def test_a_damaged_file_is_refused_with_what_to_do_and_left_alone(tmp_path: Path, content: bytes) -> None:
    memory = Memory(tmp_path, "run", "personal")
    memory.file.parent.mkdir()
    memory.file.write_bytes(content)
    with pytest.raises(RunError, match="damaged") as caught:
        memory.before(1, None)
    assert memory.file.name in caught.value.remedy
    assert memory.file.read_bytes() == content


def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    memory = Memory(tmp_path, "run", "personal")
    memory.keep(1, b"", BEFORE, AFTER)
    kept = memory.file.read_bytes()
    monkeypatch.setattr(client.memory, "replace", full)
    with pytest.raises(RunError, match=r"errno 28"):
        memory.keep(2, b"", AFTER, BEFORE)
    assert memory.file.read_bytes() == kept


def test_what_is_kept_of_other_shapes_is_refused(tmp_path: Path) -> None:
    kept = {"layer.lora_B": np.zeros((10, 6), np.float32), "head.bias": np.zeros(9, np.float32)}
    shapes, memory = {name: value.shape for name, value in kept.items()}, Memory(tmp_path, "run", "feedback")
    assert memory.fitting(1, None, shapes) == {}
    memory.keep(1, b"payload", {}, kept)
    assert memory.fitting(2, None, shapes).keys() == kept.keys()
    assert memory.fitting(2, None, {"layer.lora_B": (10, 6)}).keys() == kept.keys()  # not trained now: stays as it is
    with pytest.raises(RunError, match=r"shape \(9,\), its update \(8,\)"):
        memory.fitting(2, None, {**shapes, "head.bias": (8,)})
