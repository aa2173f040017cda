"""BANKING77 over 10 skewed sites: accuracy of federated LoRA, with and without differential privacy.

    python benchmarks/bench_banking77.py                      no privacy
    python benchmarks/bench_banking77.py --epsilon 8          DP-SGD at every site, person level, delta 1e-5
    python benchmarks/bench_banking77.py --epsilon 8 --unit record
    python benchmarks/bench_banking77.py --like-private           no privacy, the loop of the private runs
    options: --seeds 1,2,3   --set KEY=VALUE (repeatable)

BANKING77 names no persons, so each site's records are handed to made-up persons with 1 to 4 records each (mean 2.5).
Sampling rate and steps of the person-level runs were chosen by the accountant alone (q sqrt(T) / z over 9 passes of the
data, with no fewer than 30 steps), on no record at all; model and learning rate are those of the record-level runs.

Baselines in the same run: zero-shot (round 0, nothing trained) and a linear probe (logistic regression on frozen
mean-pooled embeddings of all records pooled in one place, no privacy): what a site could not have without sharing data.
"""

from __future__ import annotations

import argparse

import torch
from bench import last, need, play, show, spread, write
from torch.nn import functional as F

from llmchain_fl.config.read import read_config
from llmchain_fl.core.tasks.base import Examples, by_length
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.work import open_work
from llmchain_fl.data.stages import public_labels, stage_rows
from llmchain_fl.planning.work import work_from
from llmchain_fl.scenario import find_scenario

SMALL = [
    "train.micro_batch=64",
    "task.head=trained",
    'adapter.targets=["query","value"]',
    "adapter.rank=4",
    "train.lr=0.02",
]
LOOPS = {
    "record": ["train.sampling_rate=0.1", "train.batch_size=100", "train.steps=6"],
    "person": [
        "train.sampling_rate=0.3",
        "train.batch_size=120",
        "train.steps=3",
        "stage.rounds=10",
        "data.made_up_persons=4",
    ],
}


def embed(task: Classification, examples: Examples) -> torch.Tensor:
    """Frozen mean-pooled embeddings, [n, H]."""
    out = torch.zeros(len(examples), task.resident.base.hidden_size)
    with torch.no_grad():
        for index in by_length(examples, 128):
            out[index] = task._pooled(examples, index)
    return out


def linear_probe() -> float:
    """Test accuracy of multinomial logistic regression (L-BFGS, weight decay 1e-4) on frozen embeddings."""
    config = read_config(find_scenario("banking77-lora"), ["adapter.last_layers=1", "task.head=label-text"])
    labels = public_labels(config)
    work = work_from(config, labels, ("lora_B",), None)
    _, task = open_work(work.resident, work.task)
    assert isinstance(task, Classification)
    sets = {
        which: task.encode(stage_rows(config, config.stage[0], which, list(labels)).records)
        for which in ("train", "test")
    }
    x = {which: embed(task, examples) for which, examples in sets.items()}
    y = {k: torch.from_numpy(e.targets) for k, e in sets.items()}
    head = torch.nn.Linear(x["train"].shape[1], len(labels))
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(head(x["train"]), y["train"]) + 1e-4 * head.weight.pow(2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return float((head(x["test"]).argmax(1) == y["test"]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epsilon", type=float, default=0.0)
    parser.add_argument("--unit", choices=sorted(LOOPS), default="person")
    parser.add_argument("--like-private", action="store_true")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    need("../shared/data/banking77/train.csv")
    private = [*SMALL, *LOOPS[given.unit]] if given.epsilon or given.like_private else []
    if given.epsilon:
        private += ["privacy.enabled=true", f"privacy.unit={given.unit}", f"privacy.epsilon={given.epsilon}"]
    lines, finals = [], []
    for seed in map(int, given.seeds.split(",")):
        run = play("banking77-lora", [*private, *given.settings, f"seed={seed}"])
        curve = [row["value"] for row in run.rows() if row["metric"] == "accuracy" and row["scope"] == "global"]
        spent = last(run, "epsilon") if given.epsilon else None
        finals.append(curve[-1])
        lines.append(
            [seed, f"{curve[0]:.4f}", f"{max(curve):.4f}", f"{curve[-1]:.4f}", "-" if spent is None else f"{spent:.3f}"]
        )
    probe = linear_probe()
    terms = f"epsilon: {given.unit} level, delta 1e-5, PLD, all rounds" if given.epsilon else "no privacy"
    show(
        f"BANKING77, 10 sites, Dirichlet 0.5 ({terms})",
        ["seed", "zero-shot", "best round", "last round", "epsilon"],
        lines,
    )
    print(
        f"  last round: {spread(finals)};  linear probe on pooled data: {probe:.4f};"
        f"  ratio {sum(finals) / len(finals) / probe:.3f}"
    )
    name = "banking77-like-private" if given.like_private else "banking77"
    if given.epsilon:
        name = f"banking77-{given.unit}-eps{given.epsilon:g}"
    write(name, {"rows": lines, "last": finals, "linear_probe": probe, "settings": [*private, *given.settings]})


if __name__ == "__main__":
    main()
