"""SST-2 with a decoder: label words, calibrated and not, beside heads on its vectors; no label, and five a class.

    python benchmarks/bench_label_words.py [--test 200] [--seeds 3] [--steps 15] [--lr 0.003]

SmolLM2, all records in one place, no privacy; accuracy on the first records of a fixed draw from the *dev* split:

* no label: label words with and without calibration; cosine with the label's text (kind ``classification``);
* 5 a class: label words with LoRA r 8 in the last two layers, Adam, every step over all ten records; a head (logistic
  regression) on the frozen vectors of the same decoder. Mean and spread over seeds.

Needs ../shared/data/sst2 and the base ``smollm2``.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from llmchain_fl.core.adapter.resident import ResidentSpec
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import open_work

DATA = Path("../shared/data/sst2")
LABELS = (("negative", "negative"), ("positive", "positive"))
ASKED = "Is this film review negative or positive?"
Rows = list[dict[str, str]]


def read(name: str, seed: int = 0) -> Rows:
    """All records of a split, in an order drawn by a seed."""
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [rows[int(k)] for k in np.random.default_rng(seed).permutation(len(rows))]


def five(rows: Rows) -> Rows:
    """The first five of each label."""
    return [row for label, _ in LABELS for row in [row for row in rows if row["label"] == label][:5]]


def opened(kind: str, base: str) -> Any:
    """A task over SmolLM2 with LoRA in the last two layers, at its start."""
    spec = TaskSpec(kind, labels=LABELS, max_tokens=128, instruction=ASKED)
    adapter = AdapterSpec(8, 16.0, last_layers=2)
    resident, task = open_work(ResidentSpec(BaseSpec("smollm2", device="cpu", kind=base), adapter), spec)
    resident.reset()
    return task


def logits(task: Any, examples: Examples) -> torch.Tensor:
    """Of every record, calibrated as the task is."""
    with torch.no_grad():
        parts = [task.forward(examples, range(k, min(k + 8, len(examples)))).logits for k in range(0, len(examples), 8)]
    return torch.cat(parts)


def right(found: torch.Tensor, examples: Examples) -> float:
    """Accuracy."""
    return float((found.argmax(dim=1) == torch.from_numpy(examples.targets)).double().mean())


def trained(task: Any, rows: Rows, test: Examples, told: argparse.Namespace) -> float:
    """Accuracy after so many steps of Adam over all of ``rows``."""
    task.resident.reset()
    parameters = [task.resident.parameters[name] for name in task.resident.trained_names]
    examples, optimizer = task.encode(rows), torch.optim.Adam(parameters, lr=told.lr)
    for _ in range(told.steps):
        optimizer.zero_grad()
        task.losses(task.forward(examples, range(len(rows)))).mean().backward()
        optimizer.step()
    return right(logits(task, test), test)


def say(name: str, values: Sequence[float]) -> None:
    """One line of the table."""
    spread = f" +- {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    print(f"{name:58s} {100 * np.mean(values):.1f}{spread} %", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--lr", type=float, default=0.003)
    told = parser.parse_args()
    torch.set_num_threads(1)
    rows, few = read("dev")[: told.test], [five(read("train", seed)) for seed in range(1, told.seeds + 1)]
    task = opened("label-words", "causal-lm")
    test, b = task.encode(rows), task.calibration
    first = logits(task, test)
    print("chances of labels for texts without content:", [round(float(p), 3) for p in b.exp()])
    print(
        "share of `positive`:",
        float((first.argmax(1) == 1).double().mean()),
        float(((first + b).argmax(1) == 1).double().mean()),
    )
    say("no label: label words, calibrated", [right(first, test)])
    say("no label: label words, not calibrated", [right(first + b, test)])
    for name, value in (("calibrated", b), ("not calibrated", torch.zeros_like(b))):
        task.calibration = value
        say(f"5 a class: label words, {name}", [trained(task, one, test, told) for one in few])
    task = opened("classification", "encoder")
    test = task.encode(rows)
    x = task.frozen_features(test).double().numpy()
    say(
        "no label: cosine with the label's text",
        [float(((x @ task.label_vectors.double().numpy().T).argmax(1) == test.targets).mean())],
    )
    found = []
    for one in few:
        own = task.encode(one)
        model = LogisticRegression(C=1.0, max_iter=300).fit(
            20 * task.frozen_features(own).double().numpy(), own.targets
        )
        found.append(float((model.predict(20 * x) == test.targets).mean()))
    say("5 a class: a head on the decoder's vectors", found)


if __name__ == "__main__":
    main()
