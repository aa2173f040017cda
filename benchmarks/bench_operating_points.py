"""Operating points of private training: what each setting is worth, on synthetic data alone.

    python benchmarks/bench_operating_points.py       3 minutes of CPU;  --seeds 2  --vectors FOLDER keeps the vectors
    python benchmarks/bench_operating_points.py --start    whether to release class sums before the first round
    python benchmarks/bench_operating_points.py --full     also BANKING77's *training* records, a fifth held back

A head over frozen MiniLM vectors of generated bank messages (24 labels, persons with 1 to 4 messages), started from the
label texts, trained with noise for its budget (delta 1e-5, per person, add or remove, PLD). One factor at a time around
the chosen point; validation messages are of another seed and of templates that nobody trained on. ``step`` and ``run``:
noise over signal (``llmchain_fl/planning/signal.py``); ``share``: of what was learned without noise. What the tables
say stands in docs/operating-points.md; ``planning/recommend.py`` holds what was chosen.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import need, show, write
from private_steps import MOST, Data, Point, bank, embedded, made_up, play, same_clipping

from llmchain_fl.planning.recommend import FEWEST, TRAVEL
from llmchain_fl.planning.signal import LITTLE, NOTHING

CHOSEN = Point()
LRS = (0.003, 0.01, 0.03)


@dataclass(frozen=True)
class Bench:
    """A data set and the seeds of draws and noise."""

    data: Data
    seeds: Sequence[int]

    def rows(self, title: str, points: Mapping[str, Point]) -> list[dict[str, Any]]:
        """One table: a line for each point."""
        found = []
        for name, point in points.items():
            last, late = zip(*(play(self.data, point, seed) for seed in self.seeds), strict=True)
            ratios = {"z": point.z, "step": point.step(self.data), "run": point.run(self.data)}
            found.append({"": name, **ratios, "right": last, "late": statistics.mean(late)})
        lines = [
            [row[""], *(f"{row[key]:.3g}" for key in ("z", "step", "run")), _spread(row["right"]), f"{row['late']:.3f}"]
            for row in found
        ]
        show(title, ["", "z", "step", "run", "right", "mean of the last third"], lines)
        return found

    def shares(self, title: str, points: Mapping[str, Point]) -> list[dict[str, Any]]:
        """What share of the gain without noise each point has; two learning rates, the better one is shown."""
        start, found = self.data.right(self.data.texts), []
        for name, point in points.items():
            quiet = statistics.mean(play(self.data, replace(point, noise="none"), seed)[0] for seed in self.seeds)
            slow = [replace(point, lr=point.lr * factor) for factor in (1.0, 0.5)]
            right = [[play(self.data, one, seed)[0] for seed in self.seeds] for one in slow]
            best = max(right, key=statistics.mean)
            share = (statistics.mean(best) - start) / (quiet - start)
            lr = slow[right.index(best)].lr
            found.append(
                {"": name, "run": point.run(self.data), "lr": lr, "right": best, "quiet": quiet, "share": share}
            )
        found.sort(key=lambda row: row["run"])
        lines = [
            [r[""], f"{r['run']:.3g}", f"{r['lr']:g}", _spread(r["right"]), f"{r['quiet']:.3f}", f"{r['share']:.0%}"]
            for r in found
        ]
        show(f"{title} (untrained {start:.3f})", ["", "run", "lr", "right", "no noise", "share"], lines)
        return found


def _spread(values: Sequence[float]) -> str:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} +- {sd:.3f}"


def factors(bench: Bench, full: bool) -> dict[str, Any]:
    """One factor at a time."""
    told: dict[str, dict[str, Point]] = {
        "learning rate": {f"lr {lr:g}": replace(CHOSEN, lr=lr) for lr in (*LRS, 0.1)},
        "sampling rate": {f"q {q:g}": replace(CHOSEN, q=q) for q in (0.1, 0.3, 0.5, 1.0)},
        f"rounds, lr = {TRAVEL:g} / rounds (at least {FEWEST})": {
            f"{rounds} rounds": replace(CHOSEN, rounds=rounds, lr=TRAVEL / max(rounds, FEWEST))
            for rounds in (5, 15, 30, 60, 120)
        },
        "rounds, lr as it is": {f"{rounds} rounds": replace(CHOSEN, rounds=rounds) for rounds in (15, 60, 120)},
        "clip norm, and what is clipped of a person": {
            f"C {clip:g}, {unit}": replace(CHOSEN, clip=clip, unit=unit)
            for clip in (0.3, 1.0, 3.0, 10.0)
            for unit in ("sum", "mean")
        },
        "learning rate that falls": {
            f"lr {lr:g} to {final:g} of it": replace(CHOSEN, lr=lr, lr_final=final)
            for lr in (0.01, 0.02)
            for final in (1.0, 0.1)
        },
    }
    if full:
        told["learning rate at 60 rounds"] = {f"lr {lr:g}": replace(CHOSEN, rounds=60, lr=lr) for lr in (*LRS, 0.1)}
    return {title: bench.rows(title, points) for title, points in told.items()}


def where(bench: Bench, full: bool) -> list[dict[str, Any]]:
    """Noise on the sum or at each site; one step a round or several at each site. The best of LRS for each."""
    cases = {
        "lockstep, noise on the sum": CHOSEN,
        "lockstep, noise at each of 3 sites": replace(CHOSEN, noise="site", sites=3),
        "lockstep, noise at each of 10 sites": replace(CHOSEN, noise="site"),
        "5 local steps, noise at each of 10 sites": replace(CHOSEN, noise="site", steps=5, rounds=6, q=0.3),
        "5 rounds: lockstep, noise on the sum": replace(CHOSEN, rounds=5),
        "5 rounds: lockstep, noise at each of 10 sites": replace(CHOSEN, rounds=5, noise="site"),
        "5 rounds: 20 local steps, noise at each of 10": replace(CHOSEN, rounds=5, noise="site", steps=20, q=0.3),
    }
    sizes, found = (1000, 4000) if full else (4000,), []
    for people in sizes:
        best = {}
        for name, point in cases.items():
            tried = [replace(point, people=people, lr=lr) for lr in LRS]
            best[name] = max(tried, key=lambda one: play(bench.data, one, 77)[0])
        found += bench.rows(f"where the noise is added, {people:,} persons", best)
    return found


def public(seeds: Sequence[int]) -> dict[str, Any]:
    """BANKING77's training records, a fifth of them for validation: does what was chosen hold for 77 real labels?"""
    told = list(csv.DictReader(need("../shared/data/banking77/train.csv").open(encoding="utf-8")))
    names = json.loads(need("../shared/data/banking77/labels.json").read_text(encoding="utf-8"))
    labels = names if isinstance(names, dict) else {name: name.replace("_", " ") for name in names}
    rows = [{"text": row["text"], "label": row["label"]} for row in told]
    order = np.random.default_rng(3).permutation(len(rows))
    held, train = ([rows[i] for i in part] for part in np.split(order, [len(rows) // 5]))
    counts = np.random.default_rng(4).integers(1, MOST + 1, len(train))
    bench = Bench(embedded(labels, train, held, np.repeat(np.arange(len(train)), counts)[: len(train)], 64), seeds)
    people = int(bench.data.person.max()) + 1
    base = replace(CHOSEN, people=people)
    tables = {
        "learning rate": {f"lr {lr:g}": replace(base, lr=lr) for lr in (*LRS, 0.1)},
        "rounds": {
            f"{rounds} rounds, lr {travel:g} / rounds": replace(base, rounds=rounds, lr=travel / rounds)
            for rounds in (30, 60)
            for travel in (TRAVEL, 2 * TRAVEL)
        },
    }
    budgets = {f"epsilon {epsilon:g}": replace(base, epsilon=epsilon) for epsilon in (1.0, 3.0, 8.0)}
    return {
        "epsilon": bench.shares(f"BANKING77, {people:,} persons", budgets),
        **{name: bench.rows(f"BANKING77, epsilon 3: {name}", points) for name, points in tables.items()},
    }


def thresholds(learned: Sequence[Mapping[str, Any]]) -> None:
    """What was learned on either side of the two figures of ``planning/signal.py``."""
    for name, low, high in (("quiet", 0.0, LITTLE), ("noisy", LITTLE, NOTHING), ("drowned", NOTHING, np.inf)):
        shares = [row["share"] for row in learned if low < row["run"] <= high]
        told = f"{len(shares)} runs with {low:g} < run <= {high:g}"
        print(f"{name}: {told}: {min(shares):.0%} to {max(shares):.0%} of what can be learned")


def starts(bench: Bench) -> dict[str, Any]:
    """Does a head that starts from released class sums end better than one whose whole budget goes into steps?

    Labels with texts that say something, and without. Two learning rates, the better one is shown.
    """
    found = {}
    for named in (True, False):
        for epsilon in (1.0, 3.0, 8.0):
            rows = {}
            for share in (0.0, 0.1, 0.3, 0.6):
                points = [replace(CHOSEN, epsilon=epsilon, named=named, first=share, lr=lr) for lr in LRS]
                right = [[play(bench.data, point, seed)[0] for seed in bench.seeds] for point in points]
                rows[f"{share:.0%} of the budget"] = max(right, key=statistics.mean)
            title = f"class sums first, labels {'named' if named else 'not named'}, epsilon {epsilon:g}"
            show(title, ["", "right"], [[name, _spread(right)] for name, right in rows.items()])
            found[title] = rows
    return found


def main() -> None:
    """Everything, in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--start", action="store_true")
    told = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(1, told.seeds + 1)
    many = {
        f"{people:,} persons, epsilon {epsilon:g}": replace(CHOSEN, people=people, epsilon=epsilon)
        for people in (300, 1000, 4000)
        for epsilon in (1.0, 3.0, 8.0)
    }
    if told.start:
        write("operating_points_start", starts(Bench(bank(1000, told.vectors), seeds)))
        return
    data = bank(4000, told.vectors)
    bench = Bench(data, seeds)
    print(f"{len(data.texts)} labels, d = {data.trained:,}; clipped sums differ by {same_clipping(data):.0e}")
    found: dict[str, Any] = {**factors(bench, told.full), "people": bench.shares("persons and epsilon", many)}
    found["where"] = where(bench, told.full)
    for labels in (24, 77, 150):
        drawn = Bench(made_up(labels, 1000, 0.3), range(1, 2))
        some = {name: point for name, point in many.items() if point.people <= 1000}
        found[f"{labels} labels"] = drawn.shares(f"vectors that were drawn, {labels} labels", some)
    learned = [row for key in ("people", "24 labels", "77 labels", "150 labels") for row in found[key]]
    print()
    thresholds(learned)
    if told.full:
        found["banking77"] = public(seeds)
    write("operating_points", found)


if __name__ == "__main__":
    main()
