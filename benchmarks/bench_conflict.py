"""Sites on other stages, and a site at odds with the others: one adapter against a slot for each stage.

    python benchmarks/bench_conflict.py [--seeds 1,2,3] [--arms "one adapter;slots + route"] [--set KEY=VALUE]

DBpedia, Amazon, Yahoo, AG News over five sites, three rounds each, scored over all 33 labels. Three streams:

* calm       every site follows the calendar
* apart      one site learns the domains backwards, one begins three rounds late
* at odds    as ``apart``, and one site calls every rating of a review its opposite

150 records of each domain are public (drawn before the sites' shares, so no site has them); only ``slots`` and
``route`` look at them. Each arm's difference to one adapter is taken seed by seed.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from bench import last, need, play, show, spread, write

DOMAINS = ("dbpedia", "amazon", "yahoo", "agnews")
PUBLIC, TRAIN = 150, 1200
LOOP = [
    "model.max_tokens=32",
    'adapter.targets=["query","value"]',
    "data.train_size=0",
    "data.test_size=300",
    "data.test_every=3",
    "train.micro_batch=64",
    "train.steps=4",
    "train.sampling_rate=0.15",
    "train.batch_size=36",
    "train.lr=0.05",
    *(f"stage.{number}.rounds=3" for number in range(4)),
]
ARMS = {
    "one adapter": [],
    "one adapter, distill": ["distill"],
    "slots": ["slots"],
    "slots + route": ["slots", "route"],
}
BASELINE = "one adapter"
APART = [
    'stream.arrival.site-03.order=["agnews","yahoo","amazon","dbpedia"]',
    "stream.arrival.site-04.offset_rounds=3",
]
FLIP = {
    "very negative": "very positive",
    "negative": "positive",
    "positive": "negative",
    "very positive": "very negative",
}
STREAMS = {
    "calm": [],
    "apart": APART,
    "at odds": [
        *APART,
        "stream.arrival.site-02.relabel={" + ", ".join(f'"{k}" = "{v}"' for k, v in FLIP.items()) + "}",
    ],
}
METRICS = ("average_accuracy", "la", "forgetting")


def split(folder: Path, seed: int) -> list[str]:
    """Public and private records of each domain as files of their own; the settings that name them."""
    settings = []
    for number, name in enumerate(DOMAINS):
        lines = need(f"../shared/data/cl_benchmark/{name}_train.jsonl").read_text(encoding="utf-8").splitlines()
        random.Random(f"{seed}/{name}").shuffle(lines)
        for kind, part in (("public", lines[:PUBLIC]), ("train", lines[PUBLIC : PUBLIC + TRAIN])):
            path = folder / f"{name}-{kind}.jsonl"
            path.write_text("\n".join(part) + "\n", encoding="utf-8")
            settings.append(f"stage.{number}.{kind}={json.dumps(str(path))}")
    return settings


def measure(arms: list[str], streams: list[str], seeds: list[int], settings: list[str]) -> dict[str, Any]:
    """stream -> arm -> metric -> a value for each seed."""
    found: dict[str, Any] = {s: {arm: {metric: [] for metric in METRICS} for arm in arms} for s in streams}
    for seed in seeds:
        files = split(Path(tempfile.mkdtemp(prefix="bench-")), seed)
        for stream in streams:
            for arm in arms:
                guards = [f"continual.guards={json.dumps(ARMS[arm])}", 'continual.public=""', f"seed={seed}"]
                run = play("standard-order-lora", [*LOOP, *files, *STREAMS[stream], *guards, *settings], remember=True)
                for metric in METRICS:
                    found[stream][arm][metric].append(100 * last(run, metric, scope="run"))
                print(stream, arm, seed, {metric: round(found[stream][arm][metric][-1], 1) for metric in METRICS})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--arms", default=";".join(ARMS), help='separated by ";"')
    parser.add_argument("--streams", default=",".join(STREAMS))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",")]
    found = measure(given.arms.split(";"), given.streams.split(","), seeds, given.settings)
    for stream, arms in found.items():
        lines = []
        for arm, values in arms.items():
            gained = [a - b for a, b in zip(values[METRICS[0]], arms.get(BASELINE, values)[METRICS[0]], strict=True)]
            lines.append([arm, *(spread(values[metric]) for metric in METRICS), spread(gained)])
        header = ["arm", "average accuracy, %", "learned, %", "forgotten, points", f"accuracy over {BASELINE}"]
        show(f"Four domains over five sites, {stream}", header, lines)
    write("conflict", {"found": found, "settings": [*LOOP, *given.settings], "streams": STREAMS})


if __name__ == "__main__":
    main()
