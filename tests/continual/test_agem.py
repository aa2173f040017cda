"""The guard ``agem``: both halves. That it acts in the real loop: test_guards_act.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.guards.agem import AgemSite, projected
from llmchain_fl.core.guards.public_records import draw, unpack
from llmchain_fl.guards.agem import AgemServer, is_labelled

SETTINGS = {"strength": 1.0, "batch": 4.0}
SEEDS = st.integers(0, 2**31 - 1)
KINDS = ["classification", "causal-lm", "plain-text"]


def two(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(9, generator=source), torch.randn(9, generator=source)


def ended(task: Any, view: Any, rows: Any, arrays: Any = None, **changes: Any) -> AgemServer:
    server = AgemServer(SETTINGS)
    shown = view(task, public_rows=tuple(rows), scale=task.resident.spec.adapter.scale, **changes)
    arrays = arrays or task.resident.arrays()
    server.step(shown, arrays)
    server.on_stage_end(shown, arrays, arrays)
    return server


def gradient_of(task: Any, loss: torch.Tensor) -> torch.Tensor:
    found = torch.autograd.grad(loss, [task.resident.parameters[n] for n in task.resident.trained_names])
    return torch.cat([g.reshape(-1) for g in found])


def steered(guard: AgemSite, task: Any, gradient: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        return guard.steer(task, gradient)


# -- the formula ------------------------------------------------------------------------------------------------------


@given(SEEDS)
def test_a_projected_gradient_is_the_nearest_that_does_not_conflict(seed: int) -> None:
    """Against the optimality of a projection onto a half space: no point of it is nearer."""
    g, reference = two(seed)
    found = projected(g, reference, 1.0)
    assert float(found @ reference) >= -1e-5
    source = torch.Generator().manual_seed(seed + 1)
    for _ in range(50):
        other = found + torch.randn(9, generator=source)
        if float(other @ reference) >= 0:
            assert float((other - g).norm()) >= float((found - g).norm()) - 1e-5


@given(SEEDS)
def test_a_gradient_without_conflict_is_handed_on_as_it_is(seed: int) -> None:
    g, reference = two(seed)
    g = g if float(g @ reference) >= 0 else -g
    assert projected(g, reference, 1.0) is g
    assert projected(g, torch.zeros(9), 1.0) is g


@given(SEEDS, st.floats(0, 1))
def test_the_strength_is_the_share_that_is_taken_out(seed: int, strength: float) -> None:
    g, reference = two(seed)
    g = -g if float(g @ reference) >= 0 else g
    along = float(projected(g, reference, strength) @ reference)
    assert along == pytest.approx((1 - strength) * float(g @ reference), abs=1e-4)


# -- at the site ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classification", "causal-lm"])
def test_the_reference_is_the_mean_loss_of_the_records_of_this_step(small: Any, view: Any, kind: str) -> None:
    task, rows = small.task(kind), small.rows(9, kind)
    guard = AgemSite(SETTINGS, ended(task, view, rows).payload())
    examples = task.encode(rows)
    for step in (0, 1):
        index = draw(9, 4, (7, 4), step)
        reference = gradient_of(task, task.losses(task.forward(examples, index)).mean())
        found = steered(guard, task, -reference)
        assert float(found.norm()) < 1e-3 * float(reference.norm())
        assert torch.equal(steered(AgemSite(SETTINGS, ended(task, view, rows).payload()), task, reference), reference)


@pytest.mark.parametrize("kind", ["classification", "plain-text"])
def test_records_without_labels_are_held_at_the_teachers_outputs(small: Any, view: Any, kind: str) -> None:
    task, rows = small.task(kind), [{"text": row["text"]} for row in small.rows(4, "plain-text")]
    taught = {n: 0.5 * v for n, v in task.resident.arrays().items()}
    guard = AgemSite(SETTINGS, ended(task, view, rows, taught).payload())
    examples = task.encode(rows)
    with torch.no_grad(), task.resident.swapped(task.resident.state_of(taught)):
        wanted = task.forward(examples, range(4))
    reference = gradient_of(task, task.divergence(task.forward(examples, range(4)), wanted, 2.0).mean())
    assert float(steered(guard, task, -reference).norm()) < 1e-3 * float(reference.norm())


def test_a_student_that_is_the_teacher_is_free(small: Any, view: Any) -> None:
    task, rows = small.task(), [{"text": "lost card"}]
    guard = AgemSite(SETTINGS, ended(task, view, rows).payload())
    g = torch.randn(task.resident.trained.shape, generator=torch.Generator().manual_seed(1))
    found = steered(guard, task, g)
    assert float((found - g).norm()) < 1e-3 * float(g.norm())


@pytest.mark.parametrize("case", ["no strength", "no reference"])
def test_nothing_is_turned_bit_for_bit(small: Any, view: Any, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, rows = small.task(), small.rows(4)
    payload = ended(task, view, rows).payload() if case == "no strength" else {}
    guard = AgemSite({**SETTINGS, "strength": 0.0 if case == "no strength" else 1.0}, payload)
    monkeypatch.setattr(task, "forward", lambda *_: pytest.fail("a pass for nothing"))
    g, before = torch.randn(task.resident.trained.shape), task.resident.theta.clone()
    assert guard.steer(task, g) is g
    guard.pull(task, 0.01)
    assert torch.equal(task.resident.theta, before)


def test_the_step_of_an_optimiser_that_turned_back_is_projected_again(small: Any, view: Any) -> None:
    task, rows = small.task(), small.rows(4)
    guard = AgemSite(SETTINGS, ended(task, view, rows).payload())
    examples = task.encode(rows)
    reference = gradient_of(task, task.losses(task.forward(examples, range(4))).mean())
    before = task.resident.trained.clone()
    steered(guard, task, reference)
    other = torch.randn(before.shape, generator=torch.Generator().manual_seed(2))
    other -= reference * (other @ reference) / (reference @ reference)
    task.resident.trained.add_(0.01 * other + 0.02 * reference)  # up the reference's loss
    guard.pull(task, 0.01)
    assert torch.allclose(task.resident.trained - before, 0.01 * other, atol=1e-5)
    task.resident.trained.copy_(before - 0.02 * reference)  # down: nobody minds
    steered_down = task.resident.trained.clone()
    guard.pull(task, 0.01)
    assert torch.equal(task.resident.trained, steered_down)


# -- at the server ----------------------------------------------------------------------------------------------------


def test_only_records_of_stages_that_have_ended_are_sent(small: Any, view: Any) -> None:
    rows = [{"text": name, "label": "other", "stage": name} for name in ("first", "second", "third")]
    rows += [{"text": "any", "label": "other"}]
    task = small.task()
    for stage, wanted in ((0, ["first", "any"]), (1, ["first", "second", "any"])):
        sent = ended(task, view, rows, stage=stage).payload()
        assert [row["text"] for row in unpack(sent["agem-records.rows"])] == wanted


@pytest.mark.parametrize("rows", [[], [{"text": "later", "stage": "second"}]])
def test_a_run_without_a_reference_is_refused(small: Any, view: Any, rows: Any) -> None:
    with pytest.raises(ConfigError, match=r"continual\.public"):
        ended(small.task(), view, rows)


def test_a_teacher_travels_only_where_labels_are_missing(small: Any, view: Any) -> None:
    task, rows = small.task(), small.rows(3)
    assert not [name for name in ended(task, view, rows).payload() if name.startswith("agem-teacher.")]
    mixed = [*rows, {"text": "bare"}]
    assert [name for name in ended(task, view, mixed).payload() if name.startswith("agem-teacher.")]
    assert [is_labelled(row) for row in ({"text": "a"}, {"label": "b"}, {"prompt": "a", "answer": "b"})] == [
        False,
        True,
        True,
    ]


def test_the_state_survives_and_the_draws_go_on(small: Any, view: Any) -> None:
    task, rows = small.task(), [{"text": row["text"]} for row in small.rows(5)]
    server, again = ended(task, view, rows), AgemServer(SETTINGS)
    server.step(view(task, round=9), task.resident.arrays())
    again.load_state(server.state())
    assert again.payload().keys() == server.payload().keys()
    assert digest(again.payload()) == digest(server.payload())
    assert again.payload()["agem-records.draw"].tolist() == [7, 10]


def test_nothing_is_sent_before_a_stage_has_ended(small: Any, view: Any) -> None:
    server = AgemServer(SETTINGS)
    server.step(view(small.task()), {})
    assert not AgemSite(SETTINGS, server.payload())._sample
    assert np.array_equal(server.payload()["agem-records.draw"], [7, 4])
