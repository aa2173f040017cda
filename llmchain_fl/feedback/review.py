"""One record at a time in the terminal: what was asked, answered, told; the reviewer accepts, rejects or strikes out.

Everything that others wrote is shown by ``printable``: nothing in it moves the cursor or begins a line. What is said
about other records of the pool (``twins``) is advice to the reviewer, who decides record by record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llmchain_fl.core.printable import printable
from llmchain_fl.feedback.quarantine import Rules, judged
from llmchain_fl.feedback.record import PENDING, Record
from llmchain_fl.feedback.store import Store

STRUCK = "[...]"
SHOWN = 2000
"""Characters of a text that are shown."""
KEYS = {"a": "accept", "r": "reject", "x": "strike out", "s": "skip", "q": "end"}


@dataclass(frozen=True)
class Shown:
    """A record with what a reviewer should know."""

    record: Record
    reason: str
    twins: int

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        entry = self.record.told
        yield f"record {self.record.id}  {printable(entry.model)}  {entry.kind}"
        for name, text in (("asked", entry.input), ("answered", entry.output), ("right", entry.correction)):
            if text:
                yield f"  {name:9} {printable(text[:SHOWN])}{' ...' * (len(text) > SHOWN)}"
        if self.reason:
            yield f"  note      would stay out: {self.reason}"
        if self.twins:
            yield f"  note      {self.twins} other records ask the same: advice, no rule"


def waiting(store: Store, now: float) -> list[Shown]:
    """Records that nobody has decided, oldest first."""
    pending = store.records("state = ? AND edition = 0", (PENDING,))
    inputs = [one.told.input.casefold() for one in pending]
    shown = []
    for one in sorted(pending, key=lambda record: record.order):
        own = store.records("tenant = ? AND person = ?", (one.told.tenant, one.told.person))
        reason = judged(own, Rules(reviewed=False), now)[one.id]
        shown.append(Shown(one, reason, inputs.count(one.told.input.casefold()) - 1))
    return shown


def struck_out(text: str, part: str) -> str:
    """``text`` without any place of ``part``, whatever its case."""
    return re.sub(re.escape(part), STRUCK, text, flags=re.IGNORECASE) if part else text


def review(store: Store, now: float, ask: Callable[[str], str], say: Callable[[str], None]) -> dict[str, int]:
    """Go through what waits; how many were accepted, rejected, left.

    Args:
        ask: a question -> the reviewer's answer.
        say: shows a line.
    """
    counts = {"accepted": 0, "rejected": 0, "left": 0}
    pending = waiting(store, now)
    for place, shown in enumerate(pending):
        for line in shown.lines():
            say(line)
        key = _key(ask)
        if key == "q":
            counts["left"] += len(pending) - place
            break
        if key == "s":
            counts["left"] += 1
            continue
        entry = shown.record.told
        part = ask("strike out which words") if key == "x" else ""
        done = store.decide(
            shown.record.id, key != "r", struck_out(entry.input, part), struck_out(entry.correction, part)
        )
        counts["left" if not done else "rejected" if key == "r" else "accepted"] += 1
    return counts


def _key(ask: Callable[[str], str]) -> str:
    question = ", ".join(f"{key} {action}" for key, action in KEYS.items())
    while True:
        key = ask(question).strip().lower()[:1]
        if key in KEYS:
            return key
