"""Heads in closed form on the frozen MiniLM base: what they reach, what they send, and that a split changes nothing.

    python benchmarks/bench_closed_form.py [SET ...]          all sets whose data are there
    options: --features 1000,3000   --seeds 1,2,3   --vectors FOLDER (keeps the vectors of the base there)
    python benchmarks/bench_closed_form.py --stages banking77    labels that no stage has shown yet, three stages

Every set is read as the scenario reads it. "best by test" picks the penalty by the test records: optimistic, there to
show what choosing by generalised cross-validation costs. Random features: mean and spread over seeds of the projection.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench import ROOT, show, spread, write
from numpy.typing import NDArray

from llmchain_fl.aggregation.closed_form import Sums, solved
from llmchain_fl.aggregation.ridge import LAMBDAS, Head, sharpness
from llmchain_fl.config.read import read_config
from llmchain_fl.core.adapter.resident import ResidentSpec
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.tasks.random_features import RandomFeatures, lifted, sums_of
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import open_work
from llmchain_fl.data.stages import public_labels, stage_rows
from llmchain_fl.scenario import find_scenario

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]
Rows = list[dict[str, str]]
SITES = 10


@dataclass(frozen=True)
class Data:
    """Vectors of the base [n, H], positions of labels, and the vectors of the label texts [L, H]."""

    x: Matrix
    y: Labels
    test_x: Matrix
    test_y: Labels
    texts: Matrix
    stage: Labels
    """Which stage of the scenario each training record is of."""

    def right(self, scores: Matrix, among: NDArray[np.bool_] | None = None) -> float:
        found = scores.argmax(axis=1) == self.test_y
        return float((found if among is None else found[among]).mean())


def scenario(name: str) -> Callable[[], tuple[dict[str, str], list[Rows], Rows]]:
    """Labels, training records of each stage, test records of a shipped scenario."""

    def read() -> tuple[dict[str, str], list[Rows], Rows]:
        config = read_config(find_scenario(name), [])
        labels = public_labels(config)
        told = {
            which: [stage_rows(config, stage, which, list(labels)).records for stage in config.stage]
            for which in ("train", "test")
        }
        return labels, told["train"], [row for rows in told["test"] for row in rows]

    return read


def medical() -> tuple[dict[str, str], list[Rows], Rows]:
    """The abstracts have no scenario."""
    folder = ROOT / "../shared/data/medical_abstracts"
    train, test = (
        list(csv.DictReader((folder / f"{which}.csv").open(encoding="utf-8"))) for which in ("train", "test")
    )
    labels = sorted({row["label"] for row in train})
    return dict(zip(labels, labels, strict=True)), [train], test


SETS = {
    "banking77": (scenario("banking77"), "../shared/data/banking77", 64),
    "sst2": (scenario("sentiment"), "../shared/data/sst2", 64),
    "medical_abstracts": (medical, "../shared/data/medical_abstracts", 128),
    "standard-order": (scenario("standard-order"), "../shared/data/cl_benchmark", 64),
}


def load(name: str, kept: Path | None) -> Data:
    """The vectors of a set, from ``kept`` if they are there."""
    file = None if kept is None else kept / f"{name}.npz"
    if file is not None and file.exists():
        with np.load(file) as told:
            return Data(**{key: told[key] for key in told.files})
    read, _, tokens = SETS[name]
    labels, stages, test = read()
    spec = TaskSpec("classification", labels=tuple(labels.items()), max_tokens=tokens)
    base = BaseSpec("minilm", device="cpu", kind="encoder")
    _, task = open_work(ResidentSpec(base, AdapterSpec(1, 1.0, ("query",), 1)), spec)
    assert isinstance(task, Classification)
    train, held = task.encode([row for rows in stages for row in rows]), task.encode(test)
    made = Data(
        *(value for told in (train, held) for value in (task.frozen_features(told).double().numpy(), told.targets)),
        task.label_vectors.double().numpy(),
        np.repeat(np.arange(len(stages)), [len(rows) for rows in stages]),
    )
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **vars(made))
    return made


def head_of(data: Data, features: RandomFeatures, sites: int = 1, seed: int = 0) -> tuple[Head, Sums]:
    """The head of all records, dealt over ``sites`` whose sums travel as float32."""
    total, labels = Sums(features, len(data.texts), ""), len(data.texts)
    owner = np.random.default_rng(seed).integers(sites, size=len(data.y))
    for site in range(sites):
        sums = sums_of(data.x[owner == site], data.y[owner == site], labels, features)
        total.add({name: value.astype(np.float32) if sites > 1 else value for name, value in sums.items()}, "")
    return solved(total, data.texts), total


def best_by_test(data: Data, total: Sums) -> float:
    """Right answers at the penalty (no pull, all features) that suits the test records best: optimistic."""
    moments = total.moments()
    view, f = moments.views[-1], lifted(data.test_x, total.features.projection()) - moments.mean
    share = moments.counts / moments.counts.sum()
    turned = f @ view.basis
    return max(data.right(turned @ (view.cross / (view.values + p)[:, None]) + share) for p in LAMBDAS)


def cross_entropy(scores: Matrix, targets: Labels) -> float:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(targets)), targets]).mean())


def measure(name: str, data: Data, counts: Sequence[int], seeds: Sequence[int]) -> dict[str, object]:
    """One table: a line for each number of random features."""
    count, width = data.texts.shape
    means = np.stack([data.x[data.y == label].mean(axis=0) for label in range(count)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    majority = float((data.test_y == np.bincount(data.y).argmax()).mean())
    lines, told = [], []
    for many in (0, *counts):
        found, best = list[float](), list[float]()
        for seed in seeds if many else seeds[:1]:
            begun = time.monotonic()
            head, total = head_of(data, RandomFeatures(width, many, seed))
            seconds = time.monotonic() - begun
            scores = head.scores(lifted(data.test_x, total.features.projection()))
            found.append(data.right(scores))
            best.append(best_by_test(data, total))
            assert head.chosen is not None
            chosen = f"{head.chosen.features}, lambda {head.chosen.penalty:.3g}, pull {head.chosen.pull:g}"
        losses = {t: cross_entropy(t * scores, data.test_y) for t in range(1, 31)}
        sharp = min(losses, key=lambda t: losses[t])
        up = 4 * sum(int(np.prod(shape)) for shape in total.features.shapes(count).values())
        loss = cross_entropy(sharpness(count) * scores, data.test_y)
        row = [f"{many}", spread(found), spread(best), chosen, f"{up / 1e6:.1f} MB", f"{seconds:.0f} s"]
        lines.append([*row, f"{loss:.3f} ({losses[sharp]:.3f} at {sharp})"])
        told.append({"features": many, "gcv": found, "best_by_test": best, "chosen": chosen, "bytes_up": up})
    print(f"\n{name}: {count} labels, {len(data.y)} records, {len(data.test_y)} test records")
    bases = {"majority": majority, "untrained": data.right(data.test_x @ data.texts.T)}
    bases["class means"] = data.right(data.test_x @ means.T)
    print("  " + ", ".join(f"{key} {value:.4f}" for key, value in bases.items()))
    heads = ["random", "right, chosen by GCV", "best by test (optimistic)", "chosen", "up, a site", "to solve"]
    show("ridge", [*heads, f"loss at t = {sharpness(count):.1f} (least)"], lines)
    return {"set": name, **bases, "rows": told, **split(data, RandomFeatures(width, min(counts, default=0)))}


def split(data: Data, features: RandomFeatures) -> dict[str, float]:
    """Ten sites, sums as float32, against all records in one place."""
    (joint, _), (apart, _) = head_of(data, features), head_of(data, features, SITES)
    f = lifted(data.test_x, features.projection())
    same = float((joint.scores(f).argmax(axis=1) == apart.scores(f).argmax(axis=1)).mean())
    far = float(np.abs(joint.scores(f) - apart.scores(f)).max())
    print(f"  {SITES} sites, sums as float32, {features.count} random features: {same:.2%} of the answers as from all")
    print(f"  records in one place; largest difference of a score {far:.1e}")
    return {"same_answers": same, "largest_difference": far}


def stages(name: str, data: Data, features: RandomFeatures) -> None:
    """Labels in three stages; after each, right answers on the seen and the unseen labels, with and without texts."""
    count = len(data.texts)
    order = np.array_split(np.random.default_rng(0).permutation(count), 3)
    total, lines = Sums(features, count, ""), []
    f = lifted(data.test_x, features.projection())
    for number, taught in enumerate(order, 1):
        mine = np.isin(data.y, taught)
        total.add(sums_of(data.x[mine], data.y[mine], count, features), "")
        seen = np.isin(data.test_y, np.concatenate(order[:number]))
        head = solved(total, data.texts)
        scores = {"by its text": head.scores(f)}
        scores["never the answer"] = np.where(total.moments().counts > 0, scores["by its text"], -np.inf)
        for how, told in scores.items():
            shares = [data.right(told, among) if among.any() else float("nan") for among in (seen, ~seen)]
            lines.append([number, how, *(f"{share:.4f}" for share in shares), f"{data.right(told):.4f}"])
    show(f"{name}: labels in three stages", ["stage", "an unseen label", "seen", "unseen", "all"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--features", default="1000,3000")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--stages", action="store_true")
    given = parser.parse_args()
    counts, results = [int(many) for many in given.features.split(",")], []
    for name in given.sets or SETS:
        if not (ROOT / SETS[name][1]).exists():
            print(f"\n{name}: left out, {SETS[name][1]} is not beside the checkout")
            continue
        data = load(name, given.vectors)
        if given.stages:
            stages(name, data, RandomFeatures(data.texts.shape[1], min(counts)))
        else:
            results.append(measure(name, data, counts, [int(seed) for seed in given.seeds.split(",")]))
    if results:
        write("closed-form", {"sets": results})


if __name__ == "__main__":
    main()
