"""A causal language model under privacy: noise on the sum in lockstep beside local steps with noise at each site.

    python benchmarks/bench_causal_private.py [--epsilon none,8,3] [--seeds 1,2,3] [--set KEY=VALUE]

`instructions` with one stage: clerks' answers to generated messages, five sites, persons of 1 to 4 dialogues, delta
1e-5, PLD; factor B of LoRA (rule ``ffa``), rank 8. Held-out loss in nats a token of the answer.

* lockstep   15 rounds of one step; with privacy noise on the masked sum of five sites
* local      3 rounds of 5 steps at each site; with privacy each site adds the whole noise

Both draw three tenths of the persons for a step, so both see as many dialogues.

Learning rates: the best of three for each arm on dialogues of another seed (``--choose``), which no table shows.
"""

from __future__ import annotations

import argparse
import statistics

from bench import last, need, play, show, spread, write

COMMON = [
    "sites.count=5",
    "data.train_size=3000",
    "data.made_up_persons=4",
    "data.test_every=1000",
    "continual.guards=[]",
    "aggregation.rule=ffa",
    "adapter.rank=8",
    "adapter.alpha=16",
]
STAGES = 'stage=[{name="all",rounds=%d}]'
ARMS = {
    "lockstep": ["train.method=lockstep", "train.steps=1", "train.sampling_rate=0.3", "train.batch_size=72"],
    "local": ["train.steps=5", "train.sampling_rate=0.3", "train.batch_size=72"],
}
ROUNDS = {"lockstep": 15, "local": 3}
SUM = ["secure.sum=true", "privacy.noise=sum", "secure.survivors=5"]
LR = {"lockstep": 0.01, "local": 0.03}
RATES = (0.01, 0.03, 0.1)


def loss_of(arm: str, epsilon: str, seed: int, lr: float, changed: list[str]) -> tuple[float, float]:
    """(before, after)."""
    private = ["privacy.enabled=true", f"privacy.epsilon={epsilon}", *(SUM if arm == "lockstep" else [])]
    settings = [*COMMON, STAGES % ROUNDS[arm], *ARMS[arm], *(private if epsilon != "none" else [])]
    run = play("instructions", [*settings, f"seed={seed}", f"train.lr={lr:g}", *changed], remember=True)
    first = next(r["value"] for r in run.rows() if r["metric"] == "loss" and r["scope"] == "global")
    return first, last(run, "loss", scope="global")


def chosen(arm: str, epsilon: str, changed: list[str]) -> float:
    """The learning rate whose loss is lowest on another seed's dialogues."""
    tried = {lr: loss_of(arm, epsilon, 77, lr, changed)[1] for lr in RATES}
    print(arm, epsilon, {lr: round(value, 3) for lr, value in tried.items()}, flush=True)
    return min(tried, key=lambda lr: tried[lr])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epsilon", default="none,8,3")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    need("../shared/models/stories260K")
    lines, table = [], {}
    for epsilon in given.epsilon.split(","):
        for arm in ARMS:
            lr = chosen(arm, epsilon, given.settings) if given.choose else LR[arm]
            both = [loss_of(arm, epsilon, int(seed), lr, given.settings) for seed in given.seeds.split(",")]
            before, after = ([pair[i] for pair in both] for i in (0, 1))
            gain = statistics.mean(a - b for b, a in zip(after, before, strict=True))
            lines.append([epsilon, arm, f"{lr:g}", spread(before), spread(after), f"{gain:.3f}"])
            table[f"{epsilon}/{arm}"] = {"lr": lr, "before": before, "after": after}
    header = ["epsilon", "way", "lr", "untrained", "at the end", "gain"]
    show("held-out loss, small Llama, five sites", header, lines)
    write("causal-private", {"table": table, "settings": given.settings})


if __name__ == "__main__":
    main()
