"""Upload per round and site at equal accuracy (BANKING77), and how fast the codecs are.

    python benchmarks/bench_bytes.py                        speed, then all arms over seeds 2, 3, 4
    python benchmarks/bench_bytes.py --only speed
    options: --seeds 1,2   --arms "ffa,ffa int4"   --rounds 6   --steps 5   --set KEY=VALUE (repeatable)

Scenario `banking77` (10 sites, Dirichlet 0.5, no privacy) made short. The first arm is the baseline: fedit in fp32. An
arm's difference to it is taken seed by seed: sites, records and batches of a seed are the same for all arms. The second
difference, to the same rule in fp32, is what the codec alone does. Each rule has the learning rate that was best for it
in fp32 on seed 1, out of 0.005, 0.01, 0.02 and 0.04 (fedit at 0.04 learns nothing); seed 1 is left out of the table.

Bytes are those of the run's metric `bytes_up`; what a message adds (names, headers) is in a table of its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
from bench import last, need, play, show, spread, write
from flwr.common.serde import recorddict_to_proto

from llmchain_fl.core.codec_spec import CodecSpec, Name
from llmchain_fl.core.compression.update import decode, encode
from llmchain_fl.core.privacy.sampling import secret_uniform, seeded_uniform
from llmchain_fl.core.wire import write_update
from llmchain_fl.planning.budget import budget, seconds_on

SMALL = [
    "data.train_size=3000",
    "data.test_size=1540",
    "train.sampling_rate=0.107",
    "train.micro_batch=64",
]
"""300 records a site, so 32 a step: about a minute a run on one core."""
MEMORY = "compression.feedback=true"
FEDIT = ["aggregation.rule=fedit", "train.lr=0.01"]
FFA = ["aggregation.rule=ffa", "train.lr=0.04"]
FEDSB = ["aggregation.rule=fedsb", "train.lr=0.04"]
TOP = ["compression.up=top-k", "compression.share=0.2", MEMORY]
ARMS: dict[str, list[str]] = {
    "fedit": FEDIT,
    "fedit int4": [*FEDIT, "compression.up=int4"],
    "fedit top-k 0.2 + memory": [*FEDIT, *TOP],
    "ffa": FFA,
    "ffa int8": [*FFA, "compression.up=int8"],
    "ffa int4": [*FFA, "compression.up=int4"],
    "ffa int4 + memory": [*FFA, "compression.up=int4", MEMORY],
    "ffa top-k 0.2": [*FFA, *TOP[:2]],
    "ffa top-k 0.2 + memory": [*FFA, *TOP],
    "ffa top-k 0.05 + memory": [*FFA, "compression.up=top-k", MEMORY],
    "fedsb": FEDSB,
    "fedsb int4": [*FEDSB, "compression.up=int4"],
}
BASELINE = "fedit"
LINK = 256.0
"""kbit/s of the link for which seconds are printed: a poor mobile connection."""
LAYER = {"query": 384, "key": 384, "value": 384, "output": 384, "intermediate": 1536, "dense": 384}
"""lora_B of one layer of MiniLM: name -> d_out; rank 8."""


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """Wall time of each of ``repeats`` calls, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return times


def speed(repeats: int) -> dict[str, Any]:
    """MB of float32 a second, beside a plain copy of the same array in the same run."""
    n = 1_000_000
    delta = {"x": np.random.default_rng(1).standard_normal(n).astype(np.float32)}
    copy = seconds(lambda: delta["x"].copy(), repeats)
    lines = [["plain copy", "", f"{4e-6 * n / statistics.median(copy):.0f}", "", ""]]
    found: dict[str, Any] = {"copy": copy}
    draws = {"seeded": seeded_uniform(1, "site", 1), "secret": secret_uniform}
    for name in get_args(Name):
        spec = CodecSpec(name)
        blobs = encode(delta, spec, draws["seeded"])
        back = seconds(lambda blobs=blobs, spec=spec: decode(blobs, {"x": (n,)}, spec), repeats)
        for kind, draw in draws.items():
            there = seconds(lambda spec=spec, draw=draw: encode(delta, spec, draw), repeats)
            rate = [4e-6 * n / statistics.median(times) for times in (there, back)]
            ratio = statistics.median(there) / statistics.median(copy)
            lines.append([name, kind, f"{rate[0]:.0f}", f"{rate[1]:.0f}", f"{ratio:.0f}x"])
            found[f"{name} {kind}"] = {"encode": there, "decode": back}
    header = ["codec", "draws", "encode MB/s", "decode MB/s", "encode / copy"]
    show(f"Speed on {n:,} float32, medians of {repeats}", header, lines)
    return found


def messages() -> dict[str, Any]:
    """What Flower's message takes beyond the values: the update of one layer of MiniLM and a head of 77 classes."""
    shapes = {f"encoder.layer.5.{module}.lora_B": (size, 8) for module, size in LAYER.items()}
    shapes |= {"head.weight": (77, 384), "head.bias": (77,)}
    delta = {name: np.ones(shape, dtype=np.float32) for name, shape in shapes.items()}
    lines, found = [], {}
    for name in get_args(Name):
        spec = CodecSpec(name)
        values = budget(shapes, spec)
        told = delta if name == "none" else encode(delta, spec, secret_uniform)
        whole = recorddict_to_proto(write_update(1, told, "r" * 140)).ByteSize()
        found[name] = {"values": values, "message": whole}
        lines.append([name, values, whole, whole - values, f"{whole / values:.2f}x"])
    show(f"Bytes of a message with {len(shapes)} arrays", ["codec", "values", "message", "more", "ratio"], lines)
    return found


def accuracy(arms: list[str], seeds: list[int], settings: list[str]) -> dict[str, Any]:
    """Last accuracy and bytes of every arm over the seeds."""
    found: dict[str, Any] = {arm: {"accuracy": {}, "bytes_up": 0.0} for arm in arms}
    for arm in arms:  # arm by arm: the frozen layers' outputs stay in memory for one kind of adapter at a time
        for seed in seeds:
            run = play("banking77-lora", [*SMALL, *settings, *ARMS[arm], f"seed={seed}"], remember=True)
            found[arm]["accuracy"][seed] = last(run, "accuracy", scope="global")
            found[arm]["bytes_up"] = last(run, "bytes_up")
    return found


def differences(found: dict[str, Any], arm: str, other: str) -> str:
    """Mean and spread, in points, of an arm's accuracy less another's, seed by seed."""
    if other not in found:
        return "-"
    ours, theirs = found[arm]["accuracy"], found[other]["accuracy"]
    return spread([100 * (ours[seed] - theirs[seed]) for seed in ours])


def table(found: dict[str, Any], title: str) -> None:
    """Bytes, ratio, seconds on a slow link, accuracy and both differences."""
    plain = found[BASELINE]["bytes_up"] if BASELINE in found else float("nan")
    lines = []
    for arm, result in found.items():
        size = result["bytes_up"]
        lines.append(
            [
                arm,
                f"{size:,.0f}",
                f"{size / plain:.4f}",
                f"{seconds_on(int(size), LINK):.1f}",
                spread(list(result["accuracy"].values())),
                differences(found, arm, BASELINE),
                differences(found, arm, arm.partition(" ")[0]),
            ]
        )
    header = ["arm", "bytes up", "of fedit", f"s at {LINK:g} kbit/s", "accuracy", "points to fedit", "to its rule"]
    show(title, header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["speed", "accuracy"])
    parser.add_argument("--seeds", default="2,3,4")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    result: dict[str, Any] = {}
    if given.only != "accuracy":
        result |= {"speed": speed(given.repeats), "messages": messages()}
    if given.only != "speed":
        need("../shared/data/banking77/train.csv")
        short = [f"stage.rounds={given.rounds}", f"train.steps={given.steps}", *given.settings]
        found = accuracy(given.arms.split(","), [int(seed) for seed in given.seeds.split(",")], short)
        table(found, f"BANKING77, 10 sites, {given.rounds} rounds of {given.steps} steps, no privacy")
        result |= {"accuracy": found, "settings": [*SMALL, *short]}
    write("bytes", result)


if __name__ == "__main__":
    main()
