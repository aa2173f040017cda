"""Numbers for texts, and orders of candidates."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.work import open_work


@pytest.fixture
def regression(small: Any) -> Any:
    return small.task("regression", windows=3)


@pytest.fixture
def ranking(small: Any) -> Any:
    return small.task("ranking", windows=4)


def order(candidates: list[str], grades: list[int], query: str = "card lost") -> dict[str, str]:
    return {"query": query, "candidates": json.dumps(candidates), "grades": json.dumps(grades)}


def task_ids(task: Any, text: str) -> list[int]:
    ids: list[int] = task.resident.base.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "share"), [("-9", 0.0), ("0", 0.0), ("0.25", 0.25), ("1", 1.0), ("7e5", 1.0)])
def test_a_number_beyond_the_range_counts_as_its_end(regression: Any, value: str, share: float) -> None:
    examples = regression.encode([{"text": "card", "value": value}])
    assert regression.forward(examples, [0]).targets.item() == pytest.approx(share)


def test_an_answer_is_within_the_range_and_in_its_units(small: Any) -> None:
    work = small.work("regression")
    resident, task = open_work(work.resident, replace(work.task, low=-10.0, high=30.0))
    resident.reset()
    (((text, _),),) = task.predict(["card"])
    assert float(text) == pytest.approx(10.0)  # a head that has learned nothing says the middle


def test_scores_are_those_of_a_plain_loop(regression: Any, small: Any) -> None:
    rows = [small.record("regression", words) | {"value": str(words / 50)} for words in (1, 9, 40, 3)]
    examples = regression.encode(rows)
    found = np.array([float(answer[0][0]) for answer in regression.answer(rows)])
    right = np.array([float(row["value"]) for row in rows])
    scores = regression.score(examples)
    assert scores["mae"] == pytest.approx(np.abs(found - right).mean(), abs=1e-5)
    assert scores["rmse"] == pytest.approx(np.sqrt(((found - right) ** 2).mean()), abs=1e-5)
    assert set(scores) == {metric.name for metric in task_kind("regression").metrics}


def test_two_texts_are_one_row_and_whether_others_have_two_changes_nothing(regression: Any) -> None:
    one, two = {"text": "card lost", "value": "0.5"}, {"text": "card lost", "text2": "pin new", "value": "0.5"}
    alone, pair, both = (regression.encode(rows) for rows in ([one], [two], [two, one]))
    assert both.ids[1].tolist() == alone.ids[0].tolist()
    assert both.ids[0].tolist() == pair.ids[0].tolist()
    assert [*alone.ids[0][1:-1], *task_ids(regression, "pin new")] == pair.ids[0].tolist()


def test_the_best_answer_is_the_mean_of_the_numbers(regression: Any) -> None:
    examples = regression.encode([{"text": "card", "value": value} for value in ("0.2", "0.8", "0.8")])
    logit = torch.zeros(3, 1, requires_grad=True)
    with torch.no_grad():
        logit += float(np.log(0.6 / 0.4))
    output = regression.forward(examples, [0, 1, 2])
    regression.losses(type(output)(logit, output.targets)).sum().backward()
    assert float(logit.grad.sum()) == pytest.approx(0.0, abs=1e-5)


# -- orders ------------------------------------------------------------------------------------------------------------


def test_the_order_in_which_candidates_are_written_changes_no_answer(ranking: Any) -> None:
    names = ["pin new", "card lost", "rate loan fee", "why", "send money"]
    there = ranking.answer([order(names, [0, 1, 0, 0, 0])], top=5)
    back = ranking.answer([order(names[::-1], [0, 0, 0, 1, 0])], top=5)
    assert there == back
    assert sum(chance for _, chance in there[0]) == pytest.approx(1.0)


def test_a_start_orders_by_the_cosine_of_query_and_candidate(small: Any) -> None:
    task = small.task("ranking", moved=0.0, max_tokens=32)
    examples = task.encode([order(["pin new", "card lost"], [0, 1])])
    note = examples.notes[0]
    ids = torch.from_numpy(examples.ids[0])[None]
    with torch.no_grad():
        hidden = task.resident.base.module(ids, torch.ones_like(ids)).last_hidden_state[0]
        query = hidden[note < 0].mean(dim=0)
        expected = [float(torch.cosine_similarity(query, hidden[note // 32 == k].mean(dim=0), dim=0)) for k in (1, 2)]
        found = task.forward(examples, [0]).logits[0, 1:3] / 20.0
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


def test_a_loss_is_the_cross_entropy_of_none_and_the_candidates(ranking: Any) -> None:
    examples = ranking.encode([order(["pin", "card", "why"], [2, 1, 0])])
    with torch.no_grad():
        output = ranking.forward(examples, [0])
        scores = [0.0, *output.logits[0, 1:4].double().tolist()]
    shares = [examples.grades[0][k] / 3 for k in examples.holds[0]]
    logs = np.array(scores) - np.logaddexp.reduce(scores)
    assert ranking.losses(output).item() == pytest.approx(
        -sum(s * v for s, v in zip(shares, logs[1:], strict=True)), rel=1e-4
    )


def test_a_row_without_a_right_candidate_has_none_of_these_for_its_target(ranking: Any) -> None:
    names = [f"card {word}" for word in ("pin", "why", "new", "fee", "rate", "loan", "send")]
    examples = ranking.encode([order(names, [1, 0, 0, 0, 0, 0, 0])])
    targets = ranking.forward(examples, range(len(examples))).targets
    right = [0 in holds for holds in examples.holds]
    assert len(right) > 1
    assert (targets[:, 0] == 1).tolist() == [not one for one in right]


def test_candidates_beyond_the_rows_of_a_record_are_ranked_last(small: Any) -> None:
    task = small.task("ranking", windows=1)
    names = [f"card {word}" for word in ("pin", "why", "new", "fee", "rate", "loan", "send")]
    examples = task.encode([order(names, [1] + [0] * 6)])
    (scores,) = task.scores_of(examples)
    assert examples.cut == 1
    assert np.isneginf(scores).sum() == len(names) - len(examples.holds[0])


def test_questions_without_candidates_are_refused(ranking: Any) -> None:
    with pytest.raises(ConfigError):
        ranking.predict(["card"])


@pytest.mark.parametrize("kind", ["regression", "ranking"])
def test_a_decoder_can_be_the_base_of_numbers_and_orders(small: Any, kind: str) -> None:
    task = small.task(kind, path=str(small.llama), windows=3)
    examples = task.encode([small.record(kind, words) for words in (1, 9, 40)])
    assert examples.records == 3
    assert task.losses(task.forward(examples, range(len(examples)))).isfinite().all()
    assert np.isfinite(task.record_scores(examples)).all()
