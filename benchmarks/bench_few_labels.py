"""Five labels a class on BANKING77: what asking where the model is unsure, and labelling where it is sure, give.

    python benchmarks/bench_few_labels.py [--seeds 5] [--pool 4000] [--test 1500] [--below 0.2] [--sure 0.95]

A head (logistic regression) on the frozen vectors of MiniLM, all records in one place, no privacy: the choice of
records is what is measured, by the rules of ``llmchain_fl/label.py``, and nothing else. Mean and spread over seeds:

* label text: cosine with the label's text, no label used;
* 5 a class at random;
* 3 a class at random, then as many questions as 2 a class cost: at random, and where the margin is below ``--below``
  (and, beside it, the least sure of the whole pool: the rule that privacy forbids);
* 5 a class, then the labels that this head is sure of.

Needs ../shared/data/banking77 and the base ``minilm``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from llmchain_fl.core.adapter.resident import ResidentSpec
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import open_work
from llmchain_fl.label import Told, margins, sure

DATA = Path("../shared/data/banking77")
Floats, Numbers = NDArray[np.float64], NDArray[np.int64]


def read(name: str, most: int, labels: list[str]) -> tuple[list[str], Numbers]:
    """At most so many texts, drawn by a fixed seed, and the places of their labels."""
    with (DATA / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [rows[int(k)] for k in np.random.default_rng(0).permutation(len(rows))[:most]]
    return [row["text"] for row in kept], np.array([labels.index(row["label"]) for row in kept])


def opened(texts: dict[str, str]) -> Classification:
    """A classifier on the frozen base."""
    spec = TaskSpec("classification", "label-text", tuple(texts.items()), max_tokens=48)
    resident = ResidentSpec(BaseSpec("minilm", device="cpu"), AdapterSpec(1, 1.0, last_layers=1))
    task = open_work(resident, spec)[1]
    assert isinstance(task, Classification)
    return task


def head(x: Floats, y: Numbers) -> LogisticRegression:
    """Fitted on what is labelled."""
    return LogisticRegression(C=1.0, max_iter=300).fit(20 * x, y)


def answers_of(model: LogisticRegression, x: Floats) -> list[list[tuple[str, float]]]:
    """The two best labels of each record."""
    chances = model.predict_proba(20 * x)
    order = np.argsort(-chances, axis=1)[:, :2]
    return [[(str(model.classes_[k]), float(p[k])) for k in best] for p, best in zip(chances, order, strict=True)]


def of_each(y: Numbers, count: int, draw: np.random.Generator) -> Numbers:
    """So many records of each label."""
    return np.concatenate([draw.permutation(np.flatnonzero(y == k))[:count] for k in np.unique(y)])


def measured(x: Floats, y: Numbers, test: tuple[Floats, Numbers], told: Told, seed: int) -> dict[str, float]:
    """Accuracy of every way for one seed; shares that are counts stand beside it."""
    draw = np.random.default_rng(seed)

    def accuracy(rows: Numbers, labels: Numbers) -> float:
        return float((head(x[rows], labels).predict(20 * test[0]) == test[1]).mean())

    five, three = of_each(y, 5, draw), of_each(y, 3, draw)
    more = len(five) - len(three)
    rest = np.setdiff1d(np.arange(len(y)), three)
    least = np.array(margins(answers_of(head(x[three], y[three]), x[rest])))
    unsure = draw.permutation(rest[least < told.below])[:more]
    first = head(x[five], y[five])
    others = np.setdiff1d(np.arange(len(y)), five)
    own = answers_of(first, x[others])
    kept = others[sure(own, told)]
    given = np.array([int(own[k][0][0]) for k in sure(own, told)], dtype=np.int64)
    wrong = float((given != y[kept]).mean()) if len(kept) else 0.0

    def with_more(extra: Numbers) -> float:
        rows = np.concatenate([three, extra])
        return accuracy(rows, y[rows])

    return {
        "5 a class": accuracy(five, y[five]),
        "3 a class": accuracy(three, y[three]),
        "3 a class + random": with_more(draw.permutation(rest)[:more]),
        "3 a class + margin below": with_more(unsure),
        "3 a class + least sure of the pool": with_more(rest[np.argsort(least)[:more]]),
        "5 a class + sure labels": accuracy(np.concatenate([five, kept]), np.concatenate([y[five], given])),
        "(sure labels, share of the pool)": len(kept) / len(others),
        "(sure labels, wrong)": wrong,
        "(margin below, share of the pool)": float((least < told.below).mean()),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pool", type=int, default=4000)
    parser.add_argument("--test", type=int, default=1500)
    parser.add_argument("--below", type=float, default=0.2)
    parser.add_argument("--sure", type=float, default=0.95)
    told = parser.parse_args()
    torch.set_num_threads(1)
    names = json.loads((DATA / "labels.json").read_text(encoding="utf-8"))
    labels = list(names)
    task = opened({name: name.replace("_", " ") for name in labels})
    sets = {}
    for name, most in (("train", told.pool), ("test", told.test)):
        texts, y = read(name, most, labels)
        x = task.frozen_features(task.encode([{"text": text} for text in texts])).double().numpy()
        sets[name] = (x, y)
    (x, y), test = sets["train"], sets["test"]
    zero = float(((test[0] @ task.label_vectors.double().numpy().T).argmax(axis=1) == test[1]).mean())
    print(f"pool {len(y)}, test {len(test[1])}, {told.seeds} seeds\nlabel text, no label  {zero:.3f}", flush=True)
    found = [measured(x, y, test, Told(told.below, told.sure), seed) for seed in range(1, told.seeds + 1)]
    for name in found[0]:
        values = [one[name] for one in found]
        print(f"{name:38s} {np.mean(values):.3f} +- {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}")


if __name__ == "__main__":
    main()
