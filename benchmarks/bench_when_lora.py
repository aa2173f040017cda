"""When to train what: a head on frozen features, or LoRA beside it, on sets of strong and of weak features.

    python benchmarks/bench_when_lora.py [--sets sst2,medical] [--arms "..."] [--seeds 1,2] [--set KEY=VALUE]
    python benchmarks/bench_when_lora.py --choose        SST-2's dev records in place of all test records

Ten sites (Dirichlet 0.5), persons of 1 to 4 records, delta 1e-5, PLD, noise on the masked sum, at least 9 of 10 sites.

* closed form         what a run without privacy gets that names no way to train, one round
* LoRA                rank 8 in all layers (rule ``ffa``) beside a trained head, lockstep, no privacy
* LoRA, closed form   the arm before it, frozen; then a head in closed form on its features
* head, EPS           what a private run gets that names no way to train: the head alone
* head + LoRA, EPS    rank 4 in the last two layers (``ffa``) beside the head, lockstep, the same budget

Learning rates of the LoRA arms are those that were best with ``--choose``; no test record was looked at for them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import last, need, play, show, spread, write

FOLDER = "../shared/data"
SETS = {
    "sst2": ["negative", "positive"],
    "medical": [
        "neoplasms",
        "digestive system diseases",
        "nervous system diseases",
        "cardiovascular diseases",
        "general pathological conditions",
    ],
    "banking77": [],
}
TOKENS = {"sst2": 32, "medical": 64, "banking77": 64}
FILES = {"sst2": "sst2", "medical": "medical_abstracts", "banking77": "banking77"}
SITES = ["data.made_up_persons=4", "secure.survivors=9", "data.test_every=1000", "stage.rounds=30"]
LOCKSTEP = ["train.method=lockstep", "train.steps=1", "task.head=trained", "aggregation.rule=ffa"]
LORA = [*LOCKSTEP, "adapter.rank=8", "adapter.alpha=16", "train.sampling_rate=0.02", "stage.rounds=150"]
SMALL = ["adapter.rank=4", "adapter.alpha=8", "adapter.last_layers=2", 'adapter.targets=["query","value"]']
BESIDE = [*LOCKSTEP, *SMALL, "train.sampling_rate=0.2", "stage.rounds=30", "secure.sum=true", "privacy.noise=sum"]
PLAIN = ["secure.sum=false"]
LR = {"LoRA": "0.002", "head + LoRA": "0.01"}


def settings_of(name: str, choose: bool) -> list[str]:
    """The set as a run of the scenario ``banking77``."""
    part = "dev" if choose and name == "sst2" else "test"
    paths = [f"data.{kind}={FOLDER}/{FILES[name]}/{file}.csv" for kind, file in (("train", "train"), ("test", part))]
    labels = [f"task.labels={[*SETS[name]]}".replace("'", '"')] if SETS[name] else []
    return [*SITES, *paths, *labels, f"model.max_tokens={TOKENS[name]}"]


def played(settings: Sequence[str], folder: Path) -> float:
    """Right answers at the end of a run, in percent."""
    run = play("banking77", settings, keep=folder, remember=True)
    return 100 * last(run, "accuracy", scope="global")


def arms_of(base: Sequence[str], seed: int, arms: Sequence[str], changed: Sequence[str]) -> dict[str, float]:
    """Arm -> right answers of one seed."""
    right: dict[str, float] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        common = [*base, f"seed={seed}"]
        closed = [*common, "train.method=closed-form", "stage.rounds=1", *changed]
        first = [*common, *LORA, *PLAIN, f"train.lr={LR['LoRA']}", *changed]
        if "closed form" in arms:
            right["closed form"] = played(closed, folder / "closed")
        if {"LoRA", "LoRA, closed form"} & set(arms):
            right["LoRA"] = played(first, folder / "lora")
        if "LoRA, closed form" in arms:
            start = next((folder / "lora" / "stages").glob("*/adapter"))
            shape = [s for s in LORA if s.startswith("adapter.")]
            right["LoRA, closed form"] = played([*closed, *shape, f"adapter.start={start}"], folder / "after")
        for epsilon in (8, 3):
            private = [*common, "privacy.enabled=true", f"privacy.epsilon={epsilon}"]
            if f"head, {epsilon}" in arms:
                right[f"head, {epsilon}"] = played([*private, *changed], folder / f"head-{epsilon}")
            if f"head + LoRA, {epsilon}" in arms:
                told = [*private, *BESIDE, f"train.lr={LR['head + LoRA']}", *changed]
                right[f"head + LoRA, {epsilon}"] = played(told, folder / f"lora-{epsilon}")
    return right


ARMS = ["closed form", "LoRA", "LoRA, closed form", "head, 8", "head + LoRA, 8", "head, 3", "head + LoRA, 3"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="sst2,medical")
    parser.add_argument("--arms", default=";".join(ARMS))
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    arms, table = given.arms.split(";"), {}
    for name in given.sets.split(","):
        need(f"{FOLDER}/{FILES[name]}/train.csv")
        rows = []
        for seed in given.seeds.split(","):
            rows.append(arms_of(settings_of(name, given.choose), int(seed), arms, given.settings))
            print(name, seed, {arm: round(value, 1) for arm, value in rows[-1].items()}, flush=True)
        table[name] = {arm: [row[arm] for row in rows] for arm in rows[0]}
        show(f"{name}: right answers, %", ["arm", "right"], [[arm, spread(v)] for arm, v in table[name].items()])
    write("when-lora" + ("-chosen" if given.choose else ""), {"right": table, "settings": given.settings})


if __name__ == "__main__":
    main()
