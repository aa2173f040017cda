"""Three stages of BANKING77 (class-incremental), guards on and off, over seeds: average accuracy and forgetting.

    python benchmarks/bench_forgetting.py [--seeds 1,2,3] [--epsilon 8] [--set KEY=VALUE]

Rows: no guard (the baseline), ema, distill, both. Definitions: docs/papers.md.
"""

from __future__ import annotations

import argparse

from bench import last, need, play, show, spread, write

GUARDS = {"none": "[]", "distill": '["distill"]', "ema": '["ema"]', "distill + ema": '["distill","ema"]'}
METRICS = ("average_accuracy", "la", "forgetting", "bwt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--guards", default=",".join(GUARDS))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    need("../shared/data/banking77/train.csv")
    found: dict[str, dict[str, list[float]]] = {}
    for name in given.guards.split(","):
        found[name] = {metric: [] for metric in METRICS}
        for seed in map(int, given.seeds.split(",")):
            run = play("banking77-stages-lora", [*given.settings, f"seed={seed}", f"continual.guards={GUARDS[name]}"])
            for metric in METRICS:
                found[name][metric].append(last(run, metric, scope="run"))
    lines = [[name, *(spread(values[m]) for m in METRICS)] for name, values in found.items()]
    show("BANKING77 in three stages, 10 sites, Dirichlet 0.5", ["guard", *METRICS], lines)
    if "none" in found:
        base = sum(found["none"]["forgetting"])
        for name, values in found.items():
            print(f"  forgetting of {name} over that of none: {sum(values['forgetting']) / base:.2f}")
    write("forgetting", {"guards": found, "settings": given.settings})


if __name__ == "__main__":
    main()
