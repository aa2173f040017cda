"""What do the robust steps cost at the server? Every step beside a plain numpy mean of the same replies.

    python benchmarks/bench_robust_cost.py [--repeats 5] [--sites 10,30,100] [--large 10]

* one factor   12 matrices 384 x 384, rank 8, B moves (ffa): 37 thousand numbers a reply.
* both         the same, A and B move (fedit): 74 thousand.
* large        2 matrices 2048 x 2048, rank 16, both move (fedit).
* plain        total += weight * array, float32, then one division. The baseline.

A round of a step is the step and the rule's sum after it. Every reply is its own arrays, made beforehand, so memory is
what a round needs above the K replies that every robust step has to hold: the peak of tracemalloc in a separate pass;
"replies" is that peak in units of one reply. Times are CPU times (of all threads together: set OMP_NUM_THREADS=1), so
that other work on the machine does not count. Steps take turns within each repeat; medians. Of K replies f = K // 4 - 1
are hostile: a hundred times as far, the other way.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from bench import show, write

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.rule import SiteFactors
from llmchain_fl.robust import ROBUST, RobustSettings

SCALE = 2.0
SMALL = {"modules": 12, "size": 384, "rank": 8}
LARGE = {"modules": 2, "size": 2048, "rank": 16}
BOTH = ("lora_A", "lora_B")
Arrays = dict[str, Any]
Round = Callable[[], Any]


def adapter(rng: np.random.Generator, modules: int, size: int, rank: int) -> Arrays:
    """Random factors, as after some rounds."""
    arrays = {}
    for number in range(modules):
        arrays[f"layer.{number}.lora_A"] = rng.standard_normal((rank, size), dtype=np.float32)
        arrays[f"layer.{number}.lora_B"] = rng.standard_normal((size, rank), dtype=np.float32)
    return arrays


def replies_of(rng: np.random.Generator, start: Arrays, up: tuple[str, ...], count: int) -> list[SiteFactors]:
    """Sites that moved by a tenth; the first f by ten, the other way."""
    names = [name for name in start if name.endswith(up)]
    common = {name: rng.standard_normal(start[name].shape, dtype=np.float32) for name in names}
    sites = []
    for index in range(count):
        push = np.float32(-10.0 if index < hostile_of(count) else 0.1)
        moved = {
            n: start[n] + push * (common[n] + rng.standard_normal(start[n].shape, dtype=np.float32)) for n in names
        }
        sites.append(SiteFactors(moved, SCALE, 1.0))
    return sites


def hostile_of(count: int) -> int:
    """f."""
    return max(1, count // 4 - 1)


def plain(sites: list[SiteFactors]) -> Arrays:
    """The mean most people write."""
    total: Arrays = {}
    for site in sites:
        for name, array in site.arrays.items():
            total[name] = total[name] + np.float32(site.weight) * array if name in total else array.copy()
    return {name: array / np.float32(len(sites)) for name, array in total.items()}


def seconds(play: Round) -> float:
    """CPU time."""
    started = time.process_time()
    play()
    return time.process_time() - started


def peak(play: Round) -> float:
    """MB above what was there before the round."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        play()
        return (tracemalloc.get_traced_memory()[1] - before) / 2**20
    finally:
        tracemalloc.stop()


def rounds_of(start: Arrays, sites: list[SiteFactors], up: tuple[str, ...]) -> dict[str, Round]:
    """Name -> one round over these replies."""
    rule = RULES["fedit" if up == BOTH else "ffa"]

    def summed(kept: list[SiteFactors]) -> Arrays:
        total = rule.start(start, SCALE)
        for site in kept:
            total.add(site)
        return dict(total.finish())

    def screened(name: str) -> Round:
        robust = ROBUST[name](RobustSettings(hostile=hostile_of(len(sites))))
        return lambda: summed(robust(sites, start, SCALE, up).sites)

    return {
        "plain": lambda: plain(sites),
        f"{rule.name} alone": lambda: summed(sites),
        **{name: screened(name) for name in ROBUST},
    }


def compare(title: str, sizes: dict[str, int], up: tuple[str, ...], counts: list[int], repeats: int) -> dict[str, Any]:
    """Seconds and memory of every step and of the plain mean, at each number of sites."""
    rng = np.random.default_rng(0)
    start = adapter(rng, **sizes)
    found: dict[str, Any] = {}
    for count in counts:
        sites = replies_of(rng, start, up, count)
        reply = sum(array.nbytes for array in sites[0].arrays.values()) / 2**20
        rounds = rounds_of(start, sites, up)
        times: dict[str, list[float]] = {name: [] for name in rounds}
        for turn in range(repeats + 1):  # the first warms up and is not counted
            for name, play in rounds.items():
                taken = seconds(play)
                if turn:
                    times[name].append(taken)
        memory = {name: peak(play) for name, play in rounds.items()}
        middle = {name: statistics.median(values) for name, values in times.items()}
        lines = [
            [
                name,
                f"{1e3 * middle[name]:.1f}",
                f"{1e3 * min(times[name]):.1f}-{1e3 * max(times[name]):.1f}",
                f"{middle[name] / middle['plain']:.1f}x",
                f"{memory[name]:.1f}",
                f"{memory[name] / memory['plain']:.1f}x",
                f"{memory[name] / reply:.1f}",
            ]
            for name in rounds
        ]
        header = ["step", "cpu ms", "min-max", "time", "peak MB", "memory", "replies"]
        show(f"{title}: {count} sites, medians of {repeats}; ratios to plain", header, lines)
        found[str(count)] = {"seconds": times, "peak_mb": memory, "reply_mb": reply}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sites", default="10,30,100")
    parser.add_argument("--large", default="10", help="sites of the large matrices; empty leaves them out")
    given = parser.parse_args()
    counts, large = ([int(n) for n in text.split(",") if n] for text in (given.sites, given.large))
    result = {
        "one_factor": compare("one factor (ffa)", SMALL, ("lora_B",), counts, given.repeats),
        "both": compare("both factors (fedit)", SMALL, BOTH, counts, given.repeats),
        "large": compare("large, both factors (fedit)", LARGE, BOTH, large, given.repeats),
    }
    write("robust_cost", result)


if __name__ == "__main__":
    main()
