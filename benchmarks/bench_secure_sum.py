"""Secure sums: is every sum exact or none, does a killed site ever say too much, and what do they cost?

    python benchmarks/bench_secure_sum.py [--sizes 3 4 5 6 7 8] [--seconds 1800] [--kills 500] [--values 0.1 1 10]

* patterns   n members, each of which gives no shares, or does not upload, or does not unmask, or stays: all 4**n, in
             random order, for at most so many seconds. A sum must be exact, and there must be one exactly where enough
             members are left at each step.
* kills      a site in its own process, really flushed, that gets SIGKILL at the n-th system call that changes its disk
             or at a random moment, is started again and asked again, with other numbers, and for other lists of
             survivors than before. Whatever was heard of it: one answer to each question, and never both shares of one
             member.
* cost       one site and the server, with as many members as a real run has, but only one real upload: CPU seconds,
             bytes on the wire, peak memory. 16 bits a value and as many as the sum of all needs. A site's disk is in
             memory here.

Needs no data. Half an hour; most of it patterns of 8.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench import show, write

from llmchain_fl.core.errors import SecureSumError
from llmchain_fl.core.secure.member import Member
from llmchain_fl.core.secure.words import Words, packed, packed_size, unpacked, wrapped
from llmchain_fl.privacy.drill import secure_sum as drill
from llmchain_fl.privacy.drill.kills import CALLS, Fault
from llmchain_fl.privacy.drill.secure_sum import BITS, PLAN, RUN, Club
from llmchain_fl.secure_opening import Secrets, take_masks_away
from llmchain_fl.secure_sum import Kind, Opened, SecureRound

MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
ME, PEER, LAST = NAMES = ["site-00", "site-01", "site-02"]
LISTS = ([ME, PEER], [ME, LAST], NAMES)
MILLION = 1_000_000


# -- patterns ---------------------------------------------------------------------------------------------------------


def patterns(count: int, seconds: float, seed: int) -> Counter[str]:
    """Outcomes over the patterns of ``count`` members, until the time is over."""
    names = [f"site-{number:02}" for number in range(count)]
    numbers, found, end = drill.some_numbers(names), Counter[str](), time.monotonic() + seconds
    threshold = floor = count // 2 + 1
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="bench-secure-") as home:
        for pattern, opened in drill.every_pattern(Path(home), count, numbers, random.Random(seed)):
            left = [sum(comes > step for comes in pattern.values()) for step in range(3)]
            enough = left[0] >= floor and left[1] >= floor and left[2] >= threshold
            if isinstance(opened, Opened):
                right = bool((opened.total == sum(numbers[name] for name in opened.sites)).all())
                found["exact" if right and enough else "below the threshold" if right else "wrong"] += 1
            else:
                found["lost" if enough else "none"] += 1
            if time.monotonic() > end:
                break
    return found


# -- kills ------------------------------------------------------------------------------------------------------------


@dataclass
class Heard:
    """What came out of the site in one round: question -> different answers."""

    answers: dict[str, set[str]] = field(default_factory=dict)
    given: dict[str, set[bool]] = field(default_factory=dict)
    """Member -> as what a share of it was given away: as a survivor, as one that is gone."""

    def take(self, kind: str, answer: bytes, survivors: list[str]) -> None:
        self.answers.setdefault(kind, set()).add(answer.hex())
        if kind == "answer":
            for name in NAMES:
                self.given.setdefault(name, set()).add(name in survivors)


@dataclass
class Tally:
    """Over all rounds."""

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    answers: int = 0
    different: int = 0
    both: int = 0


def questions(club: Club, kind: str, draw: random.Random) -> list[tuple[str, list[str], Callable[[], bytes]]]:
    """What a server asks in a step: everything so far again, then the step; lists of survivors in any order."""
    member, server, number = club.members[ME], club.server, club.number
    found: list[tuple[str, list[str], Callable[[], bytes]]] = [("key", [], lambda: member.key(RUN, number))]
    if kind == "key":
        return found
    found.append(("share", [], lambda: member.shares(RUN, number, server.directory(), PLAN)))
    if kind == "share":
        return found
    numbers = np.array([draw.randrange(-(2**15), 2**15) for _ in range(16)])
    words, shares = wrapped(numbers, BITS), server.shares_for(ME)
    found.append(
        ("upload", [], lambda: member.masked(RUN, number, server.directory(), server.shared(), shares, words, BITS))
    )
    if kind == "answer":
        for survivors in draw.sample(LISTS, 3):
            asked = (RUN, number, survivors, server.statements_for(ME))
            found.append(("survivors", survivors, partial(member.confirm, *asked)))
            found.append(("answer", survivors, partial(member.unmask, *asked)))
    return found


def deaths() -> Iterator[Fault]:
    """In turn: at the n-th system call, n through the whole life of a process; at a random moment."""
    draw = random.Random(7)
    while True:
        yield Fault(call=draw.randint(1, 90))
        yield Fault(seconds=draw.uniform(1e-4, 0.06))


def site(club: Club, kind: str, fault: Fault, draw: random.Random, say: Callable[[bytes], object]) -> None:
    """The site's process: answers until it dies."""
    club.members[ME] = drill.open_member(club.home / ME, ME, club.policy)
    left = [fault.call]

    def step(real: Callable[..., Any], name: str, *arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            if name == "write":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)

    for name in CALLS if fault.call else ():
        setattr(os, name, partial(step, getattr(os, name), name))
    for asked, survivors, answer in questions(club, kind, draw):
        say(json.dumps([asked]).encode() + b"\n")
        try:
            told = answer()
        except SecureSumError as refusal:
            if refusal.check not in ("one-list", "store"):
                raise
            continue
        say(json.dumps([asked, told.hex(), survivors]).encode() + b"\n")


def live(club: Club, kind: str, fault: Fault, heard: Heard, tally: Tally, seed: int) -> bool:
    """One process of the site; whether it came to its end."""
    receive, send = os.pipe()
    real_write, child = os.write, os.fork()
    if child == 0:
        try:
            site(club, kind, fault, random.Random(seed), partial(real_write, send))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(send)
    if fault.seconds:
        time.sleep(fault.seconds)
        os.kill(child, signal.SIGKILL)
    phase = "start"
    with os.fdopen(receive, "rb") as pipe:
        for line in pipe:
            if line.endswith(b"\n"):
                phase, *told = json.loads(line)
                if told:
                    heard.take(phase, bytes.fromhex(told[0]), told[1])
                    tally.answers += 1
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the site failed by itself at {phase!r}")
    tally.kills[phase] += status != 0
    return status == 0


def round_of_deaths(club: Club, faults: Iterator[Fault], tally: Tally, draw: random.Random) -> None:
    """One round of three: two honest members, and the site that dies and is asked for three lists of survivors."""
    heard, server, others = Heard(), club.server, [PEER, LAST]
    numbers = drill.some_numbers(NAMES, seed=club.number)

    def rest(kind: str) -> None:
        if kind == "key":
            club.ask("key", others, lambda _, member: member.key(RUN, club.number))
        elif kind == "share":
            drill.give_shares(club, others)
        elif kind == "upload":
            drill.upload(club, others, numbers)

    kinds: tuple[Kind, ...] = ("key", "share", "upload", "answer")
    for kind in kinds:
        while not live(club, kind, next(faults), heard, tally, draw.getrandbits(32)):
            pass
        if kind != "answer":
            server.hear(kind, ME, bytes.fromhex(next(iter(heard.answers[kind]))))
            rest(kind)
    tally.rounds += 1
    tally.different += sum(len(answers) > 1 for answers in heard.answers.values())
    tally.both += any(len(kinds) > 1 for kinds in heard.given.values())


def kill(count: int, seed: int) -> Tally:
    """At least ``count`` deaths, over as many rounds as that takes."""
    tally, faults, draw = Tally(), deaths(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="bench-secure-") as home:
        club = drill.new_club(Path(home), 3)
        while tally.kills.total() < count:
            round_of_deaths(club, faults, tally, draw)
            drill.next_round(club)
    return tally


# -- cost -------------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peak(work: Callable[[], object]) -> float:
    """Most memory of one call beyond what was there before, in millions of bytes."""
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 1e6


@dataclass
class Played:
    """One round of ``members`` with short vectors: what one site and the server did for it."""

    club: Club
    site: float = 0.0
    """CPU seconds of one site's signatures, shares and checks: all but the mask."""
    up: int = 0
    down: int = 0
    """Bytes of one site but for the numbers and the model."""
    server: float = 0.0
    """CPU seconds of the server's checks, and of opening the secrets."""
    secrets: Secrets | None = None


def played(club: Club, stay: list[str], number: int) -> Played:
    """A round in which only ``stay`` upload; the members are measured one by one, the first one is told of."""
    found, names = Played(club), sorted(club.members)
    server = club.server

    def ask(kind: Kind, who: list[str], step: Callable[[str, Member], bytes], down: int) -> None:
        for name in who:
            start = time.process_time()
            answer = step(name, club.members[name])
            if name == ME:
                found.site += time.process_time() - start
                found.up += len(answer)
                found.down += down
            server.hear(kind, name, answer)

    ask("key", names, lambda _, member: member.key(RUN, number), 0)
    directory = server.directory()
    ask("share", names, lambda _, member: member.shares(RUN, number, directory, PLAN), size_of(directory))
    words, shared = np.zeros(16, dtype=np.uint32), server.shared()
    given = {name: server.shares_for(name) for name in names}
    ask(
        "upload",
        stay,
        lambda name, member: member.masked(RUN, number, directory, shared, given[name], words, BITS),
        size_of(directory) + size_of(given[ME]),
    )
    survivors, told = server.survivors(), {name: server.statements_for(name) for name in stay}
    if server.confirms:
        step = lambda name, member: member.confirm(RUN, number, survivors, told[name])  # noqa: E731
        ask("survivors", stay, step, size_of(told[ME]))
    confirmed = server.confirmations()
    step = lambda name, member: member.unmask(RUN, number, survivors, told[name], confirmed)  # noqa: E731
    ask("answer", stay, step, size_of(confirmed) + size_of(told[ME]))
    found.up -= packed_size(16, BITS)
    found.server = seconds(partial(replay, server, drill.new_server(club.policy, number)))
    start = time.process_time()
    found.secrets = server.secrets()  # type: ignore[assignment]
    found.server += time.process_time() - start
    return found


def size_of(messages: list[bytes]) -> int:
    """Bytes of some messages."""
    return sum(map(len, messages))


def replay(heard: SecureRound, server: SecureRound) -> None:
    """Everything that one server heard, told to another one in the same order."""
    answers: dict[str, dict[str, bytes]] = {}
    for name, data in heard.state()[1].items():
        kind, _, who = name.partition("/")
        answers.setdefault(kind, {})[who] = data
    kinds: tuple[Kind, ...] = ("key", "share", "upload", "survivors", "answer")
    for kind in kinds:
        for who, data in answers.get(kind, {}).items():
            server.hear(kind, who, data)


def add_up(uploads: int, data: bytes, values: int, bits: int, round_: Played) -> None:
    """The server's arithmetic on vectors: as many uploads, all masks."""
    total = np.zeros(values, dtype=np.uint32)
    for _ in range(uploads):
        total += unpacked(data, values, bits)
    assert round_.secrets is not None
    take_masks_away(total, round_.club.server.members, round_.club.server.survivors(), round_.secrets)


def costs(members: int, sizes: list[int]) -> list[dict[str, float]]:
    """One row for each size of vector."""
    bits, rows = 16 + math.ceil(math.log2(members)), []
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="bench-secure-") as home:
        club = drill.new_club(Path(home) / "club", members)
        names = sorted(club.members)
        gone = max(1, members // 10)
        masker = before_the_upload(Path(home) / "masker", club)
        rounds = [played(club, names, 1)]
        drill.next_round(club)
        rounds.append(played(club, names[: members - gone], 2))
        for values in sizes:
            words = np.random.default_rng(0).integers(0, 2**16, values, dtype=np.uint32)
            mask = seconds(partial(masker, words, bits))
            data = packed(words, bits)
            alone = [partial(add_up, len(stay.club.server.survivors()), data, values, bits, stay) for stay in rounds]
            rows.append(
                {
                    "members": members,
                    "values": values,
                    "mask": mask,
                    "rest": rounds[0].site,
                    "server": rounds[0].server + seconds(alone[0]),
                    "server_gone": rounds[1].server + seconds(alone[1]),
                    "upload": len(data),
                    "up": rounds[1].up,
                    "down": rounds[1].down,
                    "site_memory": peak(partial(masker, words, bits)),
                    "server_memory": peak(partial(add_up, 1, data, values, bits, rounds[0])),
                }
            )
    return rows


def before_the_upload(home: Path, club: Club) -> Callable[[Words, int], bytes]:
    """Masking by one member of such a club, as if for the first time each time."""
    twin = club.copy(home)
    names, server = sorted(twin.members), twin.server
    drill.give_keys(twin)
    drill.give_shares(twin, names)
    directory, shared, shares = server.directory(), server.shared(), server.shares_for(ME)
    store = home / ME / "store"
    kept = {file: file.read_bytes() for file in store.iterdir()}

    def mask(words: Words, bits: int) -> bytes:
        for file, data in kept.items():
            file.write_bytes(data)
        (home / ME / "record" / "once.jsonl").unlink()
        return twin.members[ME].masked(RUN, 1, directory, shared, shares, words, bits)

    return mask


def main() -> None:
    """Run all, print three tables, write one JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[3, 4, 5, 6, 7, 8])
    parser.add_argument("--seconds", type=float, default=1800, help="at most, for the patterns of one size")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--members", type=int, nargs="*", default=[3, 10, 50, 100])
    parser.add_argument("--values", type=float, nargs="*", default=[0.1, 1, 10], help="millions")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tally = kill(arguments.kills, arguments.seed)
    os.fsync = lambda descriptor: None  # from here on only what is in the files matters, thousands of times
    found = {count: patterns(count, arguments.seconds, arguments.seed) for count in arguments.sizes}
    kinds = ("exact", "none", "wrong", "below the threshold", "lost")
    rows = [
        (count, count // 2 + 1, f"{counts.total()} of {4**count}", *(counts[kind] for kind in kinds))
        for count, counts in found.items()
    ]
    show("Who goes when", ["members", "threshold", "patterns", *kinds], rows)
    deaths_in = ", ".join(f"{phase} {count}" for phase, count in sorted(tally.kills.items()))
    told = [
        ("kills", f"{tally.kills.total()} ({deaths_in})"),
        ("rounds, answers", f"{tally.rounds}, {tally.answers}"),
        ("questions with two different answers", tally.different),
        ("rounds with both shares of a member given away", tally.both),
    ]
    show("A site that is killed", ["what", "found"], told)
    sizes = [int(MILLION * values) for values in arguments.values]
    cost = [row for members in arguments.members for row in costs(members, sizes)]
    show(
        "CPU seconds, bytes and memory",
        [
            *("members", "values", "site: mask", "rest", "server", "10 % gone", "upload MB", "of fp32"),
            *("KB up", "KB down", "site MB", "server MB"),
        ],
        [
            (
                int(row["members"]),
                f"{row['values'] / MILLION:g}M",
                *(f"{row[name]:.3f}" for name in ("mask", "rest", "server", "server_gone")),
                f"{row['upload'] / 1e6:.2f}",
                f"{row['upload'] / (4 * row['values']):.0%}",
                *(f"{row[name] / 1e3:.1f}" for name in ("up", "down")),
                *(f"{row[name]:.0f}" for name in ("site_memory", "server_memory")),
            )
            for row in cost
        ],
    )
    result = {"patterns": {str(count): dict(counts) for count, counts in found.items()}, "cost": cost}
    write("secure-sum", {**result, "kills": [list(map(str, row)) for row in told], "seed": arguments.seed})


if __name__ == "__main__":
    main()
