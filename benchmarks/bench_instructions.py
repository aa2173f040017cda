"""Instruction tuning of the small real causal LM: held-out loss over rounds, per stage, with and without guards.

python benchmarks/bench_instructions.py [--seeds 1,2,3] [--set KEY=VALUE]
"""

from __future__ import annotations

import argparse

from bench import last, need, play, show, spread, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    need("../shared/models/stories260K")
    lines, curves = [], {}
    for name, guards in (("distill + ema", '["distill","ema"]'), ("none", "[]")):
        starts, learned, forgotten, ends = [], [], [], []
        for seed in map(int, given.seeds.split(",")):
            run = play("instructions", [*given.settings, f"seed={seed}", f"continual.guards={guards}"])
            curve = [
                (r["round"], r["task"], r["value"])
                for r in run.rows()
                if r["metric"] == "loss" and r["scope"] == "global"
            ]
            starts.append(sum(v for n, _, v in curve if n == 0) / len({t for _, t, _ in curve}))
            learned.append(last(run, "la", scope="run"))
            forgotten.append(last(run, "forgetting", scope="run"))
            ends.append(last(run, "average_loss", scope="run"))
            curves[f"{name}/{seed}"] = curve
        lines.append([name, spread(starts), spread(learned), spread(ends), spread(forgotten)])
    show(
        "held-out loss (nats per answer token), small Llama, 4 sites, 2 stages",
        ["guards", "before training", "right after each stage", "at the end, mean of stages", "forgetting"],
        lines,
    )
    write("instructions", {"rows": lines, "curves": curves})


if __name__ == "__main__":
    main()
