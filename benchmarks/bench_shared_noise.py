"""Integers and shared noise: what integers cost beside real numbers, what the grid loses, how fast the noise is drawn.

    python benchmarks/bench_shared_noise.py [--draws 1000000]

* epsilon    integer noise beside continuous noise of the same size, where that costs 3 and 8; by both accountants
* grid       k, the share of C that is kept, the error of a unit's rounding beside C, and the bits of a word
* time       CPU seconds of a million draws, and of clipping and rounding one row, one thread
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bench import show, write
from scipy.optimize import brentq

from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.clipping import clipped_sum
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.integer_noise import discrete_gaussians, share_variance
from llmchain_fl.core.privacy.integers import clipped_integer_sum, grid_bits, length_before, reach, word_bits
from llmchain_fl.core.privacy.noise import SecureNoise

DELTA = 1e-5
RATE = 0.3
SITES = 10


def needed(target: float, steps: int) -> float:
    """The multiplier of continuous noise with which ``steps`` steps cost ``target``."""

    def above(z: float) -> float:
        return epsilon([Event("poisson-gaussian", RATE, z, steps)], DELTA) - target

    return float(brentq(above, 0.5, 100.0, xtol=1e-3))


def epsilons() -> list[dict[str, float]]:
    """One row for each number of steps and each target."""
    rows: list[dict[str, float]] = []
    for steps in (30, 60, 120):
        for target in (3.0, 8.0):
            z = needed(target, steps)
            row = {"steps": float(steps), "z": z}
            for accountant in ("pld", "rdp"):
                real, whole = (
                    epsilon([Event(kind, RATE, z, steps)], DELTA, accountant)
                    for kind in ("poisson-gaussian", "poisson-discrete-gaussian")
                )
                row |= {accountant: real, f"{accountant}, integer": whole, f"{accountant}, ratio": whole / real}
            rows.append(row)
    lines = [[f"{value:.5g}" for value in row.values()] for row in rows]
    show(f"Epsilon at delta {DELTA:g}, q {RATE:g}", list(rows[0]), lines)
    return rows


def grids() -> list[dict[str, float]]:
    """Rounding, on Gaussian rows far longer than C."""
    rows: list[dict[str, float]] = []
    for width in (1_000, 30_000, 200_000, 1_000_000, 4_000_000):
        bits = grid_bits(width)
        row = torch.randn(width, generator=torch.Generator().manual_seed(1))
        found = clipped_integer_sum(10 * row[None], 1.0, bits)[0] / 2**bits
        exact = (row / row.norm()).double().numpy()
        share = share_variance(2.6, bits, 7)
        rows.append(
            {
                "width": width,
                "bits": bits,
                "kept": length_before(width, bits) / 2**bits,
                "length": float(np.linalg.norm(found)),
                "error": float(np.linalg.norm(found - exact)),
                "word": word_bits(SITES, reach(120) << bits, share),
            }
        )
    lines = [[f"{value:.4g}" for value in row.values()] for row in rows]
    show(f"The grid; words for {SITES} sites of 120 expected units, z 2.6", list(rows[0]), lines)
    return rows


def _seconds(work: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def times(draws: int) -> list[dict[str, Any]]:
    """The best of five."""
    rows = [
        {
            "what": f"{draws:,} draws, variance {variance:.0e}",
            "seconds": _seconds(lambda v=variance: discrete_gaussians(draws, v), 5),  # type: ignore[misc]
        }
        for variance in (100, 10**6, 10**12)
    ]
    rows.append({"what": f"{draws:,} continuous", "seconds": _seconds(lambda: SecureNoise().sample(draws, 1.0), 5)})
    for width in (30_000, 1_000_000):
        given, bits = torch.randn(10, width), grid_bits(width)
        integer = _seconds(lambda g=given, b=bits: clipped_integer_sum(g, 1.0, b), 5)  # type: ignore[misc]
        rows.append({"what": f"a row of {width:,}, integer", "seconds": integer / 10})
        rows.append(
            {"what": f"a row of {width:,}, float64", "seconds": _seconds(lambda g=given: clipped_sum(g, 1.0), 5) / 10}  # type: ignore[misc]
        )
    show("CPU seconds, one thread", list(rows[0]), [[row["what"], f"{row['seconds']:.2g}"] for row in rows])
    return rows


def main() -> None:
    """Everything, in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1_000_000)
    told = parser.parse_args()
    torch.set_num_threads(1)
    write("shared_noise", {"epsilon": epsilons(), "grid": grids(), "time": times(told.draws)})


if __name__ == "__main__":
    main()
