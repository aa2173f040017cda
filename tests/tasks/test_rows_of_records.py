"""A record of several rows is one record: in its loss, its gradient, its score, and in what a person may add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.closed_form import site_sums
from client.gradients import PrivateGradient
from client.plain_gradient import PlainGradient
from client.step import loss_of
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.units import Units
from llmchain_fl.core.tasks.base import Examples, joined
from llmchain_fl.core.tasks.kind import TASKS, task_kind
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.tasks.random_features import RandomFeatures

WORDS = (1, 40, 9, 100, 23)
"""Words of the records here: in windows of 16 tokens, at most 3 of them, some have one row and some lose their end."""
KINDS = [*TASKS, "translation of t5", "summarisation of bart"]


@pytest.fixture(params=KINDS)
def told(request: Any, small: Any) -> Any:
    """(kind, task, its records in rows)."""
    kind, _, shape = request.param.partition(" of ")
    path = {"path": str(small.shape(shape))} if shape else {}
    task = small.task(kind, windows=3, trained=("lora_B",), **path)
    return kind, task, task.encode([small.record(kind, words) for words in WORDS])


def no_guards() -> SiteGuards:
    return SiteGuards((), {})


def gradient(task: Any, examples: Examples, records: Sequence[int], micro: int = 4) -> torch.Tensor:
    found = PlainGradient(task.resident, examples, micro)
    rows = [examples.rows_of([record]) for record in records]
    return found(rows, loss_of(task, examples, no_guards()))


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()) + 1e-7)


# -- rows --------------------------------------------------------------------------------------------------------------


def test_every_record_has_between_one_row_and_the_most_and_its_weights_are_positive(told: Any) -> None:
    _, _, examples = told
    counts = [len(examples.rows_of([record])) for record in range(len(WORDS))]
    assert examples.records == len(WORDS)
    assert sum(counts) == len(examples)
    assert min(counts) == 1
    assert max(counts) <= 3
    assert all(examples.length(row) <= 16 for row in range(len(examples)))
    assert examples.weights is None or examples.weights.min() > 0


def test_the_rows_of_a_record_do_not_depend_on_the_other_records(told: Any, small: Any) -> None:
    kind, task, examples = told
    for record, words in enumerate(WORDS):
        alone, rows = task.encode([small.record(kind, words)]), examples.rows_of([record])
        assert [ids.tolist() for ids in alone.ids] == [examples.ids[row].tolist() for row in rows]
        assert alone.targets.tolist() == examples.targets[rows].tolist()
        assert [note.tolist() for note in alone.notes] == [
            examples.notes[row].tolist() for row in rows if examples.notes
        ]


def test_a_row_has_the_same_loss_alone_among_others_and_in_fixed_shapes(told: Any) -> None:
    _, task, examples = told
    everything = list(range(len(examples)))
    with torch.no_grad():
        together = task.losses(task.forward(examples, everything))
        alone = torch.cat([task.losses(task.forward(examples, [row])) for row in everything])
        turned = task.losses(task.forward(examples, everything[::-1])).flip(0)
        examples.fix(Shape(2, 16))
        fixed = torch.cat([task.losses(task.forward(examples, [row, row]))[:1] for row in everything])
    assert together.isfinite().all()
    for other in (alone, turned, fixed):
        assert torch.allclose(together, other, atol=1e-3)


def test_of_a_record_that_is_empty_or_has_one_word_the_loss_is_finite(told: Any) -> None:
    kind, task, _ = told
    examples = task.encode([task_kind(kind).made_up_row(words, "rates") for words in ("", "card", "\u200b")])
    assert examples.records == 3
    assert task.losses(task.forward(examples, range(len(examples)))).isfinite().all()


def test_what_is_cut_is_counted(small: Any, told: Any) -> None:
    kind, task, examples = told
    assert 1 <= examples.cut < len(WORDS)
    assert task.encode([small.record(kind, 2)]).cut == 0


# -- losses and gradients ----------------------------------------------------------------------------------------------


def test_a_records_gradient_is_that_of_its_weighted_rows_in_any_split_into_passes(told: Any) -> None:
    _, task, examples = told
    whole = gradient(task, examples, range(len(WORDS)), micro=100)
    assert whole.abs().max() > 0
    for micro in (1, 2):
        assert close(gradient(task, examples, range(len(WORDS)), micro), whole)
    assert close(sum(gradient(task, examples, [record]) for record in range(len(WORDS))), whole)


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_what_a_person_adds_is_the_clipped_sum_over_all_rows_of_all_own_records(
    told: Any, small: Any, clip: float
) -> None:
    """One person with the longest records, beside another: as autograd of the records' whole loss, clipped once."""
    _, task, examples = told
    expected = torch.zeros_like(task.resident.trained)
    for person in ([1, 3], [0, 2, 4]):
        own = gradient(task, examples, person)
        expected += own * min(1.0, clip / float(own.norm()))
    examples.fix(Shape(3, 16))
    plan = small.plan(unit="person", records_per_unit=8, clip_norm=clip, noise_multiplier=0.0)
    private = PrivateGradient(task.resident, examples, plan, SecureNoise())
    try:
        batch = [examples.rows_of(person) for person in ([1, 3], [0, 2, 4])]
        found = private(batch, loss_of(task, examples, no_guards()))
    finally:
        private.close()
    assert torch.allclose(found, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))


def test_with_the_adapter_off_every_row_is_the_bases(told: Any) -> None:
    """Delta W = 0 whatever the other factor is: the logits follow the head alone."""
    _, task, examples = told
    resident = task.resident
    resident.load({name: np.zeros_like(value) for name, value in resident.arrays().items() if "lora_B" in name})
    first = task.forward(examples, [0, 1]).logits.detach().clone()
    resident.load({name: value + 1 for name, value in resident.arrays().items() if "lora_A" in name})
    assert torch.equal(task.forward(examples, [0, 1]).logits, first)


def test_scores_are_one_a_record_and_the_same_in_any_order(told: Any, small: Any) -> None:
    kind, task, examples = told
    found = task.record_scores(examples)
    turned = task.record_scores(task.encode([small.record(kind, words) for words in WORDS[::-1]]))
    assert found.shape == (len(WORDS),)
    assert np.allclose(found, turned[::-1], atol=1e-3)
    assert all(math.isfinite(value) for value in task.score(examples).values())
    if task.metrics[0].unit == "share":
        assert ((found >= 0) & (found <= task.metrics[0].bound)).all()


# -- by another road ---------------------------------------------------------------------------------------------------


def test_the_loss_of_a_long_text_is_the_mean_over_all_of_its_tokens(small: Any) -> None:
    task = small.task("plain-text", windows=9)
    row = small.record("plain-text", 60)
    examples = task.encode([row])
    tokenizer = task.resident.base.tokenizer
    tokens = [*tokenizer(row["text"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    own = [examples.ids[k][int(size) :].tolist() for k, size in enumerate(examples.targets)]
    assert [token for part in own for token in part] == tokens
    with torch.no_grad():
        losses = task.losses(task.forward(examples, range(len(own)))).numpy()
    sizes = np.array([len(part) for part in own])
    expected = float((losses * sizes).sum() / sizes.sum())
    assert task.record_scores(examples)[0] == pytest.approx(expected, rel=1e-5)
    assert task.score(examples)["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_answer_for_a_long_text_is_the_mean_over_its_windows(small: Any) -> None:
    task = small.task(windows=9)
    row = small.record("classification", 60)
    examples = task.encode([row])
    assert [len(ids) for ids in examples.ids] == [16, 16, 16, 16, 6]
    assert task.encode([row, row]).owner.tolist() == [0] * 5 + [1] * 5
    with torch.no_grad():
        logs = torch.log_softmax(task.forward(examples, range(5)).logits.double(), dim=-1).mean(dim=0)
    (((best, chance),),) = task.predict([row["text"]], top=1)
    assert best == task.labels[int(logs.argmax())]
    assert chance == pytest.approx(float((logs.exp() / logs.exp().sum()).max()), rel=1e-4)
    right = task.labels[int(logs.argmax())] == row["label"]
    assert task.score(examples)["accuracy"] == float(right)
    assert task.score(examples)["loss"] == pytest.approx(-float(logs[task.labels.index(row["label"])]), rel=1e-4)


def test_a_head_in_closed_form_sees_one_vector_a_record_the_mean_over_its_windows(small: Any) -> None:
    task = small.task(windows=3, head="trained")
    records = [small.record("classification", words) for words in WORDS]
    examples, features = task.encode(records), RandomFeatures(32)
    sums = site_sums(task, examples, 4, features)
    cross = np.zeros((32, 4))
    for record in records:
        rows = task.encode([record])
        vector = task.vectors(rows, range(len(rows))).detach().double().mean(dim=0).numpy()
        cross[:, task.labels.index(record["label"])] += vector
    assert sums["counts"].sum() == len(WORDS)
    assert np.allclose(sums["cross"], cross, atol=1e-4)


def test_units_are_of_records_and_a_batch_names_all_of_their_rows(small: Any) -> None:
    task = small.task(windows=3)
    examples = task.encode([small.record("classification", words) for words in WORDS])
    units = Units.of_people(["ann", "bob", "ann", "bob", "eve"])
    rows = [examples.rows_of(unit).tolist() for unit in units.members]
    assert sorted(row for unit in rows for row in unit) == list(range(len(examples)))
    assert [{int(examples.owner[row]) for row in unit} for unit in rows] == [{0, 2}, {1, 3}, {4}]


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=4), st.integers(0, 99))
def test_joining_keeps_every_record_with_its_rows(parts: list[list[int]], seed: int) -> None:
    draw = np.random.default_rng(seed)
    whole = []
    for counts in parts:
        rows = [draw.integers(0, 9, size=3) for _ in range(sum(counts))]
        owner = np.repeat(np.arange(len(counts)), counts)
        weights = draw.random(len(rows)).astype(np.float32)
        whole.append(Examples(rows, np.arange(len(rows)), owner=owner, weights=weights))
    values = draw.random(sum(map(len, whole)))
    together, expected, start = joined(whole), list[float](), 0
    for one in whole:
        here = values[start : start + len(one)]
        expected += [float(sum(one.weights[r] * here[r] for r in one.rows_of([k]))) for k in range(one.records)]
        start += len(one)
    assert together.records == len(expected)
    assert together.by_record(values) == pytest.approx(expected, rel=1e-5)
