"""What the server of a masked run can read: tokens recovered from everything that it has, beside the plain run.

    python benchmarks/bench_secure_attack.py    10 minutes or so on two cores
    options: --seeds 5  --sites 4  --length 24  --epsilon 8  --examples 300  --rank 8

Each site has one private record of LENGTH tokens and takes part in every round with it. The second round is attacked
(in the first B is 0). The server knows everything but the records, and what masks, noise and rounding do to each number
(``simulations/secure_attack.py``). Two settings:

* pursue    rule fedit, one local step of SGD, unit ``site``: the rows of dA span the tokens
* learned   rule ffa, lockstep, unit ``person``: a linear map fitted on public text, through the same pipeline

Chance: as many guesses of the commonest tokens of public text. Baseline: the same attack on the plain run's updates.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import need, show, write
from bench_token_recovery import lines
from numpy.typing import NDArray

from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.privacy.attacks.secure_view import View
from llmchain_fl.privacy.attacks.token_recovery import most_frequent
from simulations.secure_attack import Attacked, play

ROUND = 2
MASKS = {"secure": {"sum": True}}
SETTINGS: Mapping[str, dict[str, Any]] = {
    "pursue": {"aggregation": {"rule": "fedit"}, "train": {"lr": 0.5}},
    "learned": {"aggregation": {"rule": "ffa"}, "train": {"method": "lockstep", "lr": 0.05}},
}
UNITS = {"pursue": "site", "learned": "person"}


def config(folder: Path, model: Path, given: argparse.Namespace, *more: Mapping[str, Any]) -> RunConfig:
    """A run of two rounds."""
    tree: dict[str, Any] = {
        "seed": 3,
        "model": {"path": str(model), "threads": 2, "max_tokens": given.length},
        "adapter": {"rank": given.rank},
        "task": {"kind": "plain-text"},
        "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "train.jsonl")},
        "sites": {"count": given.sites, "held_out": 0.0, "minimum": min(3, given.sites)},
        "train": {"steps": 1, "sampling_rate": 1.0, "batch_size": 1.0, "optimizer": "sgd", "momentum": 0.0},
        "continual": {"guards": []},
        "stage": [{"name": "only", "rounds": ROUND}],
    }
    for sections in more:
        for name, section in sections.items():
            tree[name] = {**tree.get(name, {}), **section}
    return build(tree)


def records(texts: list[str], length: int, count: int) -> list[dict[str, str]]:
    """Texts that are cut to the first ``length`` words, long enough to fill as many tokens."""
    long = [" ".join(text.split()[:length]) for text in texts if len(text.split()) >= length // 2]
    return [{"text": text, "person": f"p{number}"} for number, text in enumerate(long[:count])]


def guesses(attacked: Attacked, attack: str, public: list[dict[str, str]]) -> list[tuple[View, NDArray[np.bool_]]]:
    """Each view with the tokens that are guessed from it."""
    seen = attacked.seen()
    if attack == "pursue":
        return [(view, attacked.pursued(view)) for view in seen]
    made, bags, found = attacked.made(public), attacked.bags(public), []
    for name in dict.fromkeys(view.name for view in seen):
        alike = [view for view in seen if view.name == name]
        found += list(zip(alike, attacked.learned(made, bags, alike)[0], strict=True))
    return found


def cell(attack: str, given: argparse.Namespace, model: Path) -> dict[str, dict[str, list[tuple[float, float, int]]]]:
    """Run -> view -> (recall, recall by chance, guesses) of each view and seed."""
    noise = {"privacy": {"enabled": True, "epsilon": given.epsilon, "noise": "sum", "unit": UNITS[attack]}}
    runs = {"plain": (), "masks": (MASKS,), "masks and shared noise": (MASKS, noise)}
    found: dict[str, dict[str, list[tuple[float, float, int]]]] = {}
    for seed in range(given.seeds):
        public = records(lines("train", 6000, seed + 1), given.length, given.examples)
        private = records(lines("valid", 4000, seed + 1), given.length, given.sites)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in private), encoding="utf-8")
            for label, more in runs.items():
                told = config(folder, model, given, SETTINGS[attack], *more)
                attacked = Attacked(play(told, folder / label.replace(" ", "-")), ROUND)
                prior = attacked.bags(public).mean(axis=0)
                for view, guess in guesses(attacked, attack, public):
                    there = attacked.truth(view) > 0
                    luck = most_frequent(prior, int(guess.sum()))
                    row = (float(guess[there].mean()), float(luck[there].mean()), int(guess.sum()))
                    found.setdefault(label, {}).setdefault(view.name, []).append(row)
                print(f"  {attack}, seed {seed}, {label}: done", flush=True)
    return found


def summary(rows: list[tuple[float, float, int]]) -> dict[str, float]:
    """Means, and the standard error of what the attack has over chance."""
    told = np.array(rows)
    over = told[:, 0] - told[:, 1]
    error = float(over.std(ddof=1) / math.sqrt(len(over))) if len(over) > 1 else math.nan
    means = {
        "recall": told[:, 0].mean(),
        "chance": told[:, 1].mean(),
        "guesses": told[:, 2].mean(),
        "over": over.mean(),
    }
    return {**{name: float(value) for name, value in means.items()}, "standard_error": error, "views": len(rows)}


def cells(told: Mapping[str, float]) -> list[str]:
    """One line of the table."""
    over = f"{told['over']:+.3f} +- {told['standard_error']:.3f}"
    return [f"{told['recall']:.2f}", f"{told['chance']:.2f}", over, f"{told['guesses']:.0f}", f"{told['views']:g}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--length", type=int, default=24)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--rank", type=int, default=8)
    given = parser.parse_args()
    model = need("../shared/models/stories260K")
    torch.set_num_threads(2)
    found = {
        attack: {
            run: {view: summary(rows) for view, rows in views.items()}
            for run, views in cell(attack, given, model).items()
        }
        for attack in SETTINGS
    }
    table = [[attack, run, view, *cells(told)] for attack, runs in found.items() for run, views in runs.items()
             for view, told in views.items()]  # fmt: skip
    header = ["attack", "run", "what the server looks at", "recovered", "by chance", "over chance", "guesses", "views"]
    show(f"share of distinct tokens recovered, {given.sites} sites, {given.seeds} seeds, epsilon {given.epsilon:g} "
         "at delta 1e-5 of the server alone", header, table)  # fmt: skip
    write("secure-attack", {"found": found, "given": vars(given)})


if __name__ == "__main__":
    main()
