"""Relations, pairs and several labels over a tiny model, beside plain loops and scikit-learn."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.cli.predict import _row_answers
from llmchain_fl.core.tasks.kind import TASKS, task_kind
from llmchain_fl.core.tasks.marked import relation_f1
from llmchain_fl.core.tasks.multi_label import fault

RIGHT = [[], ["rates"], ["lost_card", "other"], ["transfer"], ["rates", "transfer", "other"]]


def test_a_relation_reads_the_vectors_at_both_opening_signs(small: Any) -> None:
    task = small.task("relation", max_tokens=24)
    weight = task.resident.parameters["head.weight"].detach()
    assert weight.shape == (4, 64)
    row = {"text": "lost <e2>card</e2> why <e1>pay fee</e1> now", "label": "rates"}
    examples = task.encode([row])
    tokens = task.resident.base.tokenizer.convert_ids_to_tokens(examples.ids[0])
    first, second = examples.notes[0]
    assert tokens[first : first + 3] == ["[UNK]", "pay", "fee"]  # the tiny vocabulary has no signs
    assert tokens[second + 1] == "card"
    with torch.no_grad():
        hidden = task.resident.base.module(input_ids=torch.tensor(examples.ids[0])[None]).last_hidden_state[0]
        vectors = [20.0 * hidden[place] / hidden[place].norm() for place in (first, second)]
        expected = weight @ torch.cat(vectors) + task.resident.parameters["head.bias"]
        assert torch.allclose(task.forward(examples, [0]).logits[0], expected, atol=1e-3)


def test_relations_are_scored_by_the_answers_that_a_prediction_gives(small: Any) -> None:
    task = small.task("relation", max_tokens=24)
    rows = [small.record("relation", words, seed=words) for words in range(1, 9)]
    found = [answer[0][0] for answer in task.answer(rows, 1)]
    scores = task.score(task.encode(rows))
    assert scores["accuracy"] == np.mean([a == row["label"] for a, row in zip(found, rows, strict=True)])
    targets, answers = ([task.labels.index(name) for name in one] for one in ([r["label"] for r in rows], found))
    assert scores["relation_f1"] == pytest.approx(relation_f1(np.array(targets), np.array(answers), task.labels))


def test_a_long_relation_keeps_both_signs_and_counts_as_cut(small: Any) -> None:
    task = small.task("relation", max_tokens=16)
    text = f"{'why ' * 30}<e1>card</e1> {'pay ' * 30}<e2>fee</e2> {'why ' * 30}"
    examples = task.encode([{"text": text, "label": "rates"}])
    tokens = task.resident.base.tokenizer.convert_ids_to_tokens(examples.ids[0])
    assert (examples.cut, len(tokens)) == (1, 16)
    assert [tokens[place + 1] for place in examples.notes[0]] == ["card", "fee"]
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")


def test_a_pair_is_one_row_with_both_texts_and_the_longer_one_is_cut(small: Any) -> None:
    task = small.task("pair-classification", max_tokens=16)
    rows = [
        {"text": "lost card", "text2": "why pay fee", "label": "other"},
        {"text": "lost card", "text2": "pay " * 40, "label": "other"},
    ]
    examples = task.encode(rows)
    words = task.resident.base.tokenizer.convert_ids_to_tokens(examples.ids[1])
    assert examples.cut == 1
    assert len(words) == 16
    assert words.count("lost") == words.count("card") == 1
    short = task.resident.base.tokenizer.convert_ids_to_tokens(examples.ids[0])
    assert [word for word in short if not word.startswith("[")] == ["lost", "card", "why", "pay", "fee"]
    swapped = task.encode([{**rows[0], "text": rows[0]["text2"], "text2": rows[0]["text"]}])
    assert swapped.ids[0].tolist() != examples.ids[0].tolist()
    assert [len(found) for found in task.answer(rows, 2)] == [2, 2]


def test_several_labels_are_scored_as_scikit_learn_has_it(small: Any) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    task, draw = small.task("multi-label", windows=3), random.Random(4)
    rows = [
        {"text": " ".join(draw.choices(small.words, k=draw.randint(1, 40))), "labels": json.dumps(draw.choice(RIGHT))}
        for _ in range(20)
    ]
    examples = task.encode(rows)
    found = [[name for name, _ in answer] for answer in task.predict([row["text"] for row in rows])]
    table = [[[int(name in one) for name in task.labels] for one in told] for told in (map_right(rows), found)]
    scores = task.score(examples)
    assert len(examples) > 20
    assert 0 < scores["micro_f1"] < 1
    assert scores["micro_f1"] == pytest.approx(metrics.f1_score(*table, average="micro"))
    assert scores["precision"] == pytest.approx(metrics.precision_score(*table, average="micro"))
    assert scores["recall"] == pytest.approx(metrics.recall_score(*table, average="micro"))


@pytest.mark.parametrize(
    "kind", [name for name in TASKS if task_kind(name).base_kind == "encoder" and task_kind(name).answers]
)
def test_records_of_a_file_are_answered_in_order_by_what_is_asked_about_alone(small: Any, kind: str) -> None:
    told, task = task_kind(kind), small.task(kind, max_tokens=24)
    records = [small.record(kind, words) for words in (3, 1, 6)]
    found = list(_row_answers(task, records, told.asked, 2))
    assert len(found) == 3
    assert all(0 <= chance <= 1 + 1e-6 for answers in found for _, chance in answers)
    (alone,) = _row_answers(task, records[:1], told.asked, 2)
    assert [answer for answer, _ in alone] == [answer for answer, _ in found[0]]


def map_right(rows: list[dict[str, str]]) -> list[list[str]]:
    return [json.loads(row["labels"]) for row in rows]


@pytest.mark.parametrize(
    ("labels", "part"),
    [("[]", ""), ('["a", "b"]', ""), ('["c"]', "public list"), ('["a", "a"]', "twice"), ("[1]", "public list")],
)
def test_labels_that_are_none_say_why(labels: str, part: str) -> None:
    found = fault({"text": "secret", "labels": labels}, ("a", "b"))
    assert part in found
    assert bool(found) is bool(part)
