from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from llmchain_fl.compression import error_feedback
from llmchain_fl.compression.codec import CodecSpec
from llmchain_fl.compression.error_feedback import (
    KEPT_RUNS,
    Memory,
    encode_with_memory,
    memory_file,
    read_memory,
    residual,
)
from llmchain_fl.compression.update import decode, encode
from llmchain_fl.errors import PrivacyError, RunError, TrainingError
from llmchain_fl.privacy.accounting import Event
from llmchain_fl.privacy.ledger import Charge, FileLedger, Release, Terms
from llmchain_fl.privacy.sampling import seeded_uniform

SPEC = CodecSpec("top-k", share=0.1, feedback=True)
SHAPES = {"layer.lora_B": (10, 6), "head.bias": (9,)}


def update(number: int, shapes: Any = SHAPES) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def play(file: Path, number: int, delta: Any = None, spec: CodecSpec = SPEC, sealed: Any = None) -> Any:
    draw = seeded_uniform(1, "site-1/rounding", number)
    return encode_with_memory(file, number, update(number) if delta is None else delta, spec, draw, sealed)


def bytes_of(blobs: Any) -> list[tuple[str, bytes]]:
    return [(name, blob.tobytes()) for name, blob in blobs.items()]


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, name="int4"), replace(SPEC, name="bf16")])
def test_nothing_is_lost_only_delayed(tmp_path: Path, spec: CodecSpec) -> None:
    file = memory_file(tmp_path, "run")
    sent = [decode(play(file, number, spec=spec), SHAPES, spec) for number in range(1, 31)]
    memory = read_memory(file)
    assert memory is not None
    for name in SHAPES:
        total = np.sum([update(number)[name] for number in range(1, 31)], axis=0, dtype=np.float64)
        arrived = np.sum([arrays[name] for arrays in sent], axis=0, dtype=np.float64)
        assert arrived + memory.after[name] == pytest.approx(total, abs=1e-4)
        assert np.abs(memory.after[name]).max() > 0


def test_the_memory_stays_bounded_where_the_codec_contracts(tmp_path: Path) -> None:
    file, ones = memory_file(tmp_path, "run"), {"x": np.ones(50, dtype=np.float32)}
    norms = []
    for number in range(1, 200):
        play(file, number, ones)
        memory = read_memory(file)
        assert memory is not None
        norms.append(float(np.linalg.norm(memory.after["x"])))
    bound = 2 / 0.1 * 50**0.5  # Karimireddy et al., lemma 3: ||e|| <= 2 sqrt(1 - d) / d ||x||, d = k / n
    assert max(norms) <= bound
    assert max(norms[100:]) <= 1.1 * max(norms[:100])


def test_small_numbers_get_through_in_the_end_and_without_memory_never(tmp_path: Path) -> None:
    x = {"x": np.concatenate([np.full(5, 1.0), np.full(45, 0.1)]).astype(np.float32)}
    file, with_memory, without = memory_file(tmp_path, "run"), np.zeros(50), np.zeros(50)
    for number in range(1, 101):
        with_memory += decode(play(file, number, x), {"x": (50,)}, SPEC)["x"]
        without += decode(encode(x, SPEC, np.random.default_rng(number).random), {"x": (50,)}, SPEC)["x"]
    assert (without[5:] == 0).all()
    assert with_memory / 100 == pytest.approx(x["x"], rel=0.25)


def test_the_first_round_is_the_codec_alone(tmp_path: Path) -> None:
    plain = encode(update(1), SPEC, seeded_uniform(1, "site-1/rounding", 1))
    assert bytes_of(play(memory_file(tmp_path, "run"), 1)) == bytes_of(plain)


def test_a_round_that_is_computed_twice_starts_from_the_same_memory_and_is_the_same_bytes(tmp_path: Path) -> None:
    file = memory_file(tmp_path, "run")
    play(file, 1)
    second = play(file, 2)
    kept = file.read_bytes()
    assert bytes_of(play(file, 2)) == bytes_of(second)
    assert file.read_bytes() == kept
    assert bytes_of(play(memory_file(tmp_path, "other"), 2)) != bytes_of(second)


def test_an_array_that_is_not_trained_in_a_round_keeps_its_memory(tmp_path: Path) -> None:
    file = memory_file(tmp_path, "run")
    b, a = update(1, {"m.lora_B": (12, 5)}), update(2, {"m.lora_A": (5, 12)})
    play(file, 1, b)
    first = read_memory(file)
    play(file, 2, a)
    second = read_memory(file)
    assert first is not None
    assert second is not None
    assert set(second.after) == {"m.lora_A", "m.lora_B"}
    assert (second.after["m.lora_B"] == first.after["m.lora_B"]).all()
    third = play(file, 3, {name: np.zeros_like(value) for name, value in b.items()})
    late = encode({"m.lora_B": first.after["m.lora_B"]}, SPEC, seeded_uniform(1, "site-1/rounding", 3))
    assert bytes_of(third) == bytes_of(late)


BEFORE, AFTER = {"x": np.zeros(1, np.float32)}, {"x": np.ones(1, np.float32)}
MEMORY = Memory(5, hashlib.sha256(b"payload").hexdigest(), BEFORE, AFTER)


def gone(number: int) -> bytes | None:
    raise PrivacyError("its bytes are not here any more", remedy="go on")


@pytest.mark.parametrize(
    ("number", "sealed", "expected"),
    [
        (4, None, {}),
        (4, lambda number: b"payload", {}),
        (5, None, BEFORE),
        (5, lambda number: None, BEFORE),
        (6, None, AFTER),
        (9, None, AFTER),
        (6, lambda number: b"payload" if number == 5 else None, AFTER),
        (9, lambda number: b"payload" if number == 5 else None, AFTER),
        (6, lambda number: None, BEFORE),
        (6, lambda number: b"another", {}),
        (6, gone, {}),
    ],
)
def test_which_memory_a_round_starts_from(number: int, sealed: Any, expected: Any) -> None:
    assert residual(MEMORY, number, sealed) is expected or residual(MEMORY, number, sealed) == expected == {}
    assert residual(None, number, sealed) == {}


class Site:
    """A site with a real ledger; each call of ``round`` draws new noise, as a private one does."""

    def __init__(self, folder: Path) -> None:
        terms = Terms("data", "record", 1e-5, "pld", float("inf"))
        self.ledger = FileLedger(folder / "ledger", folder / "anchor", terms)
        self.file = memory_file(folder / "feedback", "run")
        self.rng = np.random.default_rng(0)

    def sealed(self, number: int) -> bytes | None:
        return self.ledger.sealed(f"run/{number}")

    def reserve(self, number: int) -> None:
        charge = Charge("*", Event("poisson-gaussian", 0.1, 1.0, 1))
        self.ledger.reserve(Release(f"run/{number}", (charge,), "0" * 64, "training", "", "all"))

    def compute(self, number: int) -> bytes:
        self.reserve(number)
        delta = {name: self.rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
        return save(encode_with_memory(self.file, number, delta, SPEC, self.rng.random, self.sealed))

    def round(self, number: int) -> bytes:
        payload = self.compute(number)
        self.ledger.seal(f"run/{number}", payload)
        return payload

    def memory(self) -> Memory:
        found = read_memory(self.file)
        assert found is not None
        return found


def test_a_crash_before_the_seal_leaves_no_trace_of_the_noise_that_never_left(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.round(1)
    first = site.memory()
    lost = site.compute(2)  # the site dies here: written to the memory, not sealed
    never_sent = site.memory()
    again = site.round(2)
    assert again != lost
    assert all((site.memory().before[name] == first.after[name]).all() for name in SHAPES)
    assert any((site.memory().after[name] != never_sent.after[name]).any() for name in SHAPES)


def test_a_round_that_was_never_sealed_is_forgotten_when_the_run_has_gone_on(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.round(1)
    first = site.memory()
    site.compute(2)
    site.round(3)
    assert all((site.memory().before[name] == first.after[name]).all() for name in SHAPES)


def test_a_sealed_round_is_what_the_next_one_starts_from(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.round(1)
    first = site.memory()
    assert Site(tmp_path).sealed(1) is not None  # after a restart: the same bytes are sent again, nothing is computed
    site.round(2)
    assert all((site.memory().before[name] == first.after[name]).all() for name in SHAPES)


def test_a_memory_of_another_payload_than_the_sealed_one_is_not_used(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.compute(1)
    site.ledger.seal("run/1", b"another payload")
    site.round(2)
    assert site.memory().before == {}


@pytest.mark.parametrize("run", ["../../etc/passwd", "/root", "a/b", "", "x" * 5000, "\ud800"])
def test_the_name_of_a_run_cannot_lead_out_of_the_folder(tmp_path: Path, run: str) -> None:
    assert memory_file(tmp_path, run).parent == tmp_path
    assert memory_file(tmp_path, run) != memory_file(tmp_path, run + "x")


def test_only_the_runs_written_last_are_kept_and_the_file_is_for_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "feedback"
    for number in range(KEPT_RUNS + 3):
        file = memory_file(folder, f"run-{number}")
        play(file, 1)
        os.utime(file, ns=(number, number))
    expected = {memory_file(folder, f"run-{number}") for number in range(3, KEPT_RUNS + 3)}
    assert set(folder.iterdir()) == expected
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("content", [b"", b"not safetensors", save({"before/x": BEFORE["x"]})])
def test_a_damaged_memory_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    file = memory_file(tmp_path, "run")
    file.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        play(file, 1)
    assert file.read_bytes() == content


def test_a_memory_of_other_shapes_is_refused(tmp_path: Path) -> None:
    file = memory_file(tmp_path, "run")
    play(file, 1)
    with pytest.raises(RunError, match=r"shape \(9,\), its update \(8,\)"):
        play(file, 2, update(2, {"head.bias": (8,)}))


def test_an_update_that_is_not_finite_leaves_the_memory_alone(tmp_path: Path) -> None:
    file = memory_file(tmp_path, "run")
    play(file, 1)
    kept = file.read_bytes()
    with pytest.raises(TrainingError):
        play(file, 2, {"head.bias": np.full(9, np.nan, dtype=np.float32)})
    assert file.read_bytes() == kept


def test_a_full_disk_is_told_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    file = memory_file(tmp_path, "run")
    play(file, 1)
    kept = file.read_bytes()
    monkeypatch.setattr(error_feedback, "replace", full)
    with pytest.raises(RunError, match=r"errno 28"):
        play(file, 2)
    assert file.read_bytes() == kept
