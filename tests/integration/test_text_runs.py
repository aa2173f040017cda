"""Conversations and translations through private runs; the saved adapter, opened by plain peft, has their loss."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.cli.trained import open_trained
from llmchain_fl.core.tasks.kind import task_kind

pytestmark = pytest.mark.usefixtures("without_pages")
ONE_STAGE: dict[str, Any] = {"continual": {"guards": []}, "stage": [{"name": "only", "rounds": 2}]}
AT_EACH_SITE = {"privacy": {"enabled": True, "epsilon": 8.0, "unit": "person"}}
ON_THE_SUM: dict[str, Any] = {
    "train": {"method": "lockstep", "steps": 1, "sampling_rate": 0.6, "batch_size": 8.0, "lr": 0.02},
    "secure": {"sum": True},
    "privacy": {"enabled": True, "epsilon": 8.0, "unit": "person", "noise": "sum"},
}


def written(path: Path, kind: str, words: Any, count: int, seed: int) -> list[dict[str, Any]]:
    """``count`` records of two persons each."""
    draw = random.Random(seed)

    def text() -> str:
        return " ".join(draw.choices(words, k=draw.randint(1, 4)))

    if kind == "dialogue":
        rows: list[dict[str, Any]] = [
            {"messages": [{"role": ("user", "assistant")[k % 2], "content": text()} for k in range(4)]}
            for _ in range(count)
        ]
    else:
        rows = [dict(zip(task_kind(kind).columns, (text(), text()), strict=True)) for _ in range(count)]
    told = [{**row, "person": f"p{number // 2}"} for number, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
    return rows


def loss_outside(folder: Path, base: str, kind: str, rows: list[dict[str, Any]]) -> float:
    """Nats a token by transformers and peft alone, over all tokens that count."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    reader = AutoModelForCausalLM if kind == "dialogue" else AutoModelForSeq2SeqLM
    tokenizer, model = AutoTokenizer.from_pretrained(base), reader.from_pretrained(base)
    model = PeftModel.from_pretrained(model, str(folder)).eval()
    nats, tokens = 0.0, 0
    for row in rows:
        if kind == "dialogue":
            ids, labels = list[int](), list[int]()
            for turn in row["messages"]:
                said = turn["role"] == "assistant"
                head, body = (f"{turn['role'].capitalize()}:", f" {turn['content']}{'</s>' if said else ''}")
                for part, counts in ((head, False), (body, said)):
                    found = tokenizer(part, add_special_tokens=False)["input_ids"]
                    ids += found
                    labels += found if counts else [-100] * len(found)
            told = {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}
        else:
            told = dict(tokenizer(row["source"], return_tensors="pt"))
            told["labels"] = tokenizer(text_target=row["target"], return_tensors="pt")["input_ids"]
        count = int((told["labels"] != -100).sum())
        with torch.no_grad():
            nats += count * float(model(**told).loss)
        tokens += count
    return nats / tokens


@pytest.mark.parametrize(
    ("kind", "shape", "how"),
    [
        ("dialogue", "llama", ON_THE_SUM),
        pytest.param("translation", "t5", AT_EACH_SITE, marks=pytest.mark.thorough),
    ],
)
def test_a_private_run_learns_saves_and_scores_what_plain_peft_scores(
    tiny: Any, small: Any, tmp_path: Path, kind: str, shape: str, how: dict[str, Any]
) -> None:
    base = str(small.shape(shape))
    written(tmp_path / "train.jsonl", kind, small.words, 36, seed=1)
    rows = written(tmp_path / "test.jsonl", kind, small.words, 8, seed=2)
    sections: dict[str, Any] = {
        "model": {"path": base, "max_tokens": 48},
        "task": {"kind": kind, "labels": [], "template": "plain"},
        "data": {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")},
        "sites": {"count": 3, "held_out": 0.0},
        **ONE_STAGE,
        **how,
    }
    run, served = tiny.played(tmp_path / "run", **sections)
    last = {row["metric"]: row["value"] for row in run.rows() if row["scope"] == "global"}
    assert {metric.name for metric in task_kind(kind).metrics} <= set(last)
    assert any(np.abs(value).max() > 0 for name, value in served.items() if name.endswith("lora_B"))
    assert last["loss"] == pytest.approx(loss_outside(run.adapter, base, kind, rows), rel=1e-4)
    asked = [{"messages": json.dumps(rows[0]["messages"])}] if kind == "dialogue" else [rows[0]["source"]]
    task = open_trained(run.adapter)[1]
    answers = task.answer(asked) if kind == "dialogue" else task.predict(asked)  # type: ignore[attr-defined]
    assert isinstance(answers[0][0][0], str)
