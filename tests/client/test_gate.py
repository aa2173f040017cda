"""The gate on the code as it is: it passes, a thousand times; and the instruments of a practice site."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.errors import ConfigError, TrainingError
from llmchain_fl.core.privacy.units import Units
from simulations.audit import gate
from simulations.audit.copies import in_a_copy
from simulations.audit.effort import Effort
from simulations.audit.gate import CHECKS, EFFORTS, run_check, run_gate
from simulations.audit.model import own_model
from simulations.audit.people import hostile_people
from simulations.audit.practice import PracticeSite, names, one_hot, plan_for
from simulations.audit.probe import ProbeTask
from simulations.audit.seeds import same_seeds

SHARED = ("share law", "noise of the sum", "integer noise is new", "box")
STATISTICAL = ("noise and draws", "drawn batches", "empty steps", "telling bits", "canaries", *SHARED)
MEMORY = Path("/dev/shm")  # a thousand small ledgers need no disk
SMALL = Effort(rounds=1, steps=6, quiet=256, draws=300, canaries=200, canary_rounds=1)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.part(6)
def test_the_code_as_it_is_passes(check: str) -> None:
    findings = run_gate("quick", (check,))
    assert [str(found) for found in findings if not found.passed] == []
    assert findings


def test_names_of_findings_tell_checks_apart() -> None:
    found = [name for check in ("neighbours", "own noise: sgd", "own noise: adam", *SHARED) for name in names_of(check)]
    assert len(set(found)) == len(found) > 25


def names_of(check: str) -> list[str]:
    return [found.name for found in run_check(check, EFFORTS["quick"])]


def alarms(runs: int) -> list[str]:
    """Findings that failed in ``runs`` repetitions of the statistical checks, with those that broke off."""
    torch.set_num_threads(1)
    below = MEMORY if MEMORY.is_dir() else None
    found = [finding for _ in range(runs) for name in STATISTICAL for finding in run_check(name, SMALL, below)]
    return [str(finding) for finding in found if not finding.passed]


@pytest.mark.thorough
def test_thirty_runs_on_correct_code_raise_no_alarm() -> None:
    assert alarms(30) == []


@pytest.mark.thorough
def test_many_runs_on_correct_code_raise_at_most_one_alarm() -> None:
    assert len(alarms(int(os.environ.get("GATE_RUNS", "60")))) <= 1  # bench_gate.py: 1,000


def test_the_full_effort_does_more_of_everything() -> None:
    quick, full = (dataclasses.astuple(EFFORTS[name]) for name in ("quick", "full"))
    assert all(more >= less for less, more in zip(quick, full, strict=True))
    assert full > quick


def test_an_unknown_effort_or_check_is_refused() -> None:
    with pytest.raises(ConfigError):
        run_gate("thorough")
    with pytest.raises(ConfigError):
        run_gate("quick", ("horoscope",))


def test_a_check_that_breaks_off_is_a_failed_finding_without_the_text_of_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(folder: Path, effort: Effort) -> Any:
        raise ValueError("Jane-Canary-1970")

    monkeypatch.setattr(gate, "CHECKS", {**CHECKS, "books": broken})
    (found,) = run_gate("quick", ("books",))
    assert not found.passed
    assert "ValueError" in found.words
    assert "Canary" not in str(found)


def test_the_gradient_of_a_probe_record_is_the_record() -> None:
    rows = np.random.default_rng(1).normal(size=(5, 9)).astype(np.float32)
    task = ProbeTask(rows)
    losses = task.losses(task.forward(task.examples(), [3, 1]))
    parameters = [task.resident.parameters[name] for name in task.resident.trained_names]
    parts = torch.autograd.grad(losses.sum(), parameters)
    assert np.allclose(task.vector(dict(zip(task.resident.trained_names, parts, strict=True))), rows[3] + rows[1])


def test_the_half_precision_probe_computes_gradients_in_half_precision() -> None:
    fine = np.full((1, 6), 1 + 2.0**-12, dtype=np.float32)
    for half, expected in ((False, 1 + 2.0**-12), (True, 1.0)):
        task = ProbeTask(fine, half=half)
        weight = task.resident.parameters["first.lora_B"]
        (found,) = torch.autograd.grad(task.losses(task.forward(task.examples(), [0])).sum(), [weight])
        assert found.unique().tolist() == [expected]


def test_a_round_is_read_back_step_by_step(tmp_path: Path) -> None:
    site = PracticeSite(tmp_path, "read", one_hot(6, 8, 3.0, 2), names(6, 2), plan_for(1.0, 0.0, steps=3, divisor=4.0))
    played = site.play(np.ones(8))
    assert np.allclose(site.sums(played.steps), np.array([[1] * 6 + [0] * 2] * 3))
    assert np.allclose(played.update, played.steps.sum(axis=0))


def test_vectors_and_named_arrays_are_each_others_inverse() -> None:
    task = ProbeTask(np.zeros((0, 7), dtype=np.float32))
    vector = np.arange(7.0)
    assert np.array_equal(task.vector(task.arrays(vector)), vector)


def test_hostile_people_reach_the_limits_of_float32() -> None:
    people = hostile_people(3, 1.0)
    norms = [float(np.linalg.norm(rows.astype(np.float64).sum(axis=0))) for rows in people]
    assert max(norms) > 3e38
    assert 0 < min(norm for norm in norms if norm) < 1e-38
    assert {len(rows) for rows in people} >= {1, 2, 8, 64}


def test_a_copy_of_the_process_answers_and_its_failure_is_told() -> None:
    assert in_a_copy(lambda: np.array([1.0, 2.0])).tolist() == [1.0, 2.0]
    with pytest.raises(TrainingError, match="copy"):
        in_a_copy(lambda: np.array([1.0 / 0.0]))


def test_seeds_are_the_same_inside_and_as_before_afterwards() -> None:
    before = np.random.get_state()[1].tolist()
    draws = []
    for _ in range(2):
        with same_seeds():
            draws.append((float(torch.rand(1)), float(np.random.random())))
    assert draws[0] == draws[1]
    assert np.random.get_state()[1].tolist() == before


def model_findings(task: Any, small: Any) -> dict[str, bool]:
    task.resident.theta += 0.3 * torch.randn(task.resident.theta.shape, generator=torch.Generator().manual_seed(1))
    examples = task.encode(small.rows(12))
    units = Units.of_people([f"p{i // 2}" for i in range(12)])
    return {found.name: found.passed for found in own_model(task, examples, units, 4, 1e-2, watched=3)}


def test_a_real_model_in_float32_keeps_people_apart(small: Any) -> None:
    found = model_findings(small.task("classification"), small)
    assert found == {"own model: neighbours": True, "own model: others untouched": True}


def test_a_loss_that_looks_at_the_whole_batch_is_found_in_a_real_model(small: Any) -> None:
    task = small.task("classification")
    real = task.losses

    def centred(output: Any) -> torch.Tensor:
        return real(dataclasses.replace(output, logits=output.logits - output.logits.mean(dim=0).sin()))

    task.losses = centred
    assert not model_findings(task, small)["own model: others untouched"]
