"""Dialogue on a small real model: untrained, central, three sites, and sites with privacy and noise on their sum.

    python benchmarks/bench_generation.py [--arms untrained,central,sites,8,3] [--rounds 6] [--seeds 1]
        [--real] [--set KEY=VALUE]

The scenario `dialogue` (SmolLM2-135M-Instruct; the extra `smollm2`), synthetic conversations of one customer each;
`--real`: dialogues with a restaurant service (../shared/data/corpora/dialogue_train.txt), as conversations in a
temporary folder. Every arm takes the same number of steps over the same records: `central` is one site with as many
steps, `sites` three of them without privacy, 8 and 3 their epsilon per customer (per conversation with --real) at
delta 1e-5, one gradient a round (lockstep) and noise on the masked sum.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from bench import last, need, play, show, spread, write

ROLES = {"user": "user", "system": "assistant"}
SITES = 3


def converted(source: Path, folder: Path, most: int) -> Path:
    """``user: .. system: ..`` lines as JSON lines of conversations."""
    out = folder / f"{source.stem}.jsonl"
    with out.open("w", encoding="utf-8") as file:
        for line in source.read_text(encoding="utf-8").splitlines()[:most]:
            parts = re.split(r"(?:^|\s)(user|system): ", line)[1:]
            turns = [
                {"role": ROLES[role], "content": text.strip()}
                for role, text in zip(parts[::2], parts[1::2], strict=True)
                if text.strip()
            ]
            if turns and turns[0]["role"] == "user" and len(turns) > 1:
                file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    return out


def settings_of(arm: str, rounds: int, steps: int, rate: float, batch: float) -> list[str]:
    """What an arm changes: the same records a step and in all, whoever takes them."""
    if arm == "central":
        return [
            "sites.count=1", f"stage.0.rounds={rounds}", f"train.steps={steps}", f"train.sampling_rate={rate}",
            f"train.batch_size={batch * SITES}",
        ]  # fmt: skip
    if arm == "sites":
        return [f"sites.count={SITES}", f"stage.0.rounds={rounds}", f"train.steps={steps}"]
    return [
        f"sites.count={SITES}", f"stage.0.rounds={rounds * steps}", "train.method=lockstep", "train.steps=1",
        f"train.sampling_rate={rate}", f"train.batch_size={batch}", "privacy.enabled=true",
        f"privacy.epsilon={arm}", "privacy.noise=sum", "secure.sum=true", f"sites.minimum={SITES}",
        f"data.test_every={rounds * steps}",
    ]  # fmt: skip


def measure(arm: str, seed: int, given: argparse.Namespace, source: list[str]) -> dict[str, Any]:
    """One run."""
    settings = [f"seed={seed}", f"data.test_every={given.rounds}", *source]
    settings += settings_of(arm, given.rounds, given.steps, given.rate, given.batch)
    run = play("dialogue", [*settings, *given.settings], remember=True)
    curve = [row["value"] for row in run.rows() if row["metric"] == "loss" and row["scope"] == "global"]
    bits = [row["value"] for row in run.rows() if row["metric"] == "bits_per_byte" and row["scope"] == "global"]
    found = {"untrained": curve[0], "loss": curve[-1], "bits": bits[-1], "untrained_bits": bits[0]}
    if arm not in ("central", "sites"):
        found["spent"] = last(run, "epsilon")
    print(arm, seed, {key: round(value, 4) for key, value in found.items()}, flush=True)
    return {"arm": arm, "seed": seed, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default="central,sites,8,3")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0.08)
    parser.add_argument("--batch", type=float, default=6.0)
    parser.add_argument("--records", type=int, default=240)
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    source = [f"data.train_size={given.records}"]
    if given.real:
        folder = Path(tempfile.mkdtemp(prefix="bench-"))
        files = {"train": "dialogue_train", "test": "dialogue_valid"}
        for which, name in files.items():
            path = converted(need(f"../shared/data/corpora/{name}.txt"), folder, 2000)
            source.append(f"data.{which}={path}")
        source += ["privacy.unit=record"]
    rows = [measure(arm, int(s), given, source) for arm in given.arms.split(",") for s in given.seeds.split(",")]
    lines = [["untrained", spread([row["untrained"] for row in rows]), spread([row["untrained_bits"] for row in rows])]]
    for arm in given.arms.split(","):
        mine = [row for row in rows if row["arm"] == arm]
        lines.append([arm, spread([row["loss"] for row in mine]), spread([row["bits"] for row in mine])])
    show(
        "held-out dialogues, SmolLM2-135M-Instruct: nats a token and bits a byte of what the assistant says",
        ["arm", "loss", "bits a byte"],
        lines,
    )
    write("generation", {"rows": rows})


if __name__ == "__main__":
    main()
