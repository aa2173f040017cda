"""Kinds of task on real records: untrained, majority, a head alone, one place, 5 sites, 5 sites at epsilon 8 and 3.

    python benchmarks/bench_tasks.py [entities,relations,questions] [--arms probe,central,sites,8,3] [--seeds 1,2,3]
        [--choose] [--set KEY=VALUE]

The scenarios `entities` (wikigold), `relations` (SemEval-2010 task 8) and `questions` (XQuAD, English) over MiniLM.

* untrained    the adapter and head of the start
* majority     whoever always gives the most frequent answer of the training records; "-" where there is none
* probe        the head alone over the frozen base, one gradient a round, all records in one place
* EPSILON      the same of 5 sites, noise on their masked sum; a record is the unit, delta 1e-5, PLD
* central      LoRA beside the head by local steps, all records in one place
* sites        the same of 5 sites: as many steps, as many records a step over all sites

`--choose`: four fifths of the training records, scored on the last fifth of them: settings (`--set`) are chosen without
a look at a test record. Those of `KINDS` are the scenarios' own, with the rates of 5 sites; none was searched for.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bench import last, need, play, show, spread, write

from llmchain_fl.core.tasks.marked import relation_f1

SITES = 5
KEPT_BACK = 5
"""One in so many training records is scored with ``--choose``."""


@dataclass(frozen=True)
class Kind:
    """One scenario. ``metrics``: those of the table, the main one first. ``head``: of the head alone, ``both``: of LoRA
    beside it."""

    files: tuple[str, str]
    metrics: tuple[str, ...]
    rounds: int
    steps: int
    rate: float
    both: tuple[str, ...]
    head_rounds: int
    head_rate: float
    head: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "entities": Kind(
        ("../shared/data/wikigold/train.jsonl", "../shared/data/wikigold/test.jsonl"),
        ("entity_f1",),
        *(12, 10, 0.05, ("train.lr=0.005",)),
        *(30, 0.5, ("train.lr=0.02", "train.lr_final=1.0")),
    ),
    "relations": Kind(
        ("../shared/data/semeval2010_task8/train.jsonl", "../shared/data/semeval2010_task8/test.jsonl"),
        ("relation_f1", "accuracy"),
        *(12, 12, 0.01, ("train.lr=0.005",)),
        *(30, 0.1, ("train.lr=0.02", "train.lr_final=1.0")),
    ),
    "questions": Kind(
        ("../shared/data/xquad/en_train.jsonl", "../shared/data/xquad/en_test.jsonl"),
        ("token_f1", "exact_match"),
        *(10, 8, 0.03, ("train.lr=0.005",)),
        *(30, 0.2, ("train.lr=0.02", "train.lr_final=1.0")),
    ),
}


def records(source: str) -> list[dict[str, Any]]:
    """The records of a file of JSON lines."""
    return [json.loads(line) for line in need(source).read_text(encoding="utf-8").splitlines()]


def parts(kind: Kind, choose: bool) -> tuple[tuple[str, str], tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """(sources, records) to train on and to score."""
    train = records(kind.files[0])
    if not choose:
        return kind.files, (train, records(kind.files[1]))
    cut = len(train) - len(train) // KEPT_BACK
    return (f"{kind.files[0]}[:{cut}]", f"{kind.files[0]}[{cut}:]"), (train[:cut], train[cut:])


def majority(train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Scores of the most frequent answer."""
    if "tags" in train[0]:
        return {"entity_f1": 0.0}  # most words are no part of a name
    if "label" not in train[0]:
        return {}
    names = sorted({row["label"] for row in (*train, *test)})
    ((best, _),) = Counter(row["label"] for row in train).most_common(1)
    right = np.array([names.index(row["label"]) for row in test], dtype=np.int64)
    answers = np.full_like(right, names.index(best))
    return {"accuracy": float((right == answers).mean()), "relation_f1": relation_f1(right, answers, names)}


def settings_of(kind: Kind, arm: str, count: int) -> list[str]:
    """What an arm changes. ``count``: training records."""
    sites = 1 if arm in ("probe", "central") else SITES
    alone = arm not in ("central", "sites")
    rounds, rate = (kind.head_rounds, kind.head_rate) if alone else (kind.rounds, kind.rate)
    common = [
        f"sites.count={sites}", f"sites.minimum={sites}", f"stage.rounds={rounds}", f"data.test_every={rounds}",
        f"train.sampling_rate={rate}", f"train.batch_size={rate * count / sites:g}",
    ]  # fmt: skip
    if not alone:
        return [*common, f"train.steps={kind.steps}", *kind.both]
    head = ["aggregation.rule=head-only", "adapter.last_layers=1", "train.method=lockstep", "train.steps=1", *kind.head]
    if arm == "probe":
        return [*common, *head]
    private = ["privacy.enabled=true", "privacy.unit=record", f"privacy.epsilon={arm}", "privacy.noise=sum"]
    return [*common, *head, *private, "secure.sum=true"]


def measure(name: str, arm: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One run."""
    kind = KINDS[name]
    sources, (train, _) = parts(kind, given.choose)
    settings = [f"seed={seed}", f"data.train={sources[0]}", f"data.test={sources[1]}", "data.baseline=0"]
    run = play(name, [*settings, *settings_of(kind, arm, len(train)), *given.settings], remember=True)
    row: dict[str, Any] = {"kind": name, "arm": arm, "seed": seed}
    for metric in kind.metrics:
        curve = [r["value"] for r in run.rows() if r["metric"] == metric and r["scope"] == "global"]
        row |= {f"untrained {metric}": 100 * curve[0], metric: 100 * curve[-1]}
    if arm.isdigit():
        row["spent"] = last(run, "epsilon")
    print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    return row


def table(name: str, rows: Sequence[Mapping[str, Any]], given: argparse.Namespace) -> None:
    """One kind's."""
    metrics = KINDS[name].metrics
    _, (train, test) = parts(KINDS[name], given.choose)
    common = majority(train, test)
    lines = [
        ["untrained", *(spread([row[f"untrained {metric}"] for row in rows]) for metric in metrics)],
        ["majority", *(f"{100 * common[metric]:.4f}" if metric in common else "-" for metric in metrics)],
    ]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        lines.append([arm, *(spread([row[metric] for row in mine]) for metric in metrics)])
    where = "the last fifth of the training records" if given.choose else "the test records"
    show(f"{name}: {len(train)} records to train, {len(test)} scored ({where}), in %", ["arm", *metrics], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="?", default=",".join(KINDS))
    parser.add_argument("--arms", default="probe,central,sites,8,3")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    rows = []
    for name in given.kinds.split(","):
        mine = [measure(name, arm, int(s), given) for arm in given.arms.split(",") for s in given.seeds.split(",")]
        table(name, mine, given)
        rows += mine
    write("tasks", {"rows": rows, "settings": given.settings})


if __name__ == "__main__":
    main()
