"""Questions over a tiny model: every window holds the whole question, and an answer is found again where it stands."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.tasks.passes import Shape


def asked(small: Any, words: int, first: int, length: int, seed: int = 1) -> dict[str, str]:
    draw = random.Random(f"{seed}/{words}")
    told = draw.choices(small.words, k=words)
    start = len(" ".join([*told[:first], ""]))
    answer = " ".join(told[first : first + length])
    return {
        "question": "why lost",
        "context": " ".join(told),
        "answers": json.dumps([answer]),
        "answer_start": json.dumps([start]),
    }


@pytest.fixture
def task(small: Any) -> Any:
    return small.task("span-qa", windows=16, max_tokens=24)


def test_the_answers_tokens_are_told_in_the_windows_that_hold_all_of_it(small: Any, task: Any) -> None:
    tokenizer = task.resident.base.tokenizer
    for first, length in ((0, 1), (3, 2), (17, 4), (30, 5), (59, 1)):
        row = asked(small, 60, first, length)
        examples = task.encode([row])
        (answer,) = json.loads(row["answers"])
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        held = [examples.ids[k][note[0] : note[1] + 1].tolist() for k, note in enumerate(examples.notes) if note.any()]
        assert held
        assert all(found == ids for found in held)
        assert len(examples) > len(held)


def test_every_window_has_the_whole_question_and_windows_together_the_whole_text(small: Any, task: Any) -> None:
    row = asked(small, 60, 3, 1)
    examples = task.encode([row])
    question = task.resident.base.tokenizer(row["question"], add_special_tokens=False)["input_ids"]
    covered = set()
    for ids, places in zip(examples.ids, examples.offsets, strict=True):
        assert str(question)[1:-1] in str(ids.tolist())
        assert len(ids) <= 24
        covered |= {int(start) for start, _ in places if start >= 0}
    assert len(covered) == 60
    assert examples.cut == 0


def test_a_text_beyond_the_windows_and_a_long_question_are_counted_as_cut(small: Any) -> None:
    task = small.task("span-qa", windows=2, max_tokens=24)
    long = asked(small, 60, 50, 2)
    examples = task.encode([asked(small, 5, 1, 1), long, {**asked(small, 5, 1, 1), "question": "why " * 20}])
    assert examples.cut == 2
    assert not any(examples.notes[row].any() for row in examples.rows_of([1]))  # its answer is beyond
    assert all(len(ids) <= 24 for ids in examples.ids)


def test_what_the_head_points_at_is_the_answer_whatever_window_it_stands_in(small: Any, task: Any) -> None:
    """A head that knows the right tokens: every answer is found again, and all scores are perfect."""
    rows = [asked(small, 60, first, 2, seed=first) for first in (0, 9, 33, 58)]
    examples = task.encode(rows)

    def forward(one: Any, index: Any) -> Any:
        output = real(one, index)
        logits = torch.full_like(output.logits, -9.0)
        for place, row in enumerate(index):
            start, end = one.notes[row]
            if start or end:
                logits[place, 0, start] = logits[place, 1, end] = 9.0
        return type(output)(logits, output.targets)

    real, task.forward = task.forward, forward
    try:
        assert task.found(examples) == [json.loads(row["answers"])[0] for row in rows]
        assert task.record_scores(examples).tolist() == [1.0] * 4
        examples.fix(Shape(2, 24))
        assert task.score(examples)["exact_match"] == 1.0
        ((answer, chance),) = task.answer(rows[:1])[0]
    finally:
        task.forward = real
    assert answer == json.loads(rows[0]["answers"])[0]
    assert chance > 0.9


def test_answers_are_pieces_of_their_text_best_first(small: Any, task: Any) -> None:
    rows = [asked(small, words, 0, 1) for words in (1, 12, 60)]
    for row, found in zip(
        rows, task.answer([{k: row[k] for k in ("question", "context")} for row in rows], 3), strict=True
    ):
        assert 1 <= len(found) <= 3
        assert all(answer in row["context"] for answer, _ in found)
        assert len({answer for answer, _ in found}) == len(found)


def test_a_question_without_a_text_and_rows_too_short_for_both_are_refused(small: Any, task: Any) -> None:
    with pytest.raises(ConfigError, match="context"):
        task.predict(["why"])
    with pytest.raises(ConfigError, match="max_tokens"):
        small.task("span-qa", max_tokens=12)


def test_a_loss_is_half_of_both_cross_entropies(small: Any, task: Any) -> None:
    examples = task.encode([asked(small, 8, 2, 3)])
    output = task.forward(examples, [0])
    logs = torch.log_softmax(output.logits[0, :, : examples.length(0)].double(), dim=-1)
    start, end = examples.notes[0]
    assert start > 0
    assert float(task.losses(output)[0]) == pytest.approx(-float(logs[0, start] + logs[1, end]) / 2, rel=1e-4)
    assert np.isclose(task.score(examples)["loss"], float(task.losses(output)[0]), rtol=1e-5)
