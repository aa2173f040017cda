"""A ledger as its owner reads it: every release with its time, what each group has spent, how the chain stands.

Reading verifies everything that training would verify, adds no entry and makes no ledger where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import Spent
from llmchain_fl.core.privacy.book import Book
from llmchain_fl.core.privacy.release import Release, Terms
from llmchain_fl.core.privacy.store import Store, unit_of
from llmchain_fl.core.privacy.totals import Totals, bound

STATES = {
    "reserved": "paid for; nothing was sealed yet, or the round was never finished",
    "sealed": "its bytes are fixed and may have left",
    "acknowledged": "the server has shown that it got them",
}
"""How far a release has come."""


@dataclass(frozen=True)
class Line:
    """One release."""

    time: str
    """When it was reserved, UTC."""
    release: Release
    state: str
    """One of STATES."""


@dataclass(frozen=True)
class Reading:
    """A verified ledger."""

    terms: Terms
    lines: tuple[Line, ...]
    """In the order reserved."""
    spent: Spent
    length: int
    """Lines of the log, of every type."""
    head: str
    """Hash of the last line: who notes it down can later tell whether this state is still in the ledger's past."""
    anchor: Path
    renewed: tuple[str, ...]
    """When the data holder made a new anchor."""

    @property
    def left(self) -> float:
        """Limit minus spent. Epsilons do not simply add: it may pay for more than another ledger's would."""
        return max(0.0, self.terms.epsilon_limit - self.spent.epsilon)

    def profiles(self) -> Iterator[tuple[str, float]]:
        """(set of groups that somebody is in, its own epsilon); the largest is the total."""
        for name, events in self.spent.groups:
            yield name, bound({name: events}, self.terms)


def read_ledger(
    folder: Path, anchor: Path, *, site: str, delta: float, accountant: str, epsilon_limit: float
) -> Reading | None:
    """What the ledger says; None where nothing was ever reserved (neither folder nor anchor is there).

    Args:
        folder: the ledger's folder.
        anchor: its anchor.
        site: whose it must be; the unit is the one it was opened with.
        delta: at which epsilon is stated.
        accountant: one of accounting.ACCOUNTANTS.
        epsilon_limit: the site's limit, to say what is left.

    Raises:
        PrivacyError: it cannot be trusted: anything missing, damaged, rolled back or of another site.
    """
    if not folder.is_dir():
        if anchor.exists():
            raise PrivacyError(
                f"the ledger {folder} is gone, but its anchor {anchor} shows that it was in use",
                remedy="put back the latest state folder; a fresh ledger would forget what was spent",
            )
        return None
    terms = Terms(site, unit_of(folder), delta, accountant, epsilon_limit)
    store = Store(folder, anchor, terms)
    with store.opened() as book:
        people = set(store.register.people(book.members).values())
        return Reading(
            terms=terms,
            lines=tuple(_lines(book)),
            spent=Totals(terms, book.paid).spent(people),
            length=len(book.hashes),
            head=book.head,
            anchor=anchor,
            renewed=tuple(entry["time"] for entry in _entries(book) if entry["type"] == "anchor-renewed"),
        )


def _entries(book: Book) -> list[dict[str, str]]:
    return [json.loads(line) for line in bytes(book.raw).splitlines()]


def _lines(book: Book) -> Iterator[Line]:
    for entry in _entries(book):
        if entry["type"] == "reserve":
            key = entry["key"]
            state = "acknowledged" if key in book.acks else "sealed" if key in book.seals else "reserved"
            yield Line(entry["time"], book.reserved[key], state)
