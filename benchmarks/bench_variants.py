"""Variants of what is trained, on BANKING77: accuracy with privacy and without, numbers trained, bytes up a round.

    python benchmarks/bench_variants.py                 one seed, 800 records, 5 sites, the last layer of MiniLM
    options: --epsilon 8   --rounds 8   --lrs 0.01   --only lora,ia3   --seed 1   --set KEY=VALUE (repeatable)

The head is the label text, so nothing but the variant is trained. Lockstep: one step a round over all sites, so
variants differ by what they train alone. Every variant gets the same learning rates; all are shown, none is chosen on
the test set. The line to compare with is LoRA with A fixed (ffa), the usual rule. Privacy: per person (made-up, 1 to 4
records each), delta 1e-5, noise on the masked sum. One seed shows what is far apart; differences of a few points it
does not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench import last, need, play, show, write

from llmchain_fl.adapter.files import read_adapter

SETTINGS = (
    "task.head=label-text",
    "adapter.last_layers=1",
    "adapter.rank=8",
    "data.train_size=800",
    "data.test_size=300",
    "data.baseline=0",
    "sites.count=5",
    "train.batch_size=100",
    "model.max_tokens=48",
)
"""Over the scenario ``banking77``."""
CASES: Mapping[str, Sequence[str]] = {
    "lora, ffa": ("aggregation.rule=ffa",),
    "lora, ffa, rslora": ("aggregation.rule=ffa", "adapter.scaling=rslora"),
    "lora, ffa, pissa": ("aggregation.rule=ffa", "adapter.start=pissa"),
    "miss": ("adapter.variant=miss", "aggregation.rule=fedit"),
    "ia3": ("adapter.variant=ia3", "aggregation.rule=fedit"),
    "layer-norm": ("adapter.variant=layer-norm", "aggregation.rule=fedit"),
    "bias": ("adapter.variant=bias", "aggregation.rule=fedit"),
    "dora-magnitude": ("adapter.variant=dora-magnitude", "aggregation.rule=fedit"),
}


def trained_size(run: Any) -> int:
    """Numbers that a site sends a round: all of a variant's, of LoRA the B of the rank that sites train."""
    work, arrays = read_adapter(run.adapter)
    own = {name: value for name, value in arrays.items() if not name.endswith("lora_A")}
    rank = 8 / max(8, work.adapter.rank)  # a start in the fold is served beside the pair
    return int(sum(value.size for value in own.values()) * rank)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--lrs", default="0.01")
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    need("../shared/data/banking77/train.csv")
    common = [*SETTINGS, f"stage.rounds={given.rounds}", f"data.test_every={given.rounds}", f"seed={given.seed}"]
    private = ["privacy.enabled=true", "privacy.unit=person", f"privacy.epsilon={given.epsilon:g}"]
    lrs, rows, start = given.lrs.split(","), [], ""
    for name, own in CASES.items():
        if given.only and not any(name.startswith(word) for word in given.only.split(",")):
            continue
        row: dict[str, Any] = {"variant": name}
        for terms, more in (("plain", ["privacy.enabled=false", "privacy.noise=site"]), ("private", private)):
            for lr in lrs:
                begun = time.process_time()
                run = play("banking77", [*common, *own, *more, f"train.lr={lr}", *given.settings], remember=True)
                curve = [r["value"] for r in run.rows() if r["metric"] == "accuracy" and r["scope"] == "global"]
                row |= {f"{terms} {lr}": curve[-1], f"{terms} {lr} cpu": time.process_time() - begun}
                start = f"{curve[0]:.3f}"
                if terms == "private":
                    row["epsilon"] = last(run, "epsilon")
        row["numbers"] = trained_size(run)
        rows.append(row)
    keys = [f"{terms} {lr}" for terms in ("plain", "private") for lr in lrs]
    lines = [
        [
            row["variant"],
            row["numbers"],
            f"{4 * row['numbers'] / 1024:.1f} KB",
            *(f"{row[key]:.3f}" for key in keys),
            f"{row['epsilon']:.2f}",
            f"{sum(row[f'{key} cpu'] for key in keys):.0f}",
        ]
        for row in rows
    ]
    title = f"BANKING77, 5 sites, {given.rounds} steps, one seed; zero-shot {start}; private: epsilon {given.epsilon:g}"
    show(title, ["variant", "numbers", "up a round", *keys, "epsilon", "CPU s"], lines)
    write("variants", {"rows": rows, "zero_shot": start, "settings": [*common, *given.settings]})


if __name__ == "__main__":
    main()
