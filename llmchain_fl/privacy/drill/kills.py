"""A site that is killed (SIGKILL) again and again, and a server that remembers what it heard. POSIX only.

The site is a forked process that plays rounds: acknowledge, reserve, "train", seal, receipt, "send". Through a
pipe it tells this process what it is about to do *before* every act that the world could see, so what was heard is what
happened. The process dies at the n-th system call that changes the disk (a write then gets half done), or at any moment
from outside, is started again and asked for the round that it owes, sometimes for the last one once more.

After each death the disk is compared with what was heard:

* under-count: a round whose training had begun is not reserved, or one of its people not registered (must be 0)
* two payloads: a round sent different bytes (must be 0)
* over-count: rounds reserved whose training had not begun (at most 1: the one that was being reserved)
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from llmchain_fl.core.privacy.register import Stay
from llmchain_fl.privacy.drill.scratch import EVENT, GROUP, groups_of, open_ledger, read_log, release

CALLS = ("open", "write", "fsync", "ftruncate", "replace", "unlink")
PHASES = ("open", "acknowledge", "reserve", "train", "seal", "receipt", "send")
Say = Callable[..., None]


@dataclass(frozen=True)
class Fault:
    """When the process dies: at its ``call``-th call of CALLS, after ``seconds``, or (neither) not at all."""

    call: int = 0
    seconds: float = 0.0


@dataclass
class Tally:
    """What the drill found."""

    kills: Counter[str] = field(default_factory=Counter)
    """Phase -> deaths in it."""
    released: int = 0
    resends: int = 0
    under_counts: int = 0
    two_payloads: int = 0
    most_over_counted: int = 0
    wrong_totals: int = 0
    """Ledgers whose final composition is not exactly the rounds that were released."""


@dataclass
class _Heard:
    """What the server knows: rounds begun, bytes and receipts received."""

    phase: str = "open"
    begun: set[int] = field(default_factory=set)
    sent: dict[int, set[str]] = field(default_factory=dict)
    receipts: dict[int, str] = field(default_factory=dict)
    sendings: int = 0

    def take(self, phase: str, number: int = 0, digest: str = "", receipt: str = "") -> None:
        self.phase = phase
        if phase == "train":
            self.begun.add(number)
        if phase == "send":
            self.sendings += 1
            self.sent.setdefault(number, set()).add(digest)
            self.receipts[number] = receipt


def live(folder: Path, rounds: int, faults: Iterator[Fault], tally: Tally, draw: random.Random) -> None:
    """One ledger from its first to its last round, through as many deaths as ``faults`` brings."""
    heard = _Heard()
    while len(heard.sent) < rounds:
        owed = len(heard.sent) + 1
        first = owed - 1 if owed > 1 and draw.random() < 0.5 else owed  # the server may have lost the last reply
        echo = heard.receipts.get(first - 1, "")
        if _process(heard, next(faults), partial(_site, folder, first, rounds, echo)):
            tally.kills[heard.phase] += 1
        _compare(folder, heard, tally)
    spent = open_ledger(folder).spent()
    tally.wrong_totals += sum(event.steps for event in spent.events) != rounds * EVENT.steps
    tally.released += rounds
    tally.resends += heard.sendings - rounds
    tally.two_payloads += sum(len(digests) > 1 for digests in heard.sent.values())


def people_of(number: int) -> list[str]:
    """Who takes part in a round: one of everybody's, one of its own."""
    return ["everybody", f"person {number}"]


def _site(folder: Path, first: int, rounds: int, echo: str, say: Say) -> None:
    say("open")
    ledger = open_ledger(folder)
    for number in range(first, rounds + 1):
        key = release(number).key
        say("acknowledge")
        ledger.acknowledge(echo)
        payload = ledger.sealed(key)
        if payload is None:
            say("reserve")
            ledger.reserve(release(number), [(GROUP, people_of(number))])
            say("train", number)
            time.sleep(0.003)
            payload = os.urandom(64)
            say("seal")
            ledger.seal(key, payload)
        say("receipt")
        echo = ledger.receipt()
        say("send", number, hashlib.sha256(payload).hexdigest(), echo)
        time.sleep(0.001)


def _process(heard: _Heard, fault: Fault, work: Callable[[Say], None]) -> bool:
    """Run ``work`` in a child that meets ``fault``; True when it was killed. ``heard`` takes in what it says."""
    receive, send = os.pipe()
    write, child = os.write, os.fork()
    if child == 0:
        try:
            os.close(receive)
            if fault.call:
                _die_at(fault.call)
            work(partial(_say, write, send))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(send)
    if fault.seconds:
        time.sleep(fault.seconds)
        os.kill(child, signal.SIGKILL)
    heard.phase = "open"
    with os.fdopen(receive, "rb") as pipe:
        for line in pipe:
            heard.take(*json.loads(line))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the site failed by itself in phase {heard.phase!r}")
    return status != 0


def _say(write: Callable[[int, bytes], int], pipe: int, *words: object) -> None:
    write(pipe, json.dumps(words).encode() + b"\n")


def _die_at(number: int) -> None:
    left = [number]
    for name in CALLS:
        setattr(os, name, partial(_step, name, getattr(os, name), left))


def _step(name: str, real: Callable[..., Any], left: list[int], *arguments: Any, **named: Any) -> Any:
    left[0] -= 1
    if left[0] == 0:
        if name == "write":
            real(arguments[0], arguments[1][: len(arguments[1]) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)


def _compare(folder: Path, heard: _Heard, tally: Tally) -> None:
    book = read_log(folder)
    for number in heard.begun:
        registered = all(Stay(GROUP) in groups for groups in groups_of(folder, people_of(number)))
        tally.under_counts += not (registered and release(number).key in book.reserved)
    tally.most_over_counted = max(tally.most_over_counted, len(book.reserved) - len(heard.begun))
