"""The guard ``replay``: both halves, and the texts a model writes. In the real loop: test_guards_act.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llmchain_fl.continual.imagine import imagine
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.guards.public_records import draw, unpack
from llmchain_fl.core.guards.replay import RECORDS, ReplaySite
from llmchain_fl.guards.replay import ReplayServer

PUBLIC = {"data": "public", "weight": 1.0, "batch": 4.0, "size": 5.0}
GENERATED = {**PUBLIC, "data": "generated"}


def ended(task: Any, view: Any, settings: Any, rows: Any = (), server: Any = None, **changes: Any) -> ReplayServer:
    server = server or ReplayServer(settings)
    shown = view(task, public_rows=tuple(rows), scale=task.resident.spec.adapter.scale, **changes)
    arrays = task.resident.arrays()
    server.step(shown, arrays)
    server.on_stage_end(shown, arrays, arrays)
    return server


def rows_of(server: ReplayServer) -> list[dict[str, str]]:
    return list(unpack(server.payload()[f"{RECORDS}.rows"]))


def in_stages(rows: Any, *names: str) -> list[dict[str, str]]:
    return [{**row, "stage": names[n % len(names)]} for n, row in enumerate(rows)]


# -- public records ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classification", "causal-lm", "plain-text"])
def test_the_penalty_is_the_weighted_mean_loss_of_the_drawn_records(small: Any, view: Any, kind: str) -> None:
    task, rows = small.task(kind), small.rows(9, kind)
    server = ended(task, view, PUBLIC, rows, seed=3, round=6)
    penalty = ReplaySite({**PUBLIC, "weight": 2.5}, server.payload()).penalty(task)
    chosen = [rows[i] for i in draw(9, 4, (3, 7), 0)]
    each = [task.losses(task.forward(task.encode([row]), [0]))[0] for row in chosen]
    assert penalty is not None
    assert penalty.item() == pytest.approx(2.5 * float(torch.stack(each).mean()), rel=1e-5)


def test_the_first_stage_and_a_weight_of_zero_add_nothing(small: Any, view: Any) -> None:
    task = small.task()
    assert ReplaySite(PUBLIC, ReplayServer(PUBLIC).payload()).penalty(task) is None
    server = ended(task, view, PUBLIC, small.rows(4))
    assert ReplaySite({**PUBLIC, "weight": 0.0}, server.payload()).penalty(task) is None


def test_records_of_a_stage_to_come_are_left_out(small: Any, view: Any) -> None:
    rows = in_stages(small.rows(6), "one", "two", "three")
    server = ended(small.task(), view, PUBLIC, rows, stages=("one", "two", "three"), stage=1)
    assert {row["stage"] for row in rows_of(server)} == {"one", "two"}


@pytest.mark.parametrize("kind", ["classification", "causal-lm"])
def test_records_that_say_no_answer_are_refused(small: Any, view: Any, kind: str) -> None:
    rows = [{key: value for key, value in row.items() if key not in ("label", "answer")} for row in small.rows(3, kind)]
    with pytest.raises(ConfigError, match="need labels"):
        ended(small.task(kind), view, PUBLIC, rows)


@pytest.mark.parametrize("rows", [[], [{"text": "a", "label": "other", "stage": "later"}]])
def test_without_a_record_of_an_ended_stage_there_is_an_error(small: Any, view: Any, rows: Any) -> None:
    with pytest.raises(ConfigError, match="no record of the stages that have ended"):
        ended(small.task(), view, PUBLIC, rows, stages=("now", "later"), stage=0)


# -- generated texts --------------------------------------------------------------------------------------------------


def test_each_ended_stage_adds_texts_of_the_adapter_that_served_it(small: Any, view: Any) -> None:
    task = small.task("plain-text")
    server = ended(task, view, GENERATED, stages=("one", "two"), stage=0)
    first = rows_of(server)
    assert 1 <= len(first) <= 5
    assert {row["stage"] for row in first} == {"one"}
    ended(task, view, GENERATED, server=server, stages=("one", "two"), stage=1)
    both = rows_of(server)
    assert both[: len(first)] == first
    assert {row["stage"] for row in both[len(first) :]} == {"two"}


def test_another_adapter_writes_other_texts_and_the_loaded_one_is_left_as_it_was(small: Any, view: Any) -> None:
    task = small.task("plain-text", moved=2.0)
    moved, before = task.resident.arrays(), digest(task.resident.arrays())
    told = {"stages": ("one",), "stage": 0, "scale": task.resident.spec.adapter.scale}
    found = []
    for serving in (moved, task.resident.fresh()):
        server = ReplayServer({**GENERATED, "size": 20.0})
        server.on_stage_end(view(task, **told), serving, serving)
        found.append(rows_of(server))
    assert found[0] != found[1]
    assert digest(task.resident.arrays()) == before


def test_a_seed_says_what_is_written_and_nobody_else_s_draws_are_touched(small: Any) -> None:
    task = small.task("plain-text")
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    texts = imagine(task, 70, (1, 2))
    assert torch.equal(torch.randn(3), expected)
    assert imagine(task, 70, (1, 2)) == texts
    assert imagine(task, 70, (1, 3)) != texts
    assert 0 < len(texts) <= 70
    assert all(text.strip() for text in texts)
    assert imagine(task, 0, (1, 2)) == []
    assert task.resident.module.training


def test_texts_are_no_longer_than_the_task_allows_and_follow_the_model(small: Any) -> None:
    """By another road: their mean loss under the model that wrote them is near the entropy of its own draws."""
    task = small.task("plain-text", max_tokens=12)
    texts = imagine(task, 64, (1,))
    examples = task.encode([{"text": text} for text in texts])
    assert max(map(len, examples.ids)) <= 12
    own = task.score(examples)["loss"]
    assert own < task.score(task.encode(small.rows(64, "plain-text")))["loss"]


def test_only_a_language_model_writes(small: Any) -> None:
    with pytest.raises(TypeError):
        imagine(small.task("classification"), 3, (1,))


def test_the_state_goes_on_with_the_same_texts(small: Any, view: Any) -> None:
    server = ended(small.task("plain-text"), view, GENERATED, stages=("one",), stage=0)
    again = ReplayServer(GENERATED)
    again.load_state(server.state())
    assert digest(again.payload()) == digest(server.payload())
