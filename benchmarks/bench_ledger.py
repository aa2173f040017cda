"""Does the privacy ledger forget anything? Killed processes, torn lines, flipped bits, restored backups.

    python benchmarks/bench_ledger.py [--kills 500] [--flips 1000] [--seed 1]

* kills      a site that plays rounds in its own process (reserve, "train", seal, "send") gets SIGKILL at a random
             moment or at the n-th system call that changes the disk, is started again, and so on; compared with what a
             server heard of it. Everything is really flushed here. SIGKILL leaves the page cache: a power cut is only
             imitated, by the torn lines (and in tests/privacy/test_ledger_power.py).
* torn       every cut through a line that was being written when the process died: what stood before must be counted.
* cut        every cut of a log whose anchor names its last line: must be refused.
* flips      one random bit in log, anchor, members, key, sealed update: refused, or everything still counted.
* rollback   a backup of every earlier moment put back: the log alone, the folder, with and without the anchor.
* speed      seconds of a round's ledger work, and to verify 10,000 lines.

Needs no data. Two minutes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench import show, write

from llmchain_fl.core.privacy.book import Book
from llmchain_fl.privacy.drill import damage
from llmchain_fl.privacy.drill.kills import PHASES, Fault, Tally, live
from llmchain_fl.privacy.drill.scratch import GROUP, log_file, open_ledger, release

ROUNDS = 6


def deaths(draw: random.Random) -> Iterator[Fault]:
    """In turn: at the n-th system call, n through the whole life of a process; at a random moment."""
    for number in itertools.count():
        yield Fault(call=1 + 7 * number % 211)
        yield Fault(seconds=draw.uniform(1e-4, 0.05))


def kill(homes: Iterator[Path], count: int, seed: int) -> Tally:
    """At least ``count`` deaths, over as many ledgers as that takes."""
    draw, tally = random.Random(seed), Tally()
    faults = deaths(draw)
    while tally.kills.total() < count:
        live(next(homes), ROUNDS, faults, tally, draw)
    return tally


def speed(home: Path) -> dict[str, float]:
    """Median seconds of a round (acknowledge, reserve, seal, receipt), and of reading 10,000 lines."""
    ledger, echo, rounds = open_ledger(home), "", []
    for number in range(50):
        start = time.perf_counter()
        ledger.acknowledge(echo)
        ledger.reserve(release(number), [(GROUP, [f"person {number}"])])
        ledger.seal(release(number).key, b"x" * 10_000)
        echo = ledger.receipt()
        rounds.append(time.perf_counter() - start)
    book = Book()
    book.extend(log_file(home).read_bytes(), log_file(home))
    while len(book.hashes) < 10_000:
        told = {**release(len(book.hashes) + 1000).to_dict(), "members": {}, "left": {}}
        book.add(book.next_line("reserve", **told)[:-1])
    start = time.perf_counter()
    Book().extend(bytes(book.raw), log_file(home))
    return {"seconds_per_round": statistics.median(rounds), "seconds_10000_lines": time.perf_counter() - start}


def fresh(parent: str) -> Iterator[Path]:
    """Places for one ledger each."""
    for number in itertools.count():
        home = Path(parent) / str(number)
        home.mkdir()
        yield home


def outcome(found: Counter[str]) -> str:
    """Counts as words."""
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items()))


def main() -> None:
    """Run all, print one table, write one JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ledger-") as parent:
        homes = fresh(parent)
        tally = kill(homes, arguments.kills, arguments.seed)
        home = next(homes)
        times = speed(next(homes))
        os.fsync = lambda descriptor: None  # from here on only the content of files matters, thousands of times
        truth, history = damage.build(home, 4)
        torn, cut = damage.torn_tails(home, history), damage.cuts(home, truth)
        flipped = damage.flips(home, truth, arguments.flips, random.Random(arguments.seed))
        rolled = damage.rollbacks(home, truth, history)
    rows = [
        ("kills", f"{tally.kills.total()} ({', '.join(f'{phase} {tally.kills[phase]}' for phase in PHASES)})"),
        ("rounds released", tally.released),
        ("under-counts", tally.under_counts),
        ("rounds with two different payloads", tally.two_payloads),
        ("most rounds over-counted", tally.most_over_counted),
        ("ledgers with a wrong total at the end", tally.wrong_totals),
        ("resends (identical bytes)", tally.resends),
        ("torn lines", outcome(torn)),
        ("cuts under the anchor", outcome(cut)),
    ]
    kinds: dict[str, Counter[str]] = {}
    for what, found in (("flipped bit", flipped), ("put back", rolled)):
        for (kind, result), count in found.items():
            kinds.setdefault(f"{what}: {kind}", Counter())[result] += count
    rows += [(kind, outcome(found)) for kind, found in kinds.items()]
    rows += [(name, f"{value:.4f}") for name, value in times.items()]
    lost = tally.under_counts + tally.two_payloads + tally.wrong_totals + torn["lost"] + cut["lost"] + cut["kept"]
    lost += sum(found["lost"] for found in kinds.values())
    rows.append(("SILENT LOSSES", lost))
    show("The privacy ledger under faults", ["what", "found"], rows)
    write("ledger", {"rows": [[str(cell) for cell in row] for row in rows], "seed": arguments.seed, **times})


if __name__ == "__main__":
    main()
