"""Summaries and translations: losses beside Hugging Face's own, gradients beside autograd's, by every kind of base."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU, CHRF

from client.gradients import PrivateGradient
from client.layouts import Layouts
from client.local import train_round
from client.per_sample import PerSample
from client.steady import shape_for
from client.step import loss_of
from client.trial import try_out
from llmchain_fl.core.base_model import layer_stacks
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.work import open_work

PAIRS = ("t5", "bart", pytest.param("marian", marks=pytest.mark.thorough))
ROWS = [
    {"source": "card lost", "target": "why pin fee"},
    {"source": "loan rate money swap new open", "target": "pay"},
    {"source": "bank", "target": "balance cash left limit loan lost money new"},
]


@pytest.fixture(scope="module", params=PAIRS)
def base(request: Any, small: Any) -> str:
    """Of a module, so that the tests of one base follow each other and it is read once."""
    return str(small.shape(request.param))


@pytest.fixture
def task(base: str, small: Any) -> Any:
    return small.task("translation", path=base, max_tokens=32, moved=0.1)


def by_labels(task: Any, row: dict[str, str]) -> torch.Tensor:
    """Hugging Face's own loss of one record: the mean over its labels, shifted by the model itself."""
    tokenizer, model = task.resident.base.tokenizer, task.resident.base.module
    read = tokenizer(row["source"], return_tensors="pt")
    labels = tokenizer(text_target=row["target"], return_tensors="pt")["input_ids"]
    found: torch.Tensor = model(**{k: read[k] for k in ("input_ids", "attention_mask")}, labels=labels).loss
    return found


def test_the_loss_of_a_record_is_what_the_model_says_itself_with_labels(task: Any) -> None:
    examples = task.encode(ROWS)
    expected = [float(by_labels(task, row).detach()) for row in ROWS]
    with torch.no_grad():
        assert task.losses(task.forward(examples, range(3))).tolist() == pytest.approx(expected, abs=1e-4)
        examples.fix(Shape(3, 32))
        assert task.losses(task.forward(examples, range(3))).tolist() == pytest.approx(expected, abs=1e-4)
    assert examples.cut == 0


def test_gradients_of_each_record_are_those_of_its_own_loss_in_both_stacks(task: Any) -> None:
    """Position biases shared over layers and cross attention included: autograd over the model's own loss."""
    resident, examples = task.resident, task.encode(ROWS)
    examples.fix(Shape(3, 32))
    rows = PerSample(resident, 3)
    try:
        found = rows.rows(3, lambda: task.losses(task.forward(examples, range(3))).sum().backward()).clone()
    finally:
        rows.close()
    parameters = [resident.parameters[name] for name in resident.trained_names]
    for record, row in enumerate(ROWS):
        parts = torch.autograd.grad(by_labels(task, row), parameters)
        whole = torch.cat([part.reshape(-1) for part in parts])
        assert torch.allclose(found[record], whole, rtol=2e-3, atol=2e-3 * float(whole.abs().max()))
    stacks = {name.split(".lora")[0] for name in resident.trained_names}
    for part in ("encoder", "decoder"):
        moved = [n for n in resident.trained_names if part in n and found[:, rows.slices[n]].abs().max() > 0]
        assert moved, stacks
    assert any(("EncDecAttention" in n or "encoder_attn" in n) for n in resident.trained_names)


def test_last_layers_are_those_of_each_stack(small: Any, task: Any) -> None:
    path = task.resident.spec.base.path
    depths = [len(stack) for _, stack in layer_stacks(task.resident.base.module)]
    last = small.task("translation", path=path, last_layers=1).resident
    names = [name for name, _ in layer_stacks(last.base.module)]
    assert {name.rsplit(".lora", 1)[0].removeprefix(f"{stack}.").split(".")[0]
            for stack in names for name in last.trained_names if name.startswith(f"{stack}.")} == {
        str(depth - 1) for depth in depths
    }  # fmt: skip
    assert last.prefix is None
    with pytest.raises(ModelError, match=f"the model has {min(depths)} layers"):
        small.task("translation", path=path, last_layers=min(depths) + 1)


def test_a_private_step_on_made_up_records_is_taken_before_anybody_pays(small: Any, task: Any) -> None:
    from dataclasses import replace

    from llmchain_fl.core.messages import TrainTask

    work = small.work("translation", path=task.resident.spec.base.path, max_tokens=32)
    work = replace(work, plan=small.plan(work))
    assert task.resident.spec == work.resident
    shape = shape_for(task.resident, task, 32, 2)
    arrays = task.resident.arrays()
    try_out(TrainTask("run", 1, 0, "pairs", 0.01, work.to_json(), arrays), work, task, {}, shape, train_round)
    assert shape.rows == 2


def test_what_each_record_adds_is_clipped_whole(small: Any, task: Any) -> None:
    examples = task.encode(ROWS)
    examples.fix(Shape(2, 32))
    loss = loss_of(task, examples, SiteGuards((), {}))
    sums = []
    for units in ([[0, 2]], [[0, 2], [1]], [[1]]):
        private = PrivateGradient(
            task.resident, examples, small.plan(unit="person", clip_norm=0.01, noise_multiplier=0.0), SecureNoise()
        )
        try:
            sums.append(private([np.array(unit) for unit in units], loss))
        finally:
            private.close()
    assert float(sums[0].norm()) == pytest.approx(0.01, rel=1e-4)
    assert torch.allclose(sums[1], sums[0] + sums[2], atol=1e-6)


@pytest.mark.parametrize("path", ["", "t5"])
def test_scores_are_those_of_sacrebleu_over_what_is_written(small: Any, path: str) -> None:
    where = {"path": str(small.shape(path))} if path else {}
    task = small.task("translation", max_tokens=48, **where)
    examples = task.encode(ROWS)
    written = [answers[0][0] for answers in task.predict([row["source"] for row in ROWS])]
    right = [row["target"] for row in ROWS]
    single = [CHRF().sentence_score(one, [other]).score / 100 for one, other in zip(written, right, strict=True)]
    found = task.score(examples)
    assert task.record_scores(examples).tolist() == pytest.approx(single, abs=1e-9)
    assert found["chrf"] == pytest.approx(np.mean(single), abs=1e-9)
    assert found["bleu"] == pytest.approx(BLEU().corpus_score(written, [right]).score / 100, abs=1e-9)
    assert found["loss"] > 0


def test_what_an_encoder_with_a_decoder_writes_is_its_greedy_answer(task: Any) -> None:
    tokenizer, model = task.resident.base.tokenizer, task.resident.base.module
    read = tokenizer("card lost", return_tensors="pt")
    said = [int(model.config.decoder_start_token_id)]
    while len(said) <= task.most and (len(said) == 1 or said[-1] != tokenizer.eos_token_id):
        with torch.no_grad():
            logits = model(input_ids=read["input_ids"], decoder_input_ids=torch.tensor([said])).logits
        said.append(int(logits[0, -1].argmax()))
    assert task.predict(["card lost"]) == [[(tokenizer.decode(said, skip_special_tokens=True).strip(), 1.0)]]


def test_a_decoder_learns_the_target_behind_instruction_and_source(small: Any) -> None:
    from dataclasses import replace

    work = small.work("translation", max_tokens=32)
    _, task = open_work(work.resident, replace(work.task, instruction="swap new"))
    examples = task.encode(ROWS[:1])
    tokenizer, size = task.resident.base.tokenizer, int(examples.targets[0])
    words = tokenizer.convert_ids_to_tokens(examples.ids[0].tolist())
    assert [word for word in words[:size] if word != "<unk>"] == ["swap", "new", "card", "lost"]
    assert words[size:] == ["why", "pin", "fee", "</s>"]
    assert examples.ids[0][:size].tolist() == task.opened("card lost").tolist()


@pytest.mark.parametrize("path", ["", "t5"])
@pytest.mark.parametrize(("source", "target"), [(60, 2), (2, 60), (60, 60), (1, 1)])
def test_a_pair_too_long_loses_ends_and_keeps_half_a_row_for_the_target(
    small: Any, path: str, source: int, target: int
) -> None:
    where = {"path": str(small.shape(path))} if path else {}
    task = small.task("translation", max_tokens=24, **where)
    examples = task.encode([{"source": "card " * source, "target": "fee " * target}])
    size, tokenizer = int(examples.targets[0]), task.resident.base.tokenizer
    words = tokenizer.convert_ids_to_tokens(examples.ids[0].tolist())
    assert examples.length(0) <= 24
    assert examples.cut == (source + target > 2)
    assert {word for word in words[size:] if word != "</s>"} == {"fee"}
    assert words[size:].count("fee") >= min(target, 12 - 1)
    assert "card" in words[:size]
    assert "fee" not in words[:size]


def test_an_encoder_alone_cannot_write(small: Any) -> None:
    work = small.work("summarisation", path=str(small.bert))
    with pytest.raises(ModelError, match="sees the words that follow"):
        open_work(work.resident, work.task)


def test_layouts_of_every_layer_are_autograds(small: Any, task: Any) -> None:
    from client.steady import known_ids, made_up_records

    examples = made_up_records(known_ids(task.resident), [9, 9, 9])
    examples.fix(Shape(3, 32))
    layouts = Layouts(task.resident, task.resident.state(), lambda i: task.losses(task.forward(examples, i)))
    layouts.check()
    assert layouts.find(3) == set()
