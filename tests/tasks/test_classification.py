from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llmchain_fl.core.base_model import load_base
from llmchain_fl.core.tasks.classification import cls_pool, mean_pool
from llmchain_fl.core.tasks.random_features import RandomFeatures


def vector_by_hand(task: Any, text: str) -> Tensor:
    """Mean token vector of one text, alone and without padding, by the present adapter. float32 [H], unit length."""
    ids = torch.tensor([task.resident.base.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        hidden = task.resident.base.module(input_ids=ids).last_hidden_state[0]
    mean = hidden.mean(dim=0)
    return mean / mean.norm()


def logits_by_hand(small: Any, task: Any, text: str) -> list[float]:
    """20 x cosine with each label's text; label vectors come from the base without its adapter."""
    theta = task.resident.theta.clone()
    task.resident.theta.zero_()
    labels = [vector_by_hand(task, words) for words in small.labels.values()]
    task.resident.theta.copy_(theta)
    own = vector_by_hand(task, text)
    return [20.0 * float(own @ label) for label in labels]


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_the_label_text_head_is_twenty_times_the_cosine(small: Any, cache_mb: int) -> None:
    task, rows = small.task(last_layers=2, cache_mb=cache_mb), small.rows(5)
    logits = task.forward(task.encode(rows), range(5)).logits
    expected = [logits_by_hand(small, task, row["text"]) for row in rows]
    assert torch.allclose(logits, torch.tensor(expected), atol=1e-3)
    assert logits.shape == (5, len(small.labels))


def test_label_vectors_do_not_follow_the_adapter(small: Any) -> None:
    first, second = small.task(moved=0.0), small.task(moved=0.5)
    assert torch.equal(first.label_vectors, second.label_vectors)
    assert torch.allclose(first.label_vectors.norm(dim=1), torch.ones(4))


def test_the_trained_head_begins_as_the_label_text_head(small: Any) -> None:
    rows = small.rows(6)
    frozen = small.task(moved=0.0)
    expected = frozen.forward(frozen.encode(rows), range(6)).logits
    task = small.task(moved=0.0, head="trained")
    task.resident.reset()
    assert torch.allclose(task.forward(task.encode(rows), range(6)).logits, expected, atol=1e-4)


def test_with_random_features_the_trained_head_begins_as_the_label_text_head_too(small: Any) -> None:
    rows = small.rows(6)
    frozen = small.task(moved=0.0)
    expected = frozen.forward(frozen.encode(rows), range(6)).logits
    task = small.task(moved=0.0, head="trained", features=40)
    task.resident.reset()
    assert task.resident.shapes["head.weight"] == (4, 32 + 40)
    assert torch.allclose(task.forward(task.encode(rows), range(6)).logits, expected, atol=1e-4)


def test_with_random_features_the_head_is_linear_in_both_parts(small: Any) -> None:
    task, rows = small.task(head="trained", features=40), small.rows(4)
    weight, bias = (task.resident.parameters[f"head.{name}"].detach().double() for name in ("weight", "bias"))
    across = torch.tensor(RandomFeatures(32, 40, 9).projection()).double()
    logits = task.forward(task.encode(rows), range(4)).logits
    for row, logit in zip(rows, logits, strict=True):
        x = vector_by_hand(task, row["text"]).double()
        f = torch.cat([x, torch.tensor([max(0.0, float(x @ across[:, j])) for j in range(40)]).double()])
        assert torch.allclose(logit.double(), 20.0 * (weight @ f) + bias, atol=1e-3)


def test_the_trained_head_is_linear_in_the_scaled_unit_vector(small: Any) -> None:
    task, rows = small.task(head="trained"), small.rows(4)
    weight, bias = (task.resident.parameters[f"head.{name}"].detach() for name in ("weight", "bias"))
    expected = torch.stack([20.0 * weight @ vector_by_hand(task, row["text"]) + bias for row in rows])
    assert bias.abs().min() > 0
    assert torch.allclose(task.forward(task.encode(rows), range(4)).logits, expected, atol=1e-3)


def test_a_loss_is_the_cross_entropy_of_its_own_record(small: Any) -> None:
    task, rows = small.task(), small.rows(6)
    losses = task.losses(task.forward(task.encode(rows), range(6))).tolist()
    for loss, row in zip(losses, rows, strict=True):
        logits = logits_by_hand(small, task, row["text"])
        chosen = logits[list(small.labels).index(row["label"])]
        assert loss == pytest.approx(math.log(sum(math.exp(z) for z in logits)) - chosen, abs=2e-3)


@pytest.mark.parametrize("settings", [{}, {"head": "trained"}, {"pooling": "cls"}, {"last_layers": 1, "cache_mb": 64}])
def test_a_loss_does_not_depend_on_the_other_records_or_on_padding(small: Any, settings: dict[str, Any]) -> None:
    task, rows = small.task(**settings), small.rows(10)
    examples = task.encode(rows)
    alone = torch.cat([task.losses(task.forward(task.encode([row]), [0])) for row in rows])
    together = task.losses(task.forward(examples, range(10)))
    shuffled = task.losses(task.forward(examples, [7, 2, 9]))
    assert len({examples.length(i) for i in range(10)}) > 3
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.allclose(shuffled, alone[[7, 2, 9]], atol=1e-4)


def test_a_divergence_is_that_of_two_softmaxes_by_hand(small: Any) -> None:
    task, rows, temperature = small.task(), small.rows(3), 2.5
    examples = task.encode(rows)
    student = task.forward(examples, range(3))
    with torch.no_grad(), task.resident.swapped(torch.zeros_like(task.resident.theta)):
        teacher = task.forward(examples, range(3))
    found = task.divergence(student, teacher, temperature)
    for row in range(3):
        p, q = ([math.exp(float(z) / temperature) for z in output.logits[row]] for output in (teacher, student))
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        expected = temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        assert expected > 1e-3
        assert found[row].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("batch", [1, 3, 128])
def test_a_score_equals_a_plain_loop(small: Any, batch: int) -> None:
    task, rows = small.task(), small.rows(11)
    right, loss = 0, 0.0
    for row in rows:
        logits, target = logits_by_hand(small, task, row["text"]), list(small.labels).index(row["label"])
        right += int(np.argmax(logits)) == target
        loss += math.log(sum(math.exp(z) for z in logits)) - logits[target]
    found = task.score(task.encode(rows), batch)
    assert 0 < right < 11
    assert found["accuracy"] == right / 11
    assert found["loss"] == pytest.approx(loss / 11, abs=2e-3)
    assert task.metrics[0].name in found


def test_long_texts_are_cut(small: Any) -> None:
    task = small.task(max_tokens=6)
    examples = task.encode([{"text": " ".join(["card"] * 50), "label": "rates"}])
    assert examples.length(0) == 6
    assert examples.tokens([0, 0]) == 12


def test_a_prediction_names_the_best_labels_with_their_probabilities(small: Any) -> None:
    task = small.task()
    texts = ["why", "lost card", "send money to my account"]
    found = task.predict(texts, top=2)
    for text, best in zip(texts, found, strict=True):
        logits = np.array(logits_by_hand(small, task, text))
        chances = np.exp(logits) / np.exp(logits).sum()
        order = np.argsort(-chances)[:2]
        assert [name for name, _ in best] == [list(small.labels)[i] for i in order]
        assert [p for _, p in best] == pytest.approx(list(chances[order]), abs=2e-3)


def test_a_prediction_never_names_more_labels_than_there_are(small: Any) -> None:
    assert [len(best) for best in small.task().predict(["card"], top=99)] == [4]


def test_nothing_to_predict_gives_nothing(small: Any) -> None:
    assert small.task().predict([]) == []


def test_an_empty_text_is_predicted_too(small: Any) -> None:
    assert len(small.task().predict([""], top=1)[0]) == 1


def test_a_mean_leaves_padding_out_and_cls_takes_the_first() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [99.0, 99.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert torch.equal(mean_pool(hidden, mask), torch.tensor([[2.0, 3.0]]))
    assert torch.equal(cls_pool(hidden, mask), torch.tensor([[1.0, 2.0]]))
    assert torch.equal(mean_pool(hidden, torch.zeros(1, 3)), torch.zeros(1, 2))


def test_a_task_leaves_the_adapter_as_it_was(small: Any) -> None:
    task = small.task()
    before = task.resident.theta.clone()
    task.score(task.encode(small.rows(3)))
    task.predict(["card"])
    task._embed_labels(["card"])
    assert torch.equal(task.resident.theta, before)
    assert load_base(small.base()) is task.resident.base
