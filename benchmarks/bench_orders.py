"""Ranking and regression on real sets, over three sites: sentences of a passage for a question, stars for a review.

    python benchmarks/bench_orders.py [ranking] [regression] [--rounds 8] [--most 1500] [--seed 1] [--epsilon 0]

``ranking``: XQuAD in English; the candidates of a question are the sentences of its passage, the one that holds the
answer has grade 1. Beside it: whoever orders at random, and the number of words in common.
``regression``: reviews with five grades from very negative (1) to very positive (5). Beside it: whoever says the mean.
Needs ../shared/data and the base ``minilm``. Prints one line a round that is scored.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from llmchain_fl.config.read import build
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.tasks.numbers import ranked
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from simulations.run import simulate

DATA = Path("../shared/data")
STARS = ("very negative", "negative", "neutral", "positive", "very positive")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def rows_of(file: Path) -> Iterator[dict[str, object]]:
    """The records of a file of JSON lines."""
    with file.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines)


def sentences(row: dict[str, object]) -> dict[str, object] | None:
    """A question with the sentences of its passage; None where these are fewer than two, or none holds the answer."""
    context, start = str(row["context"]), int(row["answer_start"][0])  # type: ignore[index]
    ends = [match.start() for match in SENTENCE.finditer(context)]
    parts = list(dict.fromkeys(part.strip() for part in SENTENCE.split(context)))
    right = sum(end < start for end in ends)
    if not 2 <= len(parts) == len(ends) + 1:
        return None
    return {"query": row["question"], "candidates": parts, "grades": [int(k == right) for k in range(len(parts))]}


def stars(row: dict[str, object]) -> dict[str, object]:
    """A review with its number of stars."""
    return {"text": row["text"], "value": STARS.index(str(row["label"])) + 1}


def write(file: Path, rows: list[dict[str, object]]) -> Path:
    """The rows as JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def without_a_model(kind: str, rows: list[dict[str, object]], train: list[dict[str, object]]) -> str:
    """What it is to be read against."""
    if kind == "regression":
        known, asked_for = (np.array([float(str(row["value"])) for row in part]) for part in (train, rows))
        return f"the mean of the training set: mae {np.abs(asked_for - known.mean()).mean() / 4:.3f}"
    told = []
    for row in rows:
        asked = set(re.findall(r"\w+", str(row["query"]).lower()))
        common = [len(asked & set(re.findall(r"\w+", text.lower()))) for text in row["candidates"]]  # type: ignore[attr-defined]
        grades = np.array(row["grades"], dtype=np.float64)
        told.append((*ranked(np.array(common, dtype=np.float64), grades), *ranked(np.zeros(len(grades)), grades)))
    means = np.mean(told, axis=0)
    return "words in common: nDCG {:.3f} MRR {:.3f} hit {:.3f}; at random: {:.3f} {:.3f} {:.3f}".format(*means)


def play(kind: str, told: argparse.Namespace, folder: Path) -> None:
    """One run, its scores printed."""
    if kind == "ranking":
        train, test = (
            [one for row in rows_of(DATA / f"xquad/en_{part}.jsonl") if (one := sentences(row))]
            for part in ("train", "test")
        )
    else:
        train, test = (
            [stars(row) for row in rows_of(DATA / f"cl_benchmark/amazon_{part}.jsonl")] for part in ("train", "test")
        )
    train, test = train[: told.most], test[: told.most // 3]
    print(f"{kind}: {len(train)} to train, {len(test)} to test; {without_a_model(kind, test, train)}", flush=True)
    tree = {
        "seed": told.seed,
        "model": {"path": "minilm", "max_tokens": 192 if kind == "ranking" else 96, "threads": 1},
        "adapter": {"rank": 8, "alpha": 16.0, "last_layers": 2},
        "task": {"kind": kind, "low": 1.0, "high": 5.0},
        "data": {
            "train": str(write(folder / "train.jsonl", train)),
            "test": str(write(folder / "test.jsonl", test)),
            "test_every": max(1, told.rounds // 2),
        },
        "sites": {"count": 3},
        "train": {"steps": 10, "sampling_rate": 48 / len(train), "batch_size": 16, "lr": 0.003, "lr_final": 0.2},
        "aggregation": {"rule": "ffa"},
        "privacy": {"enabled": told.epsilon > 0, "epsilon": told.epsilon, "unit": "record"},
        "stage": [{"name": kind, "rounds": told.rounds}],
    }
    run = RunDir.create(folder / "run", to_toml(build(tree)))
    simulate(build(tree), run, Silent())
    found: dict[int, dict[str, float]] = {}
    for row in run.rows():
        if row.get("scope") == "global" and row["task"] == kind and "change" not in row["metric"]:
            found.setdefault(row["round"], {})[row["metric"]] = row["value"]
    for number, values in found.items():
        print(f"  round {number}: " + "  ".join(f"{name} {value:.3f}" for name, value in values.items()), flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=["ranking", "regression"])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--most", type=int, default=1500, help="training records; a third of it to test")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epsilon", type=float, default=0.0)
    told = parser.parse_args()
    for kind in told.kinds:
        with tempfile.TemporaryDirectory() as folder:
            play(kind, told, Path(folder))


if __name__ == "__main__":
    main()
