"""What do the aggregation rules cost at the server? Every rule beside a plain numpy mean of the same replies.

    OMP_NUM_THREADS=1 python benchmarks/bench_aggregation.py [--repeats 5] [--sites 10,100] [--sizes minilm,smollm2]

* minilm    all linear layers of MiniLM-L6, rank 8: 36 matrices, 332 thousand numbers.
* smollm2   all linear layers of SmolLM2-135M, rank 8: 210 matrices, 2.4 million numbers.
* large     153 matrices 2048 x 2048, rank 16: 10 million numbers; rules that are linear in what is sent alone.
* plain     total += weight * array, float32, then one division, over just what the rule's sites send: no check, no
            scale, no float64. The baseline.

A round is: open, add every reply, close. Replies are made beforehand (twelve, used in turn), so memory is what a round
itself needs above them: the peak of tracemalloc in a separate pass. Times are CPU times of the process. One round of
every rule comes first and does not count; then, in each repeat, a rule and its plain mean take turns. The ratio is that
of the medians (in brackets: of the shortest).
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

SCALE, REPLIES = 2.0, 12
SIZES: dict[str, tuple[list[tuple[int, int]], int]] = {
    "minilm": (([(384, 384)] * 4 + [(1536, 384), (384, 1536)]) * 6, 8),
    "smollm2": (([(576, 576)] * 2 + [(192, 576)] * 2 + [(1536, 576)] * 2 + [(576, 1536)]) * 30, 8),
    "large": ([(2048, 2048)] * 153, 16),
}
"""Name -> (d_out, d_in) of every matrix, rank."""
Round = Callable[[int], None]
Arrays = dict[str, Any]


def adapter(rng: np.random.Generator, shapes: list[tuple[int, int]], rank: int) -> Arrays:
    """Random factors, as after some rounds."""
    arrays = {}
    for number, (d_out, d_in) in enumerate(shapes):
        arrays[f"layer.{number}.lora_A"] = rng.standard_normal((rank, d_in), dtype=np.float32)
        arrays[f"layer.{number}.lora_B"] = rng.standard_normal((d_out, rank), dtype=np.float32)
    return arrays


def rounds_of(rule: Rule, start: Arrays, moves: list[Arrays], rank: int) -> tuple[Round, Round]:
    """A round of this rule over a number of replies, and the plain mean of them; ``moves``: where the sites went."""

    def weight_of(module: str) -> Any:
        shape = start[f"{module}.lora_B"].shape[0], start[f"{module}.lora_A"].shape[1]
        return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)

    begun = rule.begin(start, SCALE, weight_of)
    handed = rule.handed(begun, SCALE, SiteShape(rank, SCALE * rank))
    names = sent_names(rule, handed)
    replies = []
    for number, move in enumerate(moves):
        moved = {n: move[n] if n in move else np.ones_like(handed[n]) * (number + 1) for n in names}
        replies.append(SiteFactors(moved, SCALE, 1.0 + number % 3))

    def play(sites: int) -> None:
        total = rule.start(begun, SCALE)
        for index in range(sites):
            total.add(replies[index % REPLIES])
        total.finish()

    return play, lambda sites: plain(replies, sites)


def plain(replies: list[SiteFactors], sites: int) -> None:
    """The mean most people write."""
    total = {name: np.zeros_like(array) for name, array in replies[0].arrays.items()}
    weights = 0.0
    for index in range(sites):
        reply = replies[index % REPLIES]
        for name, array in reply.arrays.items():
            total[name] += np.float32(reply.weight) * array
        weights += reply.weight
    for array in total.values():
        array /= np.float32(weights)


def seconds(play: Round, sites: int) -> float:
    """CPU time."""
    started = time.process_time()
    play(sites)
    return time.process_time() - started


def peak(play: Round, sites: int) -> float:
    """MB above what was there before the round."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        play(sites)
        return (tracemalloc.get_traced_memory()[1] - before) / 2**20
    finally:
        tracemalloc.stop()


def compare(title: str, names: list[str], counts: list[int], repeats: int) -> dict[str, Any]:
    """Seconds and memory of every rule and of its plain mean, at each number of sites."""
    rng = np.random.default_rng(0)
    shapes, rank = SIZES[title]
    start = adapter(rng, shapes, rank)
    replies = [adapter(rng, shapes, rank) for _ in range(REPLIES)]
    numbers = sum(array.size for array in start.values())
    result: dict[str, Any] = {"numbers": numbers}
    for sites in counts:
        lines, figures = [], {}
        rounds = {name: rounds_of(RULES[name], start, replies, rank) for name in names}
        for play, _ in rounds.values():
            play(min(10, sites))
        for name, pair in rounds.items():
            ways = dict(zip(("rule", "plain"), pair, strict=True))
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(repeats):
                for way, play in ways.items():
                    times[way].append(seconds(play, sites))
            memory = {way: peak(play, sites) for way, play in ways.items()}
            middle, least = ({way: f(values) for way, values in times.items()} for f in (statistics.median, min))
            figures[name] = {"seconds": times, "peak_mb": memory}
            lines.append(
                [
                    name,
                    f"{1e3 * middle['rule'] / sites:.2f}",
                    f"{1e3 * middle['plain'] / sites:.2f}",
                    f"{middle['rule'] / middle['plain']:.2f}x ({least['rule'] / least['plain']:.2f}x)",
                    f"{memory['rule']:.1f}",
                    f"{memory['rule'] * 2**20 / (4 * numbers):.1f}",
                ]
            )
        header = ["rule", "ms a site", "plain", "ratio", "peak MB", "adapters"]
        show(f"{title}: {numbers:,} numbers, {sites} sites, medians of {repeats}", header, lines)
        result[str(sites)] = figures
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sites", default="10,100")
    parser.add_argument("--sizes", default="minilm,smollm2", help=", ".join(SIZES))
    parser.add_argument("--rules", default="", help="by default all that send factors")
    given = parser.parse_args()
    counts, result = [int(n) for n in given.sites.split(",")], {}
    for size in given.sizes.split(","):
        names = [n for n in given.rules.split(",") if n] or [n for n, rule in RULES.items() if rule.trained]
        names = [n for n in names if size != "large" or RULES[n].linear]
        result[size] = compare(size, names, counts, given.repeats)
    write("aggregation", result)


if __name__ == "__main__":
    main()
