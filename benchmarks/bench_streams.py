"""Class-incremental streams: what training each stage over its own labels gives, with privacy and without.

    python benchmarks/bench_streams.py [--sets banking77,standard] [--privacy none,8,3] [--seeds 1,2,3]
                                       [--arms "naive;mask"] [--set KEY=VALUE]

* banking77  its 77 labels in three stages of 26, 26 and 25, drawn by the seed
* standard   DBpedia, Amazon, Yahoo, AG News in this order, 33 labels, 2,000 records a domain; without privacy alone

Five sites (Dirichlet 0.5); frozen features, a trained head that starts from the labels' texts (rule ``head-only``),
one step a round that all sites take together (``lockstep``). With privacy one person has 1 to 4 records and is in one
stage; the noise is shared by the sites (``privacy.noise = "sum"``); delta 1e-5, PLD.

Each arm has the learning rate that was best in a sketch in numpy (not kept here) on seed 9, which is not among the
seeds, and on records that are no test records: a sixth of BANKING77's training records, of the four domains the 75
public records of each that no guard looks at. ``as shipped`` names no way to train: heads in closed form without
privacy, a masked head in lockstep with it. ``slots, route`` is the scenario ``standard-order-lora``.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench import last, need, play, show, spread, write

METRICS = ("average_accuracy", "la", "forgetting")
LOOP = [
    "sites.count=5",
    "task.head=trained",
    "aggregation.rule=head-only",
    "train.method=lockstep",
    "train.steps=1",
    "train.batch_size=100",
    "secure.sum=false",
    "privacy.noise=site",
    "data.test_every=1000",
    "data.baseline=0",
]
PRIVATE = [
    "privacy.enabled=true",
    "privacy.unit=person",
    "privacy.stages=disjoint",
    "data.made_up_persons=4",
    "privacy.noise=sum",
    "secure.sum=true",
    "secure.survivors=5",
]
MASK, ALL = 'continual.guards=["mask"]', "continual.mask.others=1.0"
REPLAY = ['continual.guards=["mask","replay"]', "continual.replay.weight=3.0", "continual.replay.batch=64"]


SHIPPED = "as shipped"


@dataclass(frozen=True)
class Stream:
    """A scenario, the loop of its arms, and what tells them apart; which arms are a scenario as it is, and which are
    played with privacy, too."""

    scenario: str
    needs: tuple[str, ...]
    loop: tuple[str, ...]
    arms: dict[str, list[str]]
    as_shipped: Mapping[str, str]
    private: tuple[str, ...] = ()


STREAMS = {
    "banking77": Stream(
        "banking77-stages",
        ("banking77/train.csv", "banking77/test.csv"),
        (*LOOP, "stage.rounds=20", "train.sampling_rate=0.3"),
        {
            "naive": ["continual.guards=[]", "train.lr=0.001"],
            "mask": [MASK, "train.lr=0.01"],
            "mask, distill": ['continual.guards=["mask","distill"]', "train.lr=0.01"],
            "joint": ["continual.guards=[]", "stream.play=joint", "train.lr=0.01"],
            SHIPPED: [],
        },
        {SHIPPED: "banking77-stages"},
        private=("naive", "mask", "joint", SHIPPED),
    ),
    "standard": Stream(
        "standard-order",
        tuple(f"cl_benchmark/{name}_train.jsonl" for name in ("dbpedia", "amazon", "yahoo", "agnews")),
        (*LOOP, "stage.rounds=40", "train.sampling_rate=0.15"),
        {
            "naive": ["continual.guards=[]", "train.lr=0.0005"],
            "mask": [MASK, "train.lr=0.002"],
            "mask, others 1": [MASK, ALL, "train.lr=0.002"],
            "mask, others 1, replay": [*REPLAY, ALL, "train.lr=0.002"],
            "slots, route": ["data.baseline=0"],
            "joint": ["continual.guards=[]", "stream.play=joint", "train.lr=0.002"],
            SHIPPED: [],
        },
        {SHIPPED: "standard-order", "slots, route": "standard-order-lora"},
    ),
}


def labels_of(seed: int) -> list[str]:
    """BANKING77's labels in three stages, drawn by ``seed``."""
    names = list(json.loads(need("../shared/data/banking77/labels.json").read_text(encoding="utf-8")))
    random.Random(f"stages/{seed}").shuffle(names)
    return [f"stage.{i}.labels={json.dumps(part)}" for i, part in enumerate((names[:26], names[26:52], names[52:]))]


def settings_of(name: str, arm: str, privacy: str, seed: int) -> list[str]:
    """Everything in which a run differs from its scenario."""
    stream = STREAMS[name]
    loop = [] if arm in stream.as_shipped else list(stream.loop)
    given = ["privacy.enabled=true"] if arm in stream.as_shipped else PRIVATE
    private = [] if privacy == "none" else [*given, f"privacy.epsilon={privacy}"]
    stages = labels_of(seed) if name == "banking77" else []
    return [*loop, *private, *stages, *stream.arms[arm], f"seed={seed}"]


def measure(name: str, privacy: list[str], seeds: list[int], arms: list[str], changed: list[str]) -> dict[str, Any]:
    """privacy -> arm -> metric -> a value for each seed."""
    stream = STREAMS[name]
    found: dict[str, Any] = {}
    for level in privacy if stream.private else [p for p in privacy if p == "none"]:
        able = stream.arms if level == "none" else stream.private
        found[level] = {arm: {metric: [] for metric in METRICS} for arm in able if not arms or arm in arms}
        for seed in seeds:
            for arm, values in found[level].items():
                run = play(
                    stream.as_shipped.get(arm, stream.scenario),
                    [*settings_of(name, arm, level, seed), *changed],
                    remember=True,
                )
                for metric in METRICS:
                    values[metric].append(100 * last(run, metric, scope="run"))
                print(name, level, arm, seed, {m: round(v[-1], 1) for m, v in values.items()}, flush=True)
        lines = [[arm, *(spread(values[m]) for m in METRICS)] for arm, values in found[level].items()]
        header = ["arm", "average accuracy, %", "learned, %", "forgotten, points"]
        show(f"{name} in stages, five sites, epsilon {level}", header, lines)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(STREAMS))
    parser.add_argument("--privacy", default="none,8,3")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--arms", default="", help='separated by ";"; all of a set unless told')
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    arms, seeds = [arm for arm in given.arms.split(";") if arm], [int(seed) for seed in given.seeds.split(",")]
    for name in given.sets.split(","):
        for path in STREAMS[name].needs:
            need(f"../shared/data/{path}")
        found = measure(name, given.privacy.split(","), seeds, arms, given.settings)
        write(f"streams-{name}-{given.privacy.replace(',', '-')}", {"found": found, "settings": given.settings})


if __name__ == "__main__":
    main()
