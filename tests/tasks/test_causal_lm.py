from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.passes import Shape


def tokens(task: Any, text: str) -> list[int]:
    """Token ids without the beginning of a text."""
    return task.resident.base.tokenizer(text, add_special_tokens=False)["input_ids"]


def answer_losses(task: Any, prompt: list[int], answer: list[int]) -> list[float]:
    """-log p of each answer token given all before it, of this record alone and without padding."""
    with torch.no_grad():
        logits = task.resident.base.module(input_ids=torch.tensor([prompt + answer])).logits[0].double()
    before = logits[len(prompt) - 1 :]
    return [float(torch.logsumexp(row, dim=0) - row[token]) for row, token in zip(before, answer, strict=False)]


def hand(task: Any, row: dict[str, str]) -> tuple[list[int], list[int]]:
    """(<s> prompt, answer </s>) as ids."""
    return [1, *tokens(task, row["prompt"])], [*tokens(task, row["answer"]), 2]


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_a_loss_counts_only_answer_tokens_and_equals_a_hand_computation(small: Any, cache_mb: int) -> None:
    task, rows = small.task("causal-lm", last_layers=2, cache_mb=cache_mb, max_tokens=32), small.rows(6, "causal-lm")
    losses = task.losses(task.forward(task.encode(rows), range(6)))
    expected = [float(np.mean(answer_losses(task, *hand(task, row)))) for row in rows]
    assert losses.tolist() == pytest.approx(expected, abs=1e-4)


def test_the_prompt_itself_is_not_learned(small: Any) -> None:
    """The weight is 1 on the answer and its end, 0 elsewhere; by length answers alone are computed."""
    task = small.task("causal-lm")
    examples = task.encode([{"prompt": "my card", "answer": "lost it now"}, {"prompt": "why", "answer": "fee"}])
    by_length = task.forward(examples, [0, 1])
    assert by_length.weight.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    examples.fix(Shape(2, 7))
    fixed = task.forward(examples, [0, 1])
    assert fixed.weight.tolist() == [[0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0]]
    for output in (by_length, fixed):
        assert output.logits.shape[:2] == output.targets.shape == output.weight.shape


@pytest.mark.parametrize("cache_mb", [0, 16])
@pytest.mark.parametrize("kind", ["causal-lm", "plain-text", "dialogue", "summarisation"])
def test_answers_alone_give_the_losses_and_gradients_of_whole_rows(kind: str, cache_mb: int, small: Any) -> None:
    """Also where outputs of frozen layers are kept, at the first pass and at the next."""
    task = small.task(kind, last_layers=1 if cache_mb else 0, cache_mb=cache_mb)
    resident = task.resident
    rows = [task_kind(kind).made_up_row(words, "") for words in ("my card", "lost my card was", "fee")]
    results = []
    for shape in (None, Shape(3, 16)):
        examples = task.encode(rows)
        examples.fix(shape)
        for index in ([0, 1, 2], [2, 0, 1]):
            losses = task.losses(task.forward(examples, index))
            trained = [resident.parameters[name] for name in resident.trained_names]
            gradient = torch.cat([part.flatten() for part in torch.autograd.grad(losses.sum(), trained)])
            results.append((losses.detach()[np.argsort(index)], gradient))
    for losses, gradient in results[1:]:
        assert torch.allclose(losses, results[0][0], atol=1e-6)
        assert torch.allclose(gradient, results[0][1], atol=2e-5)


def test_plain_text_is_learned_from_its_first_token(small: Any) -> None:
    task, row = small.task("plain-text"), {"text": "my card was stolen"}
    losses = task.losses(task.forward(task.encode([row]), [0])).detach()
    assert float(losses) == pytest.approx(
        float(np.mean(answer_losses(task, [1], [*tokens(task, row["text"]), 2]))), abs=1e-4
    )


@pytest.mark.parametrize("settings", [{}, {"last_layers": 1, "cache_mb": 64}])
def test_a_loss_does_not_depend_on_the_other_records_or_on_padding(small: Any, settings: dict[str, Any]) -> None:
    task, rows = small.task("causal-lm", **settings), small.rows(10, "causal-lm")
    examples = task.encode(rows)
    alone = torch.cat([task.losses(task.forward(task.encode([row]), [0])) for row in rows])
    assert len({examples.length(i) for i in range(10)}) > 3
    assert torch.allclose(task.losses(task.forward(examples, range(10))), alone, atol=1e-5)
    assert torch.allclose(task.losses(task.forward(examples, [7, 2, 9])), alone[[7, 2, 9]], atol=1e-5)


@pytest.mark.parametrize(("prompt", "answer"), [(30, 2), (2, 30), (30, 30), (1, 1)])
def test_a_text_that_is_too_long_keeps_the_answer_and_the_end_of_the_prompt(
    small: Any, prompt: int, answer: int
) -> None:
    task, limit = small.task("causal-lm", max_tokens=12), 12
    words = [small.words[i % len(small.words)] for i in range(60)]
    row = {"prompt": " ".join(words[:prompt]), "answer": " ".join(words[prompt : prompt + answer])}
    examples = task.encode([row])
    head, tail = hand(task, row)
    kept, size = examples.ids[0].tolist(), int(examples.targets[0])
    assert len(kept) <= limit
    assert size >= 1
    assert kept[:size] == head[-size:]
    assert kept[size:-1] == tail[: len(kept) - size - 1]
    assert kept[-1] == 2
    if prompt + answer > limit:
        assert len(kept) == limit
    if answer < limit - 2:
        assert kept[size:] == tail


def test_a_cut_prompt_is_cut_alike_in_training_and_in_prediction(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small.task("causal-lm", max_tokens=6)
    text = " ".join(small.words[:20])
    seen: list[torch.Tensor] = []

    def generate(*, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        seen.append(input_ids)
        return input_ids

    monkeypatch.setattr(task.resident.base.module, "generate", generate)
    task.predict([text])
    assert seen[0][0].tolist() == tokens(task, text)[-6:]


def test_a_prediction_is_the_greedy_continuation(small: Any) -> None:
    task = small.task("causal-lm")
    ids, made = [1, *tokens(task, "my card")], []
    for _ in range(48):
        with torch.no_grad():
            made.append(int(task.resident.base.module(input_ids=torch.tensor([ids + made])).logits[0, -1].argmax()))
        if made[-1] == 2:
            break
    expected = task.resident.base.tokenizer.decode(made, skip_special_tokens=True).strip()
    assert task.predict(["my card"]) == [[(expected, 1.0)]]
    assert task.resident.module.training


def test_a_score_equals_a_plain_loop_over_all_answer_tokens(small: Any) -> None:
    task, rows = small.task("causal-lm", max_tokens=32), small.rows(7, "causal-lm")
    every = [loss for row in rows for loss in answer_losses(task, *hand(task, row))]
    for batch in (1, 3, 32):
        found = task.score(task.encode(rows), batch)
        assert found["loss"] == pytest.approx(np.mean(every), abs=1e-4)
        assert found["perplexity"] == pytest.approx(math.exp(np.mean(every)), rel=1e-3)
    assert task.metrics[0].name in found


def test_a_perplexity_stays_finite(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small.task("causal-lm")
    monkeypatch.setattr(task, "losses", lambda output: torch.full((len(output.targets),), 1e6))
    assert math.isfinite(task.score(task.encode(small.rows(2, "causal-lm")))["perplexity"])


def test_a_divergence_is_the_mean_over_answer_tokens_by_hand(small: Any) -> None:
    task, rows = small.task("causal-lm"), small.rows(3, "causal-lm")
    examples = task.encode(rows)
    student = task.forward(examples, range(3))
    with torch.no_grad(), task.resident.swapped(torch.zeros_like(task.resident.theta)):
        teacher = task.forward(examples, range(3))
    found = task.divergence(student, teacher, 2.0)
    for row in range(3):
        parts = []
        for place in range(student.weight.shape[1]):
            if student.weight[row, place]:
                p, q = (
                    torch.softmax(output.logits[row, place].detach().double() / 2.0, dim=0)
                    for output in (teacher, student)
                )
                parts.append(float((p * (p.log() - q.log())).sum()))
        assert found[row].item() == pytest.approx(4.0 * np.mean(parts), rel=1e-3)
        assert found[row].item() > 1e-3


def test_a_prompt_with_braces_is_taken_as_it_is(small: Any) -> None:
    task = small.task("causal-lm")
    row = {"prompt": "{prompt} {0} {", "answer": "card"}
    assert int(task.encode([row]).targets[0]) == len(hand(task, row)[0])
