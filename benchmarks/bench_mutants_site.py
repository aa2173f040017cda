"""Seeded mutants of a server's messages, given to a site's own program: does anything go wrong, is anything charged?

    python benchmarks/bench_mutants_site.py            options: --count 100000 --seed 1

Counted: replies by kind, exceptions that were not of our own (code ``error``), rounds that were reserved and not
sealed, and how much the process grew. A site's folder is made anew every 500 messages. Over a tiny random BERT.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from bench import ROOT, show, write

sys.path.insert(0, str(ROOT))
from simulations.mutant_site import MutantSite
from simulations.mutants import mutants

BATCH = 500


def resident_mb() -> float:
    """Memory of this process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("llmchain_fl").setLevel(logging.CRITICAL)
    found: Counter[str] = Counter()
    unsealed, started, begun, largest = 0, time.monotonic(), 0.0, 0.0
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        for number in range(0, given.count, BATCH):
            site = MutantSite(Path(name) / str(number))
            begun = begun or resident_mb()
            for which, content in mutants(site.good, given.seed * 1_000_003 + number, min(BATCH, given.count - number)):
                found[site.answer(which, content)] += 1
            unsealed += site.unsealed()
            largest = max(largest, resident_mb() - begun)
            if number % (20 * BATCH) == 0:
                print(f"{number + BATCH} messages, {time.monotonic() - started:.0f} s, {dict(found)}", flush=True)
    lines = [[kind, str(count)] for kind, count in found.most_common()]
    lines += [["charged and not sealed", str(unsealed)], ["growth of the process, MB", f"{largest:.0f}"]]
    lines.append(["untyped exceptions", str(sum(n for kind, n in found.items() if kind.startswith("error")))])
    show(f"{given.count} mutants, seed {given.seed}, {time.monotonic() - started:.0f} s", ["", "count"], lines)
    write("mutants-site", {"count": given.count, "seed": given.seed, "lines": lines})


if __name__ == "__main__":
    main()
