"""What do the aggregation rules cost at the server? Every rule beside a plain numpy mean of the same replies.

    python benchmarks/bench_aggregation.py [--repeats 5] [--sites 10,100,1000] [--large 10,100]

* small     an adapter like MiniLM's: 12 matrices 384 x 384, rank 8, all factors: 74 thousand numbers.
* large     10 million numbers: 153 matrices 2048 x 2048, rank 16; rules that are linear in what is sent.
* plain     total += weight * array, float32, then one division: no check, no scale, no float64. The baseline.

A round is: open, add every reply, close. Replies are made beforehand (three, used in turn), so memory is what a round
itself needs above them: the peak of tracemalloc in a separate pass. Rules take turns within each repeat; medians.
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
from llmchain_fl.aggregation.rule import Rule, SiteFactors, SiteShape, sent_names

SCALE = 2.0
SMALL = {"modules": 12, "size": 384, "rank": 8}
LARGE = {"modules": 153, "size": 2048, "rank": 16}
Round = Callable[[int], None]


def adapter(rng: np.random.Generator, modules: int, size: int, rank: int) -> dict[str, Any]:
    """Random factors, as after some rounds."""
    arrays = {}
    for number in range(modules):
        arrays[f"layer.{number}.lora_A"] = rng.standard_normal((rank, size), dtype=np.float32)
        arrays[f"layer.{number}.lora_B"] = rng.standard_normal((size, rank), dtype=np.float32)
    return arrays


def rule_round(rule: Rule, start: dict[str, Any], rng: np.random.Generator, size: int, rank: int) -> Round:
    """A round of this rule over a number of replies."""
    begun = rule.begin(start, SCALE, lambda module: rng.standard_normal((size, size), dtype=np.float32))
    handed = rule.handed(begun, SCALE, SiteShape(rank, SCALE * rank))
    names = sent_names(rule, handed)
    replies = []
    for weight in (1.0, 2.0, 3.0):
        moved = {n: handed[n] + 0.1 * rng.standard_normal(handed[n].shape, dtype=np.float32) for n in names}
        replies.append(SiteFactors(moved, SCALE, weight))

    def play(sites: int) -> None:
        total = rule.start(begun, SCALE)
        for index in range(sites):
            total.add(replies[index % 3])
        total.finish()

    return play


def plain_round(start: dict[str, Any], rng: np.random.Generator) -> Round:
    """The mean most people write."""
    replies = [{n: a + 0.1 * rng.standard_normal(a.shape, dtype=np.float32) for n, a in start.items()} for _ in "abc"]

    def play(sites: int) -> None:
        total = {name: np.zeros_like(array) for name, array in start.items()}
        weights = 0.0
        for index in range(sites):
            weight = 1.0 + index % 3
            for name, array in replies[index % 3].items():
                total[name] += np.float32(weight) * array
            weights += weight
        for array in total.values():
            array /= np.float32(weights)

    return play


def seconds(play: Round, sites: int) -> float:
    started = time.perf_counter()
    play(sites)
    return time.perf_counter() - started


def peak(play: Round, sites: int) -> float:
    """MB above what was there before the round."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        play(sites)
        return (tracemalloc.get_traced_memory()[1] - before) / 2**20
    finally:
        tracemalloc.stop()


def compare(title: str, rules: list[Rule], sizes: dict[str, int], counts: list[int], repeats: int) -> dict[str, Any]:
    """Seconds and memory of every rule and of the plain mean, at each number of sites."""
    rng = np.random.default_rng(0)
    start = adapter(rng, **sizes)
    numbers = sum(array.size for array in start.values())
    found: dict[str, Any] = {"numbers": numbers}
    rounds = {"plain": plain_round(start, rng)}
    rounds |= {rule.name: rule_round(rule, start, rng, sizes["size"], sizes["rank"]) for rule in rules}
    for sites in counts:
        times: dict[str, list[float]] = {name: [] for name in rounds}
        for _ in range(repeats):
            for name, play in rounds.items():
                times[name].append(seconds(play, sites))
        memory = {name: peak(play, sites) for name, play in rounds.items()}
        middle = {name: statistics.median(values) for name, values in times.items()}
        spread = {name: (min(values), max(values)) for name, values in times.items()}
        lines = [
            [
                name,
                f"{1e3 * middle[name] / sites:.2f}",
                f"{1e3 * spread[name][0] / sites:.2f}-{1e3 * spread[name][1] / sites:.2f}",
                f"{middle[name] / middle['plain']:.2f}x",
                f"{memory[name]:.1f}",
                f"{memory[name] / memory['plain']:.2f}x",
                f"{memory[name] * 2**20 / (4 * numbers):.1f}",
            ]
            for name in rounds
        ]
        header = ["rule", "ms a site", "min-max", "time", "peak MB", "memory", "adapters"]
        show(f"{title}: {numbers:,} numbers, {sites} sites, medians of {repeats}; ratios to plain", header, lines)
        found[str(sites)] = {"seconds": times, "peak_mb": memory}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sites", default="10,100,1000")
    parser.add_argument("--large", default="10,100", help="sites of the large adapter; empty leaves it out")
    given = parser.parse_args()
    rules = list(RULES.values())
    counts, large = ([int(n) for n in text.split(",") if n] for text in (given.sites, given.large))
    result = {"small": compare("small", rules, SMALL, counts, given.repeats)}
    if large:
        linear = [rule for rule in rules if rule.linear]
        result["large"] = compare("large", linear, LARGE, large, given.repeats)
    write("aggregation", result)


if __name__ == "__main__":
    main()
