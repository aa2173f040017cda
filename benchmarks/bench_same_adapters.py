"""Does another version give the same adapters from the same seed? Whole runs without privacy, in both, array by array.

    python benchmarks/bench_same_adapters.py OTHER_CHECKOUT      a checkout of that version, with its own .venv
    python benchmarks/bench_same_adapters.py OTHER_CHECKOUT --only guard

Every rule, every guard and some other parts, one short run each on three sites. Records are files that this version
writes, and the scenario is one file of settings that both versions know; a rule or guard that the other one has not is
left out. "equal": the files of all arrays are the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench import ROOT, show, write
from safetensors.numpy import load_file

from llmchain_fl.aggregation import RULES
from llmchain_fl.data.generated import generate, label_texts
from llmchain_fl.guards import GUARDS

SHORT = """
seed = 7
[model]
path = "minilm"
max_tokens = 32
threads = 1
[adapter]
rank = 4
alpha = 16.0
targets = ["query", "value"]
last_layers = 1
[task]
kind = "classification"
head = "label-text"
labels = "{folder}/labels.json"
[data]
train = "{folder}/train.csv"
test = "{folder}/test.csv"
dev = "{folder}/public.csv"
[sites]
count = 3
partition = "iid"
held_out = 0.2
[train]
steps = 2
sampling_rate = 0.2
batch_size = 8
lr = 0.02
[aggregation]
rule = "ffa"
[privacy]
enabled = false
[continual]
guards = []
public = "{folder}/public.csv"
[[stage]]
name = "cards"
rounds = 1
where = {{ stage = "cards" }}
[[stage]]
name = "payments"
rounds = 1
where = {{ stage = "payments" }}
"""
SIZES = {"train": (1, 240, "train"), "test": (2, 60, "test"), "public": (3, 60, "train")}
FIRST = {"route": '["slots","route"]'}
"""Guards that need another one before them."""
OTHERS = {
    "sgd, FedProx": ["train.optimizer=sgd", "train.proximal=0.1"],
    "server Adam": ["aggregation.optimizer=adam", "aggregation.optimizer_lr=0.01"],
    "trained head": ["task.head=trained"],
    "median": ["aggregation.robust=median", "aggregation.hostile=1", "sites.count=5", "sites.minimum=5"],
    "int8": ["compression.up=int8"],
    "all layers": ["adapter.last_layers=0", 'adapter.targets="all-linear"'],
}


def cases() -> dict[str, list[str]]:
    """Name -> settings."""
    found = {f"rule {name}": [f"aggregation.rule={name}"] for name in RULES}
    for name in GUARDS:
        found[f"guard {name}"] = [f"continual.guards={FIRST.get(name, f'[{chr(34)}{name}{chr(34)}]')}"]
    return found | OTHERS


def write_inputs(folder: Path) -> Path:
    """Records, labels and the scenario; the scenario's path."""
    for name, (seed, size, split) in SIZES.items():
        rows = generate("bank-messages", seed=seed, size=size, split=split)
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    (folder / "labels.json").write_text(json.dumps(dict(label_texts)), encoding="utf-8")
    scenario = folder / "scenario.toml"
    scenario.write_text(SHORT.format(folder=folder), encoding="utf-8")
    return scenario


def play(root: Path, scenario: Path, folder: Path, settings: list[str]) -> str:
    """Run it with the version at ``root``; what went wrong, or ""."""
    told = [part for setting in settings for part in ("--set", setting)]
    program = [str(root / ".venv/bin/python"), "-c", "from llmchain_fl.cli.main import main; main()"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [*program, "simulate", str(scenario), "--out", str(folder), *told],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no word"])[-1][:90]


def difference(one: Path, other: Path) -> str:
    """Of all arrays that both runs wrote: equal, or the largest difference."""
    names = sorted(path.relative_to(one) for path in one.rglob("*.safetensors") if "state" not in path.parts)
    if names != sorted(path.relative_to(other) for path in other.rglob("*.safetensors") if "state" not in path.parts):
        return "other files"
    largest, count = 0.0, 0
    for name in names:
        ours, theirs = load_file(one / name), load_file(other / name)
        if set(ours) != set(theirs):
            return f"other arrays in {name}"
        count += len(ours)
        largest = max([largest, *(float(np.abs(ours[key] - theirs[key]).max()) for key in ours)])
    return f"equal ({count} arrays)" if largest == 0 else f"differs by {largest:.2g}"


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    rows = []
    for name, settings in cases().items():
        if given.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            scenario = write_inputs(Path(folder))
            ours, theirs = Path(folder) / "ours", Path(folder) / "theirs"
            faults = [
                play(ROOT, scenario, ours, settings),
                play(given.other.resolve(), scenario, theirs, settings),
            ]
            said = " | ".join(filter(None, faults)) or difference(ours, theirs)
        print(f"{name}: {said}", file=sys.stderr)
        rows.append({"run": name, "arrays": said})
    show("the same seed, two versions", ["run", "arrays"], [[row["run"], row["arrays"]] for row in rows])
    write("same-adapters", {"runs": rows})


if __name__ == "__main__":
    main()
