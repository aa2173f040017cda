"""A ledger whose files were cut, changed by a bit, or put back from a backup: is anything lost without a word?

Each drill says of each damage one of

* ``refused``: a call said no (:class:`PrivacyError`)
* ``kept``: every call works and every reservation, membership and sealed update is still counted
* ``lost``: every call works, but something is missing (must never happen)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.register import Stay
from llmchain_fl.privacy.drill.scratch import anchor_file, groups_of, log_file, open_ledger, read_log, release

Files = dict[Path, bytes]
GROUPS = ("drill/training:a", "drill/training:b")


@dataclass(frozen=True)
class Truth:
    """What the ledger was told: number of rounds reserved, people of each group, bytes still kept, newest receipt."""

    rounds: int
    people: dict[str, list[str]]
    payloads: dict[str, bytes]
    receipt: str


def build(folder: Path, rounds: int) -> tuple[Truth, list[Files]]:
    """A ledger of ``rounds`` rounds in two groups, the last one reserved only; and its files after each change."""
    history: list[Files] = []
    people: dict[str, list[str]] = {group: [] for group in GROUPS}
    payloads: dict[str, bytes] = {}
    ledger, receipt = open_ledger(folder), ""
    for number in range(1, rounds + 1):
        group = GROUPS[number % 2]
        people[group] += [f"person {number}.{k}" for k in range(3)]
        for step in _round(ledger, number, group, people[group], receipt, payloads if number < rounds else None):
            history.append(files_of(folder))
            receipt = step or receipt
    history.append(files_of(folder))
    return Truth(rounds, people, dict(list(payloads.items())[-2:]), receipt), history


def _round(
    ledger: FileLedger, number: int, group: str, people: list[str], echo: str, payloads: dict[str, bytes] | None
) -> Iterator[str]:
    """The calls of one round, a stop after each; yields the receipt once there is one."""
    key = release(number).key
    ledger.acknowledge(echo)
    yield ""
    ledger.reserve(release(number, group), [(group, people)])
    yield ""
    if payloads is not None:
        payloads[key] = f"update {number}".encode() * 4
        ledger.seal(key, payloads[key])
        yield ledger.receipt()


def look(folder: Path, truth: Truth) -> str:
    """``refused``, ``kept`` or ``lost``; changes nothing when the ledger is whole."""
    try:
        ledger = open_ledger(folder)
        counted = sum(event.steps for event in ledger.spent().events) == truth.rounds * 20
        where = {group: groups_of(folder, people) for group, people in truth.people.items()}
        registered = all(groups == {Stay(group)} for group, stays in where.items() for groups in stays)
        bytes_kept = all(ledger.sealed(key) == payload for key, payload in truth.payloads.items())
    except PrivacyError:
        return "refused"
    return "kept" if counted and registered and bytes_kept else "lost"


def flips(folder: Path, truth: Truth, count: int, draw: random.Random) -> Counter[tuple[str, str]]:
    """Flip ``count`` random bits, one at a time, each file getting its share: (file, outcome) -> how often."""
    whole, counts = files_of(folder), Counter[tuple[str, str]]()
    names = sorted(whole)
    for number in range(count):
        file = names[number % len(names)]
        bit = draw.randrange(8 * len(whole[file]))
        changed = bytearray(whole[file])
        changed[bit // 8] ^= 1 << bit % 8
        _overwrite(file, bytes(changed))
        kind = file.parent.name if file.parent.name in ("members", "sealed") else file.name
        counts[kind, look(folder, truth)] += 1
        put_back(folder, whole)
    return counts


def cuts(folder: Path, truth: Truth) -> Counter[str]:
    """Cut the log at every byte, under its own anchor: every one of them must be refused."""
    whole, counts = files_of(folder), Counter[str]()
    data = whole[log_file(folder)]
    for size in range(len(data)):
        _overwrite(log_file(folder), data[:size])
        counts[look(folder, truth)] += 1
        put_back(folder, whole)
    return counts


def torn_tails(folder: Path, history: list[Files]) -> Counter[str]:
    """Every cut through the one line that was being written when the process died (the anchor still names the last).

    ``kept``: everything before that line is counted, and the line itself only when it is whole.
    """
    counts, log, anchor = Counter[str](), log_file(folder), anchor_file(folder)
    for before, after in pairwise(history):
        start, data = len(before[log]), after[log]
        for size in range(start, len(data) + 1 if len(data) > start else start):
            put_back(folder, {**after, log: data[:size], anchor: before[anchor]})
            earlier = set(read_log(folder).reserved)
            open_ledger(folder).reserve(release(999))
            counts["kept" if set(read_log(folder).reserved) == earlier | {release(999).key} else "lost"] += 1
    put_back(folder, history[-1])
    return counts


def rollbacks(folder: Path, truth: Truth, history: list[Files]) -> Counter[tuple[str, str]]:
    """Put back what a backup of every earlier moment held: (what was put back, outcome) -> how often.

    The log alone, or the folder, is found by the anchor; folder and anchor together by the receipt that the server
    hands back, also when the site has worked on since. A backup made after the last update left is ``kept``: it lacks
    nothing that the world has seen.
    """
    counts, now, log, anchor = Counter[tuple[str, str]](), history[-1], log_file(folder), anchor_file(folder)
    for then in (files for files in history if files[log] != now[log]):
        counts["log", _after(folder, {**now, log: then[log]}, lambda: look(folder, truth))] += 1
        state = {file: data for file, data in then.items() if file != anchor}
        counts["folder", _after(folder, {**state, anchor: now[anchor]}, lambda: look(folder, truth))] += 1
        pair = {**now, log: then[log], anchor: then[anchor]}
        counts["log and anchor", _after(folder, pair, lambda: _echo(folder, truth, 0))] += 1
        counts["folder and anchor", _after(folder, then, lambda: _echo(folder, truth, 0))] += 1
        counts["folder and anchor, worked on", _after(folder, then, lambda: _echo(folder, truth, 12))] += 1
        counts["anchor", _after(folder, {**now, anchor: then[anchor]}, lambda: look(folder, truth))] += 1
    put_back(folder, now)
    return counts


def _after(folder: Path, files: Files, act: Callable[[], str]) -> str:
    put_back(folder, files)
    return act()


def _echo(folder: Path, truth: Truth, rounds: int) -> str:
    """What becomes of the newest receipt after ``rounds`` more rounds without one; is all that was sent counted?"""
    try:
        ledger = open_ledger(folder)
        for number in range(rounds):
            ledger.reserve(release(100 + number))
        ledger.acknowledge(truth.receipt)
    except PrivacyError:
        return "refused"
    return "kept" if set(truth.payloads) <= set(read_log(folder).seals) else "lost"


def files_of(folder: Path) -> Files:
    """The content of everything but the lock."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name != "lock"}


def put_back(folder: Path, files: Files) -> None:
    """Make ``files`` the only files."""
    there = files_of(folder)
    for file in there.keys() - files.keys():
        file.unlink()
    for file, data in files.items():
        if there.get(file) != data:
            _overwrite(file, data)


def _overwrite(file: Path, data: bytes) -> None:
    """In place: some file systems flush a file that is emptied first, which would make a drill ten times slower."""
    with file.open("r+b" if file.exists() else "xb") as opened:
        opened.write(data)
        opened.truncate()
