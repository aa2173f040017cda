"""A trainer of the user's own in place of the local loop, where privacy is off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import llmchain_fl as lf
from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.core.errors import ConfigError, RunError
from simulations.own_trainer import IGNORED, TaskModel, model_of, records_of


def padded(records: Any, pad: int = 0) -> dict[str, torch.Tensor]:
    """All records as one batch."""
    longest = max(len(record["input_ids"]) for record in records)
    rows = [record["input_ids"] + [pad] * (longest - len(record["input_ids"])) for record in records]
    mask = [[1] * len(record["input_ids"]) + [0] * (longest - len(record["input_ids"])) for record in records]
    labels = torch.tensor([record["labels"] for record in records])
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask), "labels": labels}


def plain_sgd(model: nn.Module, records: Any, spec: Any) -> None:
    """Full-batch gradient descent."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=spec.lr)
    for _ in range(spec.steps):
        optimizer.zero_grad()
        model(**padded(records))["loss"].backward()
        optimizer.step()


def test_full_batch_descent_of_ones_own_is_what_our_loop_does_with_every_record_drawn(
    memory: Any, tmp_path: Path
) -> None:
    loop = {"steps": 2, "sampling_rate": 1.0, "batch_size": 24, "optimizer": "sgd", "momentum": 0.0, "lr": 0.5}
    settings, train = memory.settings(train=loop), {"north": memory.train["north"]}
    found = [
        read_adapter(lf.run(settings, train=train, test=memory.test, trainer=trainer, out=tmp_path / name).adapter)[1]
        for name, trainer in (("ours", None), ("own", plain_sgd))
    ]
    assert all(np.allclose(found[0][name], value, atol=2e-6) for name, value in found[1].items())
    assert any(np.abs(value).max() > 1e-3 for name, value in found[1].items() if name.endswith("lora_B"))


def hugging_face(model: nn.Module, records: Any, spec: Any) -> None:
    """transformers' own Trainer."""
    from transformers import Trainer, TrainingArguments

    options = TrainingArguments(
        max_steps=spec.steps,
        learning_rate=spec.lr,
        per_device_train_batch_size=spec.batch_size,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(model, options, train_dataset=records, processing_class=spec.tokenizer).train()


def test_transformers_trainer_trains_in_place(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = lf.run(memory.settings(), train=memory.train, test=memory.test, trainer=hugging_face, out=tmp_path / "run")
    assert max(np.abs(v).max() for n, v in read_adapter(result.adapter)[1].items() if n.endswith("lora_B")) > 1e-3


def test_a_causal_model_is_handed_over_as_it_is_with_the_prompt_left_out_of_the_loss(small: Any) -> None:
    task = small.task("causal-lm")
    examples = task.encode(small.rows(3, "causal-lm"))
    records, model = records_of(task, examples), model_of(task)
    assert model is task.resident.base.module
    for record, ids, prompt in zip(records, examples.ids, examples.targets, strict=True):
        assert record["labels"] == [IGNORED] * prompt + ids[prompt:].tolist()
        batch = {name: torch.tensor([value]) for name, value in record.items()}
        assert float(model(**batch).loss) == pytest.approx(
            float(task.losses(task.forward(task.encode(small.rows(3, "causal-lm")), range(3)))[records.index(record)]),
            rel=1e-4,
        )


def test_the_module_of_an_encoder_gives_the_tasks_own_logits(small: Any) -> None:
    task = small.task()
    examples = task.encode(small.rows(5))
    batch = padded(records_of(task, examples))
    with torch.no_grad():
        given, wanted = TaskModel(task)(**batch), task.forward(examples, range(5))
    assert torch.allclose(given["logits"], wanted.logits, atol=1e-5)
    assert float(given["loss"]) == pytest.approx(float(task.losses(wanted).mean()), rel=1e-4)


def replaces(model: nn.Module, records: Any, spec: Any) -> None:
    """New tensors in the place of those of the adapter."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data + 0.5


def test_tensors_that_a_trainer_replaces_are_copied_back_and_later_runs_are_as_ever(
    memory: Any, tmp_path: Path
) -> None:
    def run(name: str, trainer: Any = None) -> dict[str, Any]:
        result = lf.run(memory.settings(), train=memory.train, test=memory.test, trainer=trainer, out=tmp_path / name)
        return {key: value for key, value in read_adapter(result.adapter)[1].items() if key.endswith("lora_B")}

    before = run("before")
    assert all(np.allclose(value, 0.5) for value in run("own", replaces).values())
    assert all(np.array_equal(value, before[key]) for key, value in run("after").items())


def test_a_trainer_that_does_nothing_gives_no_update(memory: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="none of 2 sites gave an update \\(training\\)"):
        lf.run(
            memory.settings(),
            train=memory.train,
            test=memory.test,
            trainer=lambda model, records, spec: None,
            out=tmp_path / "run",
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"privacy": {"enabled": True, "epsilon": 8.0}}, "nothing bounds what a person adds"),
        ({"continual": {"guards": ["distill"]}}, "guards distill"),
        ({"train": {"proximal": 0.1}}, "train.proximal"),
    ],
)
def test_an_own_trainer_is_refused_where_our_loop_is_needed(
    memory: Any, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    settings = memory.settings(**change)
    with pytest.raises(ConfigError, match=said):
        lf.run(settings, train=memory.train, test=memory.test, trainer=plain_sgd, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_own_trainer_does_not_reach_the_actors_of_ray(memory: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="backend ray"):
        lf.run(
            memory.settings(),
            train=memory.train,
            test=memory.test,
            trainer=plain_sgd,
            backend="ray",
            out=tmp_path / "run",
        )
