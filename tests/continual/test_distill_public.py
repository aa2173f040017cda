"""``distill`` on public records. On the batch: test_guards.py; in the real loop: test_guards_act.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.guards.distill import DistillSite
from llmchain_fl.core.guards.public_records import draw, unpack
from llmchain_fl.guards.distill import DistillServer

PUBLIC = {"weight": 3.0, "temperature": 1.5, "data": "public", "batch": 4.0}
BATCH = {**PUBLIC, "data": "batch"}
KINDS = ["classification", "causal-lm", "plain-text"]


def ended(task: Any, view: Any, rows: Any, settings: Any = None, arrays: Any = None, **changes: Any) -> DistillServer:
    server = DistillServer(settings or PUBLIC)
    shown = view(task, public_rows=tuple(rows), scale=task.resident.spec.adapter.scale, **changes)
    arrays = arrays or task.resident.arrays()
    server.step(shown, arrays)
    server.on_stage_end(shown, arrays, arrays)
    return server


@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_is_the_weighted_mean_divergence_on_the_records_of_the_step(
    small: Any, view: Any, kind: str
) -> None:
    """Against a task that really holds the teacher."""
    task, rows = small.task(kind), small.rows(7, kind)
    student = task.resident.arrays()
    taught = {name: 0.5 * value for name, value in student.items()}
    guard = DistillSite(PUBLIC, ended(task, view, rows, arrays=taught).payload())
    examples = task.encode(rows)
    for step in (0, 1):
        index = draw(7, 4, (7, 4), step)
        task.resident.load(taught)
        wanted = task.forward(examples, index)
        task.resident.load(student)
        expected = 3.0 * task.divergence(task.forward(examples, index), wanted, 1.5).mean()
        found = guard.penalty(task)
        assert found is not None
        assert float(found) == pytest.approx(float(expected), rel=1e-4)
        assert found.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_public_text_needs_no_labels(small: Any, view: Any, kind: str) -> None:
    task = small.task(kind)
    rows = small.rows(4, "plain-text") if kind != "causal-lm" else small.rows(4, kind)
    taught = {name: 0.5 * value for name, value in task.resident.arrays().items()}
    penalty = DistillSite(PUBLIC, ended(task, view, rows, arrays=taught).payload()).penalty(task)
    assert penalty is not None
    assert float(penalty) > 0


def test_on_public_records_nothing_is_added_to_the_records_own_loss(small: Any, view: Any) -> None:
    """And on the batch there is no penalty: a term in both places would be paid for and added twice."""
    task, rows = small.task(), small.rows(4)
    taught = {name: 0.5 * value for name, value in task.resident.arrays().items()}
    examples = task.encode(rows)
    output = task.forward(examples, range(4))
    public = DistillSite(PUBLIC, ended(task, view, rows, arrays=taught).payload())
    batch = DistillSite(BATCH, ended(task, view, rows, BATCH, taught).payload())
    assert public.example_loss(task, examples, range(4), output) is None
    assert batch.penalty(task) is None
    added = batch.example_loss(task, examples, range(4), output)
    assert added is not None
    assert float(added.min()) > 0


@pytest.mark.parametrize("case", ["no weight", "first stage", "teacher is student"])
def test_there_is_no_pull_where_there_is_nothing_to_hold(small: Any, view: Any, case: str) -> None:
    task, rows = small.task(), small.rows(4)
    settings = {**PUBLIC, "weight": 0.0} if case == "no weight" else PUBLIC
    payload = {} if case == "first stage" else ended(task, view, rows, settings).payload()
    penalty = DistillSite(settings, payload).penalty(task)
    if case != "teacher is student":
        assert penalty is None
        return
    assert penalty is not None
    found = torch.autograd.grad(penalty, [task.resident.parameters[n] for n in task.resident.trained_names])
    assert max(float(g.abs().max()) for g in found) < 1e-4
    assert float(penalty.detach()) < 1e-4


def test_records_of_a_stage_to_come_are_not_used_yet(small: Any, view: Any) -> None:
    rows = [{"text": name, "stage": name} for name in ("first", "second", "third")] + [{"text": "any"}]
    for stage, wanted in ((0, ["first", "any"]), (1, ["first", "second", "any"])):
        sent = ended(small.task(), view, rows, stage=stage).payload()
        assert [row["text"] for row in unpack(sent["distill-records.rows"])] == wanted


@pytest.mark.parametrize("rows", [[], [{"text": "later", "stage": "second"}]])
def test_public_distillation_without_public_records_is_a_fault(small: Any, view: Any, rows: Any) -> None:
    with pytest.raises(ConfigError, match=r"continual\.public"):
        ended(small.task(), view, rows)
    assert ended(small.task(), view, [], BATCH).payload()


def test_on_the_batch_no_public_record_travels(small: Any, view: Any) -> None:
    payload = ended(small.task(), view, small.rows(4), BATCH).payload()
    assert not [name for name in payload if "records" in name]


def test_the_state_survives_and_the_draws_go_on(small: Any, view: Any) -> None:
    task = small.task()
    server, again = ended(task, view, small.rows(5)), DistillServer(PUBLIC)
    server.step(view(task, round=9), task.resident.arrays())
    again.load_state(server.state())
    assert again.payload().keys() == server.payload().keys()
    assert digest(again.payload()) == digest(server.payload())
    assert again.payload()["distill-records.draw"].tolist() == [7, 10]


def test_the_adapter_and_its_fold_are_as_before(small: Any, view: Any) -> None:
    task, rows = small.task(), small.rows(4)
    guard = DistillSite(PUBLIC, ended(task, view, rows).payload())
    before = task.resident.state()
    guard.penalty(task)
    assert torch.equal(task.resident.theta, before.theta)
    assert task.resident.fold.pairs == before.pairs
