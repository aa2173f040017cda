"""Questions over a tiny model: every window holds the whole question, and an answer is found again where it stands."""

from __future__ import annotations

import json
import random
import re
import string
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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


# -- questions without an answer ---------------------------------------------------------------------------------------


NONE = {"answers": "[]", "answer_start": "[]"}


@pytest.fixture
def doubting(small: Any) -> Any:
    return small.task("span-qa-or-none", windows=16, max_tokens=24)


@contextmanager
def logits_of(task: Any, drawn: Any) -> Iterator[None]:
    """The head gives ``drawn[row]``, [2, T]."""

    def forward(one: Any, index: Any) -> Any:
        output = real(one, index)
        logits = torch.full_like(output.logits, -1e4)
        for place, row in enumerate(index):
            logits[place, :, : one.length(row)] = torch.from_numpy(drawn[row])
        return type(output)(logits, output.targets)

    real, task.forward = task.forward, forward
    try:
        yield
    finally:
        task.forward = real


def test_all_rows_of_a_question_without_an_answer_point_at_their_first_token(small: Any, doubting: Any) -> None:
    examples = doubting.encode([asked(small, 60, 3, 2), asked(small, 60, 3, 2) | NONE])
    with_answer, without = ([examples.notes[row].tolist() for row in examples.rows_of([k])] for k in (0, 1))
    assert len(without) == len(with_answer) > 2
    assert without == [[0, 0]] * len(without) != with_answer
    targets = doubting.forward(examples, examples.rows_of([1]).tolist()).targets
    assert targets.tolist() == without


@pytest.mark.parametrize("kind", ["span-qa", "span-qa-or-none"])
def test_none_is_the_answer_where_the_least_null_score_is_above_every_piece(small: Any, kind: str) -> None:
    """Against a plain loop over all rows and tokens, as run_squad of BERT decides for SQuAD 2."""
    task = small.task(kind, windows=16, max_tokens=24)
    rows = [asked(small, words, 0, 1, seed=words) for words in (1, 5, 33, 60, 61, 62, 63, 64)]
    examples, draw = task.encode(rows), np.random.default_rng(4)
    drawn = [draw.normal(size=(2, len(ids))) for ids in examples.ids]
    for one in drawn:
        one[:, 0] += 2.2
    expected = []
    for record, row in enumerate(rows):
        null, best, text = np.inf, -np.inf, ""
        for number in examples.rows_of([record]):
            (s, e), places = drawn[number], examples.offsets[number]
            null = min(null, s[0] + e[0])
            for i in range(len(s)):
                for j in range(i, len(s)):
                    if places[i, 0] >= 0 and places[j, 0] >= 0 and s[i] + e[j] > best:
                        best, text = s[i] + e[j], row["context"][places[i, 0] : places[j, 1]]
        expected.append("" if null > best and kind == "span-qa-or-none" else text)
    with logits_of(task, drawn):
        assert task.found(examples) == expected
        given = task.answer(rows, 1)
    assert [answer for ((answer, _),) in given] == expected
    assert 0 < sum(not answer for answer in expected) < len(rows) or kind == "span-qa"


def test_a_null_score_as_large_as_the_best_piece_gives_the_piece(small: Any, doubting: Any) -> None:
    rows = [asked(small, 5, 1, 1)]
    with logits_of(doubting, [np.zeros((2, len(ids))) for ids in doubting.encode(rows).ids]):
        (found,) = doubting.answer(rows, 100)
    assert found[0][0] != ""
    assert found[-1][0] == ""


def test_the_chance_of_a_piece_is_its_share_of_all_tokens_the_first_one_too(small: Any, doubting: Any) -> None:
    rows = [asked(small, 5, 1, 1)]
    ((length,), _) = doubting.encode(rows).ids[0].shape, None
    logits = np.random.default_rng(1).normal(size=(2, length))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    with logits_of(doubting, [logits]):
        (place, *_), *_ = doubting.places(doubting.encode(rows))
        found = dict(doubting.answer(rows, 100)[0])
    _, _, first, last, chance = place
    assert chance == pytest.approx(shares[0, first] * shares[1, last], rel=1e-5)
    assert found[""] == pytest.approx(shares[0, 0] * shares[1, 0], rel=1e-5)


def squad2(found: str, gold: list[str]) -> tuple[float, float]:
    """(exact, F1) of SQuAD's evaluate-v2.0.py, written down again."""

    def plain(text: str) -> list[str]:
        text = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    def f1(one: list[str], other: list[str]) -> float:
        if not one or not other:
            return float(one == other)
        same = sum((Counter(one) & Counter(other)).values())
        return 2 * same / (len(one) + len(other))

    right = [plain(one) for one in gold if plain(one)] or [[]]
    return float(plain(found) in right), max(f1(plain(found), one) for one in right)


@pytest.mark.parametrize("gold", [[], ["card"], ["card lost", "lost"], ["--"], ["--", "card"]])
def test_scores_of_a_set_with_and_without_answers_are_squad_2s(small: Any, doubting: Any, gold: list[str]) -> None:
    one = {"question": "why", "context": "card lost -- the", "answers": json.dumps(gold), "answer_start": "[]"}
    examples = doubting.encode([one] * 4 if not gold else [one | {"answer_start": json.dumps([0] * len(gold))}] * 4)
    said = ["", "card", "lost card", "the"]
    doubting.found = lambda *_: said
    told = [squad2(text, gold) for text in said]
    score = doubting.score(examples)
    assert score["exact_match"] == pytest.approx(np.mean([em for em, _ in told]))
    assert score["token_f1"] == pytest.approx(np.mean([f1 for _, f1 in told]))
    assert doubting.record_scores(examples).tolist() == pytest.approx([f1 for _, f1 in told])
    doubting.found = lambda *_: [None] * 4
    assert doubting.score(examples)["exact_match"] == 0.0, "what was not computed is no silence"


def test_a_loss_is_half_of_both_cross_entropies(small: Any, task: Any) -> None:
    examples = task.encode([asked(small, 8, 2, 3)])
    output = task.forward(examples, [0])
    logs = torch.log_softmax(output.logits[0, :, : examples.length(0)].double(), dim=-1)
    start, end = examples.notes[0]
    assert start > 0
    assert float(task.losses(output)[0]) == pytest.approx(-float(logs[0, start] + logs[1, end]) / 2, rel=1e-4)
    assert np.isclose(task.score(examples)["loss"], float(task.losses(output)[0]), rtol=1e-5)
