"""What one update gives away: tokens recovered from one local step, without and with differential privacy.

    python benchmarks/bench_token_recovery.py    ranks 8 and 32, 20 groups of private records a cell; 20 minutes or so
    options: --ranks 8,16,32  --texts 12x1,24x1,64x1,24x3,64x3  --rules fedit,ffa  --optimizers sgd,adam  --seeds 20
             --examples 2500

A site makes one step on TEXTS private records (``24x3``: three records of 24 tokens) from an adapter that has moved.
The server knows base, adapter, plan and optimiser, and guesses which tokens stood in the records: by ``pursue`` (the
rows of dA span the tokens; no data needed) and by ``learned`` (a linear map fitted on updates of public text, again
for every noise multiplier). The update under attack is made by ``client.local.train_round``, the real path.
Chance: the same number of guesses, spent on the commonest tokens of public text. ``rare``: tokens beyond the 100
commonest. Public and private records come from different files.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from bench import ROOT, need, show, write
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleHooks

from client.local import train_round
from llmchain_fl.aggregation import RULES
from llmchain_fl.config.read import read_config
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.work import TrainSpec, open_work
from llmchain_fl.data.source import read_rows
from llmchain_fl.planning.calibrate import calibrate
from llmchain_fl.planning.work import work_from
from llmchain_fl.privacy.attacks.token_recovery import (
    Recovery,
    learn_inverse,
    most_frequent,
    noise_floor,
    pursue,
    recovery,
)
from llmchain_fl.scenario import find_scenario

NOISE = (0.001, 0.01, 0.1, 0.5)
COLUMNS = 12_000
"""Entries of an update that ``learned`` looks at, drawn at random: more of them gain little and cost much."""
COMMON = 100
FIRST_LAYER = [f"model.layers.0.self_attn.{name}_proj.lora_A" for name in "qkv"]


@dataclass
class Bench:
    """A task at a moved adapter, and everything about the loop that the server knows."""

    task: Task
    loop: TrainSpec
    lr: float
    plan: PrivacyPlan
    start: torch.Tensor

    def update(self, examples: Examples, group: Sequence[int], z: float | None) -> NDArray[np.float32]:
        """One step of the real path on ``group``, every record its own person; the trained vector's move, [P]."""
        resident = self.task.resident
        resident.theta.copy_(self.start)
        plan = None if z is None else replace(self.plan, noise_multiplier=z)
        batch = [np.array([i], dtype=np.int64) for i in group]
        train_round(self.task, examples, [batch], self.loop, plan, SiteGuards([], {}), self.lr)
        return (resident.trained - self.start[: resident.trained_size]).numpy().copy()

    def noise_std(self, z: float | None) -> float:
        """Of the noise on one entry of an SGD update."""
        return 0.0 if z is None else self.lr * z * self.plan.clip_norm / self.loop.batch_size


def lines(which: str, count: int, seed: int) -> list[str]:
    """Public (``train``) or private (``valid``) text: real dialogues, or made-up ones where those are absent."""
    real = ROOT / f"../shared/data/corpora/dialogue_{which}.txt"
    if real.exists():
        found = real.read_text(encoding="utf-8").splitlines()
        order = np.random.default_rng(seed).permutation(len(found))
        return [found[i] for i in order[:count]]
    split = "train" if which == "train" else "test"
    rows = read_rows("generated:bank-dialogues", mapping={}, required=(), split=split, seed=seed, size=count)
    return [f"{row['prompt'].rpartition('Customer: ')[2]} {row['answer']}" for row in rows.records]


def records(task: Task, texts: Sequence[str], length: int, pieces: int) -> Examples:
    """Up to ``pieces`` records of exactly ``length`` tokens from each text."""
    cut = [text.split() for text in texts]
    step = max(4, length // 2)
    rows = [{"text": " ".join(words[i * step :])} for words in cut for i in range(pieces) if len(words) > i * step]
    examples = task.encode(rows)
    keep = [i for i, ids in enumerate(examples.ids) if len(ids) == length]
    return Examples([examples.ids[i] for i in keep], examples.targets[keep])


def opened(rule: str, rank: int, length: int, optimizer: str, public: Sequence[str]) -> Bench:
    """The task, and an adapter after eight steps on public text (so that B is not zero)."""
    settings = [
        "task.kind=plain-text",
        f"adapter.rank={rank}",
        f"adapter.alpha={2.0 * rank}",
        f"model.max_tokens={length}",
        "model.cache_mb=0",
        f"aggregation.rule={rule}",
        "continual.guards=[]",
    ]
    config = read_config(find_scenario("instructions"), settings)
    work = work_from(config, {}, RULES[rule].trained, None)
    resident, task = open_work(work.resident, work.task)
    resident.reset()
    warm = records(task, public[:200], length, 1)
    batches = [[np.array([i]) for i in range(8 * k, 8 * k + 8) if i < len(warm)] for k in range(8)]
    train_round(task, warm, batches, replace(work.train, steps=8), None, SiteGuards([], {}), 0.01)
    momentum = 0.9 if optimizer == "adam" else 0.0
    loop = replace(work.train, steps=1, optimizer=optimizer, momentum=momentum)
    total = config.train.steps * config.total_rounds
    z = calibrate(8.0, 1e-5, config.train.sampling_rate, total)
    plan = PrivacyPlan(
        sampling_rate=config.train.sampling_rate,
        noise_multiplier=z,
        clip_norm=1.0,
        steps_per_round=1,
        divisor=loop.batch_size,
        delta=1e-5,
    )
    return Bench(task, loop, config.train.lr, plan, resident.theta.clone())


def gradients(bench: Bench, examples: Examples, columns: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    """Each record's gradient at the global adapter: (norm [n], the chosen entries [n, len(columns)])."""
    resident = bench.task.resident
    resident.theta.copy_(bench.start)
    hooks = GradSampleHooks(resident.module, batch_first=True, loss_reduction="sum", strict=False)
    norms, parts = [], []
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    for first in range(0, len(examples), 32):
        index = range(first, min(first + 32, len(examples)))
        bench.task.losses(bench.task.forward(examples, index)).sum().backward()
        rows = []
        for name in resident.trained_names:
            parameter = resident.parameters[name]
            rows.append(parameter.grad_sample.reshape(len(index), -1))
            parameter.grad = parameter.grad_sample = None
        whole = torch.cat(rows, dim=1)
        norms.append(whole.norm(dim=1))
        parts.append(whole[:, columns])
    hooks.remove_hooks()
    return torch.cat(norms), torch.cat(parts)


def simulated(
    bench: Bench,
    made: tuple[torch.Tensor, torch.Tensor],
    groups: NDArray[np.int64],
    z: float | None,
    draw: torch.Generator,
) -> torch.Tensor:
    """Updates as the site would make them from public records: clip, sum, divide, first optimiser step.

    Adam bends the noise, so it is drawn here; with SGD it is Gaussian in the update and left to ``learn_inverse``.
    """
    norms, parts = made
    if z is not None:
        parts = parts * (bench.plan.clip_norm / norms).clamp(max=1.0)[:, None]
    total = torch.stack([parts[group].sum(dim=0) for group in groups])
    if z is not None and bench.loop.optimizer == "adam":
        total += z * bench.plan.clip_norm * torch.randn(total.shape, generator=draw)
    step = total / bench.loop.batch_size
    return -bench.lr * (step / (step.abs() + 1e-8) if bench.loop.optimizer == "adam" else step)


def public_groups(count: int, batch: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """As many groups as records; those of the last fifth share no record with the others. [count, batch]"""
    cut = count - count // 5
    parts = [(0, cut), (cut, count)]
    return np.array([draw.permutation(np.arange(low, high))[:batch] for low, high in parts for _ in range(low, high)])


def first_layer(task: Task) -> NDArray[np.float64]:
    """What every token of the vocabulary puts into q, k and v of the first layer, [V, width]."""
    model = task.resident.base.module.model
    with torch.no_grad():
        return model.layers[0].input_layernorm(model.embed_tokens.weight).double().numpy()


def span_guess(bench: Bench, update: NDArray[np.float32], z: float | None, known: Sequence[int]) -> NDArray[np.bool_]:
    """``pursue`` on the rows of dA of the first layer."""
    resident, place, rows = bench.task.resident, 0, []
    for name in resident.trained_names:
        size = math.prod(resident.shapes[name])
        if name in FIRST_LAYER:
            rows.append(update[place : place + size].reshape(resident.shapes[name]))
        place += size
    stacked = np.concatenate(rows)
    floor = noise_floor(stacked.shape, float(resident.theta.abs().max()), bench.noise_std(z))
    dictionary = first_layer(bench.task)
    guess = np.zeros(len(dictionary), dtype=np.bool_)
    guess[list(pursue(stacked, dictionary, floor, known))] = True
    return guess


def mean(values: Sequence[float]) -> float:
    """Mean of what is not NaN."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def cell(rule: str, rank: int, length: int, batch: int, optimizer: str, given: argparse.Namespace) -> list[Any]:
    """All noise multipliers of one setting: one row for each attack."""
    public = lines("train", 4000, 1)
    bench = opened(rule, rank, length, optimizer, public)
    task = bench.task
    draw, torch_draw = np.random.default_rng([rank, length, batch]), torch.Generator().manual_seed(rank)
    ours, theirs = records(task, public[200:], length, 4), records(task, lines("valid", 4000, 1), length, 1)
    chosen = draw.permutation(len(ours))[: given.examples]
    ours = Examples([ours.ids[i] for i in chosen], ours.targets[chosen])
    size = len(task.resident.base.tokenizer)
    tokenizer = task.resident.base.tokenizer
    known = [tokenizer.bos_token_id, tokenizer.eos_token_id]

    def bags(examples: Examples, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        each = np.array([np.bincount(ids, minlength=size) for ids in examples.ids])
        each[:, known] = 0
        return each[groups].sum(axis=1)

    groups = public_groups(len(ours), batch, draw)
    targets = np.stack([draw.permutation(len(theirs))[:batch] for _ in range(given.seeds)])
    counts, truth = bags(ours, groups), bags(theirs, targets)
    prior = counts.mean(axis=0)
    common = most_frequent(prior, COMMON)
    columns = np.sort(draw.permutation(task.resident.trained_size)[:COLUMNS])
    began = time.perf_counter()
    made = gradients(bench, ours, columns)
    shared_seconds = time.perf_counter() - began
    settings: list[tuple[str, float | None]] = [("none", None), *((f"{z:g}", z) for z in NOISE)]
    settings.append(("epsilon 8", bench.plan.noise_multiplier))
    found: dict[str, dict[str, Any]] = {}
    for label, z in settings:
        updates = np.stack([bench.update(theirs, group, z) for group in targets])
        began = time.perf_counter()
        noise = bench.noise_std(z) if optimizer == "sgd" else 0.0
        inverse = learn_inverse(simulated(bench, made, groups, z, torch_draw).numpy(), counts, noise)
        guesses = {"learned": inverse.guess(updates[:, columns])}
        seconds = {"learned": time.perf_counter() - began + shared_seconds}
        if rule == "fedit" and optimizer == "sgd":
            began = time.perf_counter()
            guesses["pursue"] = np.stack([span_guess(bench, update, z, known[:1]) for update in updates])
            seconds["pursue"] = (time.perf_counter() - began) / len(updates)
        for attack, guessed in guesses.items():
            guessed[:, known] = False
            told = [recovery(g, t, common) for g, t in zip(guessed, truth, strict=True)]
            luck = [recovery(most_frequent(prior, r.guesses), t, common) for r, t in zip(told, truth, strict=True)]
            found.setdefault(attack, {})[label] = summary(told, luck, seconds[attack])
    head = {"rule": rule, "rank": rank, "text": f"{length}x{batch}", "optimizer": optimizer}
    distinct = float((truth > 0).sum(axis=1).mean())
    z_shipped = bench.plan.noise_multiplier
    return [{**head, "distinct": distinct, "z_epsilon_8": z_shipped, "attack": a, "by_z": f} for a, f in found.items()]


def summary(told: Sequence[Recovery], luck: Sequence[Recovery], seconds: float) -> dict[str, float]:
    """Means over seeds, and the standard error of what the attack has over chance."""
    over = np.array([a.recall - b.recall for a, b in zip(told, luck, strict=True)])
    return {
        "recall": mean([r.recall for r in told]),
        "chance": mean([r.recall for r in luck]),
        "over_chance": float(over.mean()),
        "standard_error": float(over.std(ddof=1) / math.sqrt(len(over))) if len(over) > 1 else float("nan"),
        "rare": mean([r.rare for r in told]),
        "rare_chance": mean([r.rare for r in luck]),
        "false_positives": mean([r.false_positives for r in told]),
        "guesses": mean([float(r.guesses) for r in told]),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", default="fedit,ffa")
    parser.add_argument("--ranks", default="8,32")
    parser.add_argument("--texts", default="12x1,24x1,64x1,24x3,64x3")
    parser.add_argument("--optimizers", default="sgd")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--examples", type=int, default=2500)
    given = parser.parse_args()
    need("../shared/models/stories260K")
    torch.set_num_threads(1)
    rows = []
    for rule in given.rules.split(","):
        for rank in map(int, given.ranks.split(",")):
            for text in given.texts.split(","):
                for optimizer in given.optimizers.split(","):
                    length, batch = map(int, text.split("x"))
                    rows += cell(rule, rank, length, batch, optimizer, given)
                    print(f"  {rule} rank {rank} text {text} {optimizer}: done", flush=True)
    labels = list(rows[0]["by_z"])
    table = [
        [
            *(row[k] for k in ("rule", "rank", "text", "optimizer", "attack")),
            f"{row['distinct']:.0f}",
            *(f"{row['by_z'][z]['recall']:.2f} ({row['by_z'][z]['chance']:.2f})" for z in labels),
            f"{row['by_z']['none']['rare']:.2f}",
            f"{row['by_z']['epsilon 8']['rare']:.2f}",
            f"{row['by_z']['none']['false_positives']:.3f}",
            f"{row['by_z']['epsilon 8']['over_chance']:+.3f} +- {row['by_z']['epsilon 8']['standard_error']:.3f}",
            f"{row['by_z']['none']['seconds']:.1f}",
        ]
        for row in rows
    ]
    header = ["rule", "rank", "text", "optim.", "attack", "tokens", *(f"z {z}" for z in labels)]
    header += ["rare, z none", "rare, eps 8", "false pos.", "eps 8 over chance", "seconds"]
    show(f"share of distinct tokens recovered (by chance), {given.seeds} seeds", header, table)
    print(f"  z at epsilon 8, delta 1e-5, default loop of the scenario instructions: {rows[0]['z_epsilon_8']:.3f}")
    write("token_recovery", {"rows": rows, "seeds": given.seeds, "examples": given.examples})


if __name__ == "__main__":
    main()
