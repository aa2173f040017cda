"""Streams of new labels under privacy: which share of a stage's rounds should be sums over each label's records?

    python benchmarks/bench_label_sums.py [--sets bank,banking77] [--epsilon 8,3,1] [--seeds 9,19,29,39]

A head over frozen MiniLM vectors learns its labels in three stages, guard ``mask``, persons of 1 to 4 records in one
stage each, noise on the sum, delta 1e-5, PLD, 30 rounds a stage (``private_steps.py``). In the first rounds of a stage
the sums of its labels' records are released, from which the rows start (``aggregation/class_sums.py``, the product's
own); the others are steps of Adam.

* bank       generated messages, 24 labels; validation on templates that nobody trained on
* banking77  its *training* records, a sixth held back for validation; stages are drawn by seeds that no table of
             results has. No test record is read.

Printed: average accuracy over the stages at the end, learned at the end of each stage, forgotten since the best.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from bench import need, show, spread, write
from private_steps import MOST, SCALE, Data, Floats, Persons, Point, Whole, bank, embedded

from llmchain_fl.aggregation.class_sums import LabelRound, rows_from_sums
from llmchain_fl.aggregation.lockstep import BETA2, EPSILON
from llmchain_fl.aggregation.optimizers import Settings, Steps

SHARES, STAGES = (0.0, 0.1, 0.25, 0.4), 3


def banking() -> Data:
    """BANKING77's training records, a sixth for validation."""
    records = list(csv.DictReader(need("../shared/data/banking77/train.csv").open(encoding="utf-8")))
    names = json.loads(need("../shared/data/banking77/labels.json").read_text(encoding="utf-8"))
    rows = [{"text": row["text"], "label": row["label"]} for row in records]
    order = np.random.default_rng(3).permutation(len(rows))
    held, train = ([rows[i] for i in part] for part in np.split(order, [len(rows) // 6]))
    counts = np.random.default_rng(4).integers(1, MOST + 1, len(train))
    person = np.repeat(np.arange(len(train)), counts)[: len(train)]
    return embedded({name: name.replace("_", " ") for name in names}, train, held, person, 64)


def stages_of(data: Data, seed: int) -> list[tuple[Whole, Data]]:
    """The labels of each stage, and its records; whoever has records of two stages is two persons."""
    labels = list(range(len(data.texts)))
    random.Random(f"stages/{seed}").shuffle(labels)
    parts = []
    for own in np.array_split(np.array(labels), STAGES):
        mine = np.isin(data.y, own)
        _, person = np.unique(data.person[mine], return_inverse=True)
        parts.append((np.sort(own), replace(data, x=data.x[mine], y=data.y[mine], person=person)))
    return parts


def stage(head: Floats, part: Data, own: Whole, point: Point, share: float, seed: int) -> Floats:
    """The head after one stage."""
    rng, people = np.random.default_rng(seed), int(part.person.max()) + 1
    persons, sums, begun = Persons(part, np.arange(people)), round(share * point.rounds), head.copy()

    def noise() -> Any:
        return point.z * point.clip * rng.standard_normal(head.shape)

    if sums:
        total = persons.class_sums(len(head), point.clip / SCALE) * SCALE
        mean = total + sum(noise() for _ in range(sums)) / sums
        silent = tuple(sorted({*range(len(head))} - {*own.tolist()}))
        begun[:, :-1] = rows_from_sums(head[:, :-1], mean[:, :-1], LabelRound(1, tuple(own.tolist()), silent))
    optimizer, now = Steps("adam"), begun
    for _ in range(point.rounds - sums):
        mean = (persons.clipped(now, np.arange(people), point, own) + noise()) / people
        step = optimizer.along("head", -mean, Settings(point.lr, 0.9, BETA2, EPSILON)).astype(np.float32)
        now = now.copy()
        now[own] += step[own]
    return now


def played(data: Data, point: Point, share: float, seed: int) -> tuple[float, float, float]:
    """(average, learned, forgotten), in percent."""
    head, parts, matrix = data.texts.copy(), stages_of(data, seed), []
    for number, (own, part) in enumerate(parts):
        head = stage(head, part, own, point, share, seed * 10 + number)
        right = (data.test_x @ head.T).argmax(axis=1) == data.test_y
        matrix.append([100 * float(right[np.isin(data.test_y, labels)].mean()) for labels, _ in parts])
    r = np.array(matrix)
    forgotten = [max(r[j:, j]) - r[-1, j] for j in range(STAGES - 1)]
    return float(r[-1].mean()), float(np.diag(r).mean()), float(np.mean(forgotten))


def table(name: str, data: Data, epsilons: Sequence[float], seeds: Sequence[int]) -> dict[str, Any]:
    """One table a budget."""
    result: dict[str, Any] = {}
    for epsilon in epsilons:
        rows = {}
        for share in SHARES:
            each = [played(data, Point(epsilon=epsilon), share, seed) for seed in seeds]
            rows[f"{share:.0%} of the rounds"] = [list(values) for values in zip(*each, strict=True)]
        lines = [[key, *(spread(values) for values in row)] for key, row in rows.items()]
        header = ["sums by label", "average, %", "learned, %", "forgotten, points"]
        show(f"{name}, {len(data.texts)} labels in {STAGES} stages, epsilon {epsilon:g}", header, lines)
        result[f"{epsilon:g}"] = rows
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="bank,banking77")
    parser.add_argument("--epsilon", default="8,3,1")
    parser.add_argument("--seeds", default="9,19,29,39")
    given = parser.parse_args()
    epsilons = [float(value) for value in given.epsilon.split(",")]
    seeds = [int(value) for value in given.seeds.split(",")]
    made = {"bank": lambda: bank(4000), "banking77": banking}
    write("label-sums", {name: table(name, made[name](), epsilons, seeds) for name in given.sets.split(",")})


if __name__ == "__main__":
    main()
