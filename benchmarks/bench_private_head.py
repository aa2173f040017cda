"""Noise on the sum beside noise at each site: a private head on BANKING77 over 10 skewed sites.

    python benchmarks/bench_private_head.py [--epsilon 3,8] [--seeds 1,2,3] [--noise sum,site] [--set KEY=VALUE]

The scenario `banking77` as it is shipped (Dirichlet 0.5, made-up persons of 1 to 4 records, a head in lockstep, 60
rounds, delta 1e-5, PLD); with `site` each site adds all of the noise, and nothing is masked. The operating point is
that of docs/operating-points.md: no test record was looked at for it.
"""

from __future__ import annotations

import argparse
from typing import Any

from bench import last, need, play, show, spread, write

NOISE = {"sum": ["privacy.noise=sum"], "site": ["privacy.noise=site", "secure.sum=false"]}


def measure(epsilon: str, noise: str, seed: int, changed: list[str]) -> dict[str, Any]:
    """One run."""
    settings = [f"seed={seed}", "privacy.enabled=true", f"privacy.epsilon={epsilon}", *NOISE[noise], *changed]
    run = play("banking77", settings, remember=True)
    curve = [row["value"] for row in run.rows() if row["metric"] == "accuracy" and row["scope"] == "global"]
    found = {"untrained": 100 * curve[0], "right": 100 * curve[-1], "spent": last(run, "epsilon")}
    print(epsilon, noise, seed, {key: round(value, 2) for key, value in found.items()}, flush=True)
    return {"epsilon": epsilon, "noise": noise, "seed": seed, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epsilon", default="3,8")
    parser.add_argument("--noise", default="sum,site")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    need("../shared/data/banking77/train.csv")
    arms = [(epsilon, noise) for epsilon in given.epsilon.split(",") for noise in given.noise.split(",")]
    rows = [measure(*arm, int(seed), given.settings) for arm in arms for seed in given.seeds.split(",")]
    lines = []
    for epsilon, noise in arms:
        mine = [row for row in rows if (row["epsilon"], row["noise"]) == (epsilon, noise)]
        lines.append([epsilon, noise, *(spread([row[key] for row in mine]) for key in ("untrained", "right", "spent"))])
    show(
        "BANKING77, 10 sites, per person, delta 1e-5, PLD (against the server alone)",
        ["epsilon", "noise", "untrained, %", "right, %", "spent"],
        lines,
    )
    write("private-head", {"rows": rows, "settings": given.settings})


if __name__ == "__main__":
    main()
