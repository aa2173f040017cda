"""One token for each label: beside plain transformers, calibration, prompts that are cut, labels that begin alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client.gradients import PrivateGradient
from client.step import loss_of
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.guards.mask import restricted
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.label_words import FREE, LabelWords, build
from llmchain_fl.core.tasks.spec import StageLabels

ROWS = [
    {"text": "card lost why", "label": "lost_card"},
    {"text": "send money", "label": "transfer"},
    {"text": "rate", "label": "rates"},
    {"text": "new pin fee bank", "label": "other"},
]
FIRST = ["card", "send", "rate", "why"]
"""The first word of each label's text."""
ENDLESS = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def prompt(text: str) -> str:
    return f"User: Which label fits this text?\n{text}\nAssistant:"


def spec_of(small: Any, labels: dict[str, str] | None = None, **changes: Any) -> Any:
    told = {} if labels is None else {"labels": tuple(labels.items())}
    return replace(small.work("label-words").task, **told, **changes)


def other(small: Any, labels: dict[str, str] | None = None, **changes: Any) -> Any:
    """Another task over the same model."""
    return build(spec_of(small, labels, **changes), small.task("label-words").resident)


def words(task: Any, ids: np.ndarray) -> list[str]:
    return list(task.resident.base.tokenizer.convert_ids_to_tokens(ids.tolist()))


@pytest.fixture(scope="module")
def plain(small: Any) -> Any:
    """text -> what transformers alone says of the tokens of the labels behind its prompt, log chances [4]."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(small.llama).eval()
    tokenizer = AutoTokenizer.from_pretrained(small.llama)
    tokens = tokenizer.convert_tokens_to_ids(FIRST)

    def logs(text: str) -> torch.Tensor:
        ids = tokenizer(prompt(text), add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return F.log_softmax(model(input_ids=ids).logits[0, -1, tokens].double(), dim=-1)

    return logs


# -- beside plain transformers -----------------------------------------------------------------------------------------


def test_answers_are_those_of_transformers_over_the_tokens_of_the_labels_less_calibration(
    small: Any, plain: Any
) -> None:
    task = small.task("label-words", moved=0.0)
    assert task.resident.base.tokenizer.convert_ids_to_tokens(task.tokens.tolist()) == FIRST
    free = torch.stack([plain(text).exp() for text in FREE]).mean(dim=0).log()
    logs = torch.stack([F.log_softmax(plain(row["text"]) - free, dim=-1) for row in ROWS])
    found = task.predict([row["text"] for row in ROWS], top=4)
    assert [best[0][0] for best in found] == [task.labels[int(k)] for k in logs.argmax(dim=1)]
    for best, expected in zip(found, logs.exp(), strict=True):
        assert dict(best) == pytest.approx(dict(zip(task.labels, expected.tolist(), strict=True)), abs=1e-5)
    targets = torch.arange(4)
    scores = task.score(task.encode(ROWS))
    assert scores["accuracy"] == float((logs.argmax(dim=1) == targets).double().mean())
    assert scores["loss"] == pytest.approx(float(F.nll_loss(logs, targets)), abs=1e-5)


def test_calibration_is_of_the_frozen_base_whatever_the_adapter_is_when_the_task_is_opened(
    small: Any, plain: Any
) -> None:
    task = small.task("label-words")
    again = build(spec_of(small), task.resident)
    assert torch.equal(again.calibration, task.calibration)
    free = torch.stack([plain(text).exp() for text in FREE]).mean(dim=0).log()
    assert torch.allclose(F.log_softmax(task.calibration.double(), dim=0), free, atol=1e-5)


def test_the_average_text_without_content_gives_every_label_the_same_chance(small: Any) -> None:
    task = small.task("label-words", moved=0.0)
    examples = task.encode([{"text": text} for text in FREE])
    with torch.no_grad():
        bare = F.softmax(task.forward(examples, range(3)).logits + task.calibration, dim=-1).mean(dim=0)
    assert torch.allclose(bare / task.calibration.exp(), (bare / task.calibration.exp()).mean().expand(4), rtol=1e-4)


# -- what every classifier does ----------------------------------------------------------------------------------------


def test_it_declares_what_a_classifier_of_texts_declares_and_writes_nothing() -> None:
    one, other = task_kind("label-words"), task_kind("classification")
    assert (one.columns, one.metrics, one.answers, one.windows) == (other.columns, other.metrics, ("label",), 1)
    assert one.labelled
    assert not one.writes
    assert not one.pooled
    assert one.text_of({"text": "card lost", "label": "rates"}) == "card lost"


def test_a_masked_loss_is_over_the_stages_own_labels(small: Any) -> None:
    task = small.task("label-words")
    output = task.forward(task.encode(ROWS), range(4))
    losses = task.losses(restricted(output, StageLabels((1, 2))))
    expected = F.cross_entropy(output.logits[1:3, 1:3], torch.tensor([0, 1]), reduction="none")
    assert torch.allclose(losses[1:3], expected)
    assert losses[[0, 3]].tolist() == [0, 0]


def test_only_candidate_labels_can_be_the_answer_when_records_are_scored(small: Any) -> None:
    task = small.task("label-words")
    examples = task.encode(ROWS)
    with torch.no_grad():
        logits = task.forward(examples, range(4)).logits[:, 2:]
    examples.candidate_labels = [2, 3]
    assert task.record_scores(examples)[2:].tolist() == (logits.argmax(dim=1)[2:] == torch.arange(2)).double().tolist()


def test_divergence_is_over_labels_and_does_not_see_calibration_move_the_same_labels(small: Any) -> None:
    task = small.task("label-words")
    examples = task.encode(ROWS)
    output = task.forward(examples, range(4))
    with torch.no_grad(), task.resident.swapped(task.resident.bare):
        teacher = task.forward(examples, range(4))
    expected = 4 * F.kl_div(
        F.log_softmax(output.logits / 2, -1), F.softmax(teacher.logits / 2, -1), reduction="none"
    ).sum(dim=-1)
    assert torch.allclose(task.divergence(output, teacher, 2.0), expected, atol=1e-5)
    assert task.divergence(output, output, 2.0).abs().max() < 1e-6


def test_each_records_gradient_is_autograds_of_its_own_cross_entropy(small: Any) -> None:
    task = small.task("label-words")
    examples, resident = small.fixed(task.encode(ROWS)), task.resident
    parameters = [resident.parameters[name] for name in resident.trained_names]
    clipped = torch.zeros_like(resident.trained)
    for k in range(4):
        logits = task.forward(examples, [k]).logits
        told = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([k])), parameters)
        own = torch.cat([part.reshape(-1) for part in told])
        clipped += own * min(1.0, 0.5 / float(own.norm()))
    plan = small.plan(clip_norm=0.5, noise_multiplier=0.0)
    private = PrivateGradient(resident, examples, plan, SecureNoise())
    try:
        found = private(small.units(range(4)), loss_of(task, examples, SiteGuards((), {})))
    finally:
        private.close()
    assert torch.allclose(found, clipped, rtol=1e-3, atol=1e-4 * float(clipped.abs().max()))


# -- each row of the table ---------------------------------------------------------------------------------------------


def test_what_all_labels_begin_with_stands_behind_every_prompt(small: Any) -> None:
    task = other(small, {"a": "card lost", "b": "card fee now", "c": "card"})
    assert task.resident.base.tokenizer.convert_ids_to_tokens(task.tokens.tolist()) == ["lost", "fee", "</s>"]
    tokenizer = task.resident.base.tokenizer
    expected = tokenizer(f"{prompt('why')} card", add_special_tokens=False)["input_ids"]
    assert task.encode([{"text": "why"}]).ids[0].tolist() == expected
    (long,) = task.encode([{"text": "pin " * 40}]).ids
    assert words(task, long[-2:])[1] == "card"
    assert len(long) == 16


@pytest.mark.parametrize(
    "labels", [{"a": "card lost", "b": "card fee", "c": "why"}, {"a": "card", "b": "card"}, {"a": "zqx", "b": "zzz"}]
)
def test_labels_that_begin_with_the_same_token_are_refused_with_the_remedy_when_the_task_is_opened(
    small: Any, labels: dict[str, str]
) -> None:
    with pytest.raises(ModelError, match="begin with the same token") as told:
        other(small, labels)
    assert "task.labels" in told.value.remedy


def test_a_label_that_is_the_beginning_of_another_needs_an_end(small: Any) -> None:
    labels = {"a": "card", "b": "card lost"}
    assert len(other(small, labels).tokens) == 2
    tokenizer = small.task("label-words").resident.base.tokenizer
    tokenizer.chat_template = ENDLESS
    try:
        with pytest.raises(ModelError, match="begin with the same token"):
            other(small, labels, template="base")
        assert words(other(small, {"a": "card", "b": "why"}, template="base"), np.array([])) == []
    finally:
        tokenizer.chat_template = None


def test_a_text_that_does_not_fit_loses_its_beginning_and_keeps_the_question(small: Any) -> None:
    task = small.task("label-words")
    text = " ".join(small.words)
    examples = task.encode([{"text": text}, {"text": "why"}])
    tokenizer = task.resident.base.tokenizer
    whole = tokenizer(prompt(text), add_special_tokens=False)["input_ids"]
    front, tail = (len(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in prompt("|").split("|"))
    kept = 16 - front - tail
    assert kept > 1
    assert examples.ids[0].tolist() == whole[:front] + whole[-tail - kept :]
    assert words(task, examples.ids[0])[front : front + kept] == list(small.words[-kept:])
    assert examples.cut == 1


def test_a_question_that_leaves_no_room_for_a_text_is_refused(small: Any) -> None:
    with pytest.raises(ModelError, match="of 16: no text is read") as told:
        other(small, instruction="why " * 12)
    assert "model.max_tokens" in told.value.remedy
    assert other(small, instruction="why " * 11).encode(ROWS).cut >= 1


def test_an_empty_text_is_the_question_alone(small: Any) -> None:
    task = small.task("label-words")
    (ids,) = task.encode([{"text": ""}]).ids
    expected = task.resident.base.tokenizer(prompt(""), add_special_tokens=False)["input_ids"]
    assert ids.tolist() == expected
    ((best, *_),) = task.predict([""])
    assert 0 < best[1] < 1


def test_one_label_is_always_the_answer(small: Any) -> None:
    task = other(small, {"a": "card lost"})
    assert task.predict(["why", ""]) == [[("a", 1.0)]] * 2
    assert task.score(task.encode([{"text": "why", "label": "a"}])) == {"accuracy": 1.0, "loss": 0.0}


# -- bases -------------------------------------------------------------------------------------------------------------


def test_a_base_without_a_chat_template_is_refused_with_the_remedy(small: Any) -> None:
    with pytest.raises(ModelError, match="chat template") as told:
        other(small, template="base")
    assert "plain" in told.value.remedy


def test_two_labels_that_begin_alike_are_named(small: Any) -> None:
    with pytest.raises(ModelError, match="labels c and a begin"):
        other(small, {"a": "card lost", "b": "why", "c": "card fee"})


def test_it_opens_over_other_decoders(small: Any) -> None:
    task = small.task("label-words", path=str(small.shape("gpt2")))
    assert isinstance(task, LabelWords)
    assert np.isfinite(task.record_scores(task.encode(ROWS))).all()


def test_records_whose_frozen_layers_are_known_answer_beside_others_as_alone(small: Any) -> None:
    task = small.task("label-words", last_layers=1, cache_mb=8)
    assert task.resident.prefix is not None
    examples = task.encode(ROWS)
    with torch.no_grad():
        alone = [task.forward(task.encode([row]), [0]).logits[0] for row in ROWS]
        task.forward(examples, [0, 2])
        together = task.forward(examples, [0, 1, 2, 3]).logits
    assert torch.allclose(together, torch.stack(alone), atol=1e-4)
