"""Who was trained on? Membership and canaries of a finished adapter, without and with differential privacy.

    python benchmarks/bench_membership.py              BANKING77, four sites: no privacy, epsilon 8, epsilon 1 (person)
    options: --epsilons 8,1  --canaries 200  --records 1500  --rounds 4  --seeds 1  --made-up  --plain-loss
             --set KEY=VALUE (repeatable)

A coin parts the records: half are trained on, half are not. Canaries (random words, a random label) are parted the
same way and planted 1, 4 or 16 times, each of them one made-up person at one site. All runs learn the same file.
Score: loss before training minus loss after (``--plain-loss``: minus the loss after). ``ceiling``: the most that the
printed (epsilon, delta) allows any attack to find at 1 % false alarms. ``exposure``: bits; 1.44 is what a canary has
that was never seen, ``log2`` of all candidates is the most. ``--made-up``: generated bank messages instead.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench import last, need, play, show, write
from numpy.typing import NDArray

from llmchain_fl.cli.trained import open_trained
from llmchain_fl.core.tasks.base import Task
from llmchain_fl.data.label_list import read_label_list
from llmchain_fl.data.source import read_rows
from llmchain_fl.privacy.attacks.canaries import Canaries, by_copies, exposure, make_canaries, words_of
from llmchain_fl.privacy.attacks.membership import Claim, Membership, record_scores, tell_apart
from llmchain_fl.run_dir import RunDir

SITES = 4
DELTA = 1e-5
REAL = (
    "../shared/data/banking77/train.csv",
    "../shared/data/banking77/test.csv",
    "../shared/data/banking77/labels.json",
)
MADE_UP = ("generated:bank-messages",) * 3
PRIVATE = [
    "privacy.enabled=true",
    f"privacy.delta={DELTA}",
    'adapter.targets=["query","value"]',
    "adapter.rank=4",
    "train.sampling_rate=0.1",
    "train.batch_size=100",
    "train.steps=6",
    "train.lr=0.02",
]
OPEN = ["train.steps=20", "train.sampling_rate=0.06", "train.batch_size=32", "train.lr=0.005"]


@dataclass(frozen=True)
class Data:
    """What was trained on and what was not, and the file that the sites got."""

    file: Path
    members: list[dict[str, str]]
    others: list[dict[str, str]]
    canaries: Canaries
    source: tuple[str, str, str]


def prepared(folder: Path, given: argparse.Namespace, seed: int) -> Data:
    """Records and planted canaries in one file; ``site`` says who holds a row, ``person`` whose it is."""
    source = MADE_UP if given.made_up else REAL
    columns = ("text", "label")
    rows = read_rows(source[0], mapping={}, required=columns, split="train", seed=seed, size=2 * given.records).records
    draw = np.random.default_rng([seed, 5])
    mixed = [{column: rows[int(i)][column] for column in columns} for i in draw.permutation(len(rows))]
    members, others = mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]
    labels = list(read_label_list(source[2]))
    vocabulary = words_of(row["text"] for row in others)
    canaries = make_canaries("classification", given.canaries, vocabulary, seed=seed, labels=labels)
    lines = [{**row, "person": f"person-{i}", "site": f"s{i % SITES}"} for i, row in enumerate(members)]
    for number, canary in enumerate(canaries.planted):
        lines += canary.rows({"site": f"s{number % SITES}"})
    file = folder / "train.jsonl"
    order = draw.permutation(len(lines))
    file.write_text("".join(json.dumps(lines[int(i)]) + "\n" for i in order), encoding="utf-8")
    return Data(file, members, others, canaries, source)


def settings(data: Data, given: argparse.Namespace, seed: int) -> list[str]:
    """What all runs share."""
    return [
        f"seed={seed}",
        f"data.train={data.file}",
        f"data.test={data.source[1]}",
        "data.test_size=500",
        f"task.labels={data.source[2]}",
        f"sites.count={SITES}",
        "sites.partition=column",
        "sites.column=site",
        f"stage.rounds={given.rounds}",
        *given.settings,
    ]


def spent(run: RunDir) -> float:
    """The largest epsilon at any site."""
    return max(row["value"] for row in run.rows() if row["metric"] == "epsilon" and row["scope"] == "site")


def attacked(run: RunDir, data: Data, claim: Claim, *, calibrated: bool) -> list[dict[str, Any]]:
    """One row for records, one for canaries of each number of copies, one for all canaries."""
    _, task = open_trained(run.path)

    def scores(rows: Sequence[dict[str, str]]) -> NDArray[np.float64]:
        return scored(task, rows, calibrated)

    planted = scores([dict(canary.row) for canary in data.canaries.planted])
    held = scores([dict(canary.row) for canary in data.canaries.held])
    bits = exposure(planted, held)
    parts = by_copies(data.canaries, planted), by_copies(data.canaries, bits)
    rows = [told("records", tell_apart(scores(data.members), scores(data.others), claim, "person"), None)]
    for copies in parts[0]:
        name = f"canaries, {copies} cop{'y' if copies == 1 else 'ies'}"
        rows.append(told(name, tell_apart(parts[0][copies], held, claim, "person"), parts[1][copies]))
    rows.append(told("canaries, all", tell_apart(planted, held, claim, "person"), bits))
    return rows


def scored(task: Task, rows: Sequence[dict[str, str]], calibrated: bool) -> NDArray[np.float64]:
    """Scores of rows, larger for members."""
    return record_scores(task, task.encode(rows), calibrated=calibrated)


def told(who: str, found: Membership, bits: NDArray[np.float64] | None) -> dict[str, Any]:
    """A row of the result."""
    return {
        "who": who,
        "members": found.members,
        "others": found.others,
        "auc": found.auc,
        "auc_error": found.auc_error,
        "found": found.found,
        "found_low": found.found_low,
        "found_high": found.found_high,
        "false_alarms": found.false_alarms,
        "ceiling": found.ceiling,
        "broken": found.broken,
        "alive": found.alive,
        "exposure": None if bits is None else float(bits.mean()),
        "most_exposed": None if bits is None else float((bits >= math.log2(found.others + 1) - 1e-9).mean()),
        "verdict": found.verdict,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epsilons", default="8,1")
    parser.add_argument("--canaries", type=int, default=200)
    parser.add_argument("--records", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--made-up", action="store_true")
    parser.add_argument("--plain-loss", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    if not given.made_up:
        need(REAL[0])
    results, table = [], []
    for seed in map(int, given.seeds.split(",")):
        with tempfile.TemporaryDirectory(prefix="bench-membership-") as folder:
            data = prepared(Path(folder), given, seed)
            private = [(f"eps {e}", [*PRIVATE, f"privacy.epsilon={float(e)}"]) for e in given.epsilons.split(",") if e]
            for name, own in [("none", OPEN), *private]:
                began = time.perf_counter()
                run = play("banking77-lora", [*own, *settings(data, given, seed)], keep=Path(folder) / "run")
                epsilon = math.inf if own is OPEN else spent(run)
                rows = attacked(run, data, Claim(epsilon, DELTA), calibrated=not given.plain_loss)
                accuracy, seconds = last(run, "accuracy", scope="global"), time.perf_counter() - began
                results.append(
                    {
                        "seed": seed,
                        "privacy": name,
                        "epsilon": epsilon,
                        "accuracy": accuracy,
                        "seconds": seconds,
                        "rows": rows,
                    }
                )
                table += [line(seed, name, accuracy, row) for row in rows]
                print(f"\n  {name}, seed {seed} ({seconds:.0f} s): {rows[-1]['verdict']}")
    show(
        f"membership and canaries, {'made-up bank messages' if given.made_up else 'BANKING77'}, {SITES} sites",
        [
            "seed",
            "privacy",
            "accuracy",
            "who",
            "in / out",
            "AUC",
            "found at 1 %",
            "limits",
            "ceiling",
            "exposure",
            "top",
        ],
        table,
    )
    write("membership", {"results": results, "settings": given.settings, "delta": DELTA})


def line(seed: int, name: str, accuracy: float, row: dict[str, Any]) -> list[Any]:
    """A row of the table."""
    return [
        seed,
        name,
        f"{accuracy:.3f}",
        row["who"],
        f"{row['members']} / {row['others']}",
        f"{row['auc']:.3f} +- {row['auc_error']:.3f}",
        f"{row['found']:.3f}",
        f"{row['found_low']:.3f} to {row['found_high']:.3f}",
        f"{row['ceiling']:.3f}",
        "-" if row["exposure"] is None else f"{row['exposure']:.2f}",
        "-" if row["most_exposed"] is None else f"{row['most_exposed']:.2f}",
    ]


if __name__ == "__main__":
    main()
