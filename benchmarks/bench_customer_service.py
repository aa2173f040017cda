"""The turn of customer service over several seeds: what corrections of 200 made-up users bring at epsilon 8.

    python benchmarks/bench_customer_service.py                # seeds 7, 8, 9
    python benchmarks/bench_customer_service.py --seeds 7

Printed for each seed: held-out messages answered rightly before and after, with the 95 % margin of the rise, records
and persons of the editions, epsilon, how often passages of the right topic were shown, and the gate's verdict. Exit
code 1 where the rise is below 3 points or the gate refuses.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import bench
import numpy as np

from llmchain_fl.loop.settings import read_loop
from llmchain_fl.loop.turn import play

LEAST = 0.03


def main() -> int:
    """One turn after the other."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--seeds", default="7,8,9")
    told.add_argument("--set", action="append", default=[], help="a setting of the loop's file")
    asked = told.parse_args()
    found, rows = [], []
    for seed in map(int, asked.seeds.split(",")):
        with tempfile.TemporaryDirectory() as place:
            started = time.perf_counter()
            one = play(read_loop("customer-service", [f"seed={seed}", *asked.set]), Path(place) / "out")
            seconds = time.perf_counter() - started
        talk = one.talk
        found.append(one)
        rows.append({"seed": seed, "before": one.before, "after": one.after, "promoted": one.promoted})
        print(
            f"seed {seed}: {one.before:.1%} -> {one.after:.1%} ({100 * one.gain:+.1f} +- {100 * one.margin:.1f} points)"
            f"; {one.records} records of {one.persons} persons, epsilon {one.epsilon:.2f}; "
            f"users' messages right {talk.right / talk.asked:.1%}; passages shown {talk.shown} times, "
            f"of the right topic {talk.helped / max(1, talk.shown):.1%}; "
            f"{'promoted' if one.promoted else one.failed}; {seconds:.0f} s",
            flush=True,
        )
    gains = 100 * np.array([one.gain for one in found])
    print(f"gain {gains.mean():+.1f} +- {gains.std(ddof=min(1, len(gains) - 1)):.1f} points (n={len(gains)})")
    bench.write("customer_service", {"turns": rows})
    return int(any(one.gain < LEAST or not one.promoted for one in found))


if __name__ == "__main__":
    sys.exit(main())
