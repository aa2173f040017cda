"""A canary: a promoted adapter answers a sticky share of persons, its parent the others, until feedback has spoken.

``LINE/canary.json`` is all of it: whom it compares, the key by which persons are drawn, what was bet so far. Replaced
as a whole after each vote that says something; it holds no person (keyed hashes, to bound votes) and no text.

| state | who answers | how it ends |
|---|---|---|
| running | both | ``worse``: stopped; after ``enough`` votes: passed |
| stopped | the current one; the line's pointer is moved back to it | |
| passed | the candidate | |
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmchain_fl.atomic_file import write_json
from llmchain_fl.core.errors import RunError
from llmchain_fl.hub.layout import HASH
from llmchain_fl.hub.trust import Trust
from llmchain_fl.promote.bet import STAKES, Bet
from llmchain_fl.promote.line import Line

FILE, MOST = "canary.json", 8 * 2**20
RUNNING, STOPPED, PASSED = "running", "stopped", "passed"


@dataclass
class Canary:
    """One comparison.

    Attributes:
        candidate, current: addresses; labels beside them.
        share: of persons whom the candidate answers.
        enough: votes after which it has passed.
        per_person: votes of one person that count. Several are not independent, and the test promises less.
        key: draws persons; hex.
        counted: keyed hash of a person -> votes.
        asked: feedbacks that were heard, also those that said nothing.
    """

    candidate: str
    current: str
    candidate_label: str
    current_label: str
    share: float = 0.5
    enough: int = 500
    per_person: int = 1
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    state: str = RUNNING
    bet: Bet = field(default_factory=lambda: Bet(0.05))
    counted: dict[str, int] = field(default_factory=dict)
    asked: int = 0

    def by_candidate(self, unit: str) -> bool:
        """Whether the candidate answers this person (or tenant): always the same, and drawn by a key.

        HMAC-SHA256(key, unit) as a number in [0, 1) < share
        """
        if self.state != RUNNING:
            return self.state == PASSED
        return int.from_bytes(self._mark("arm", unit)[:8], "big") < self.share * 2**64

    def hear(self, person: str, vote: float) -> bool:
        """One vote of a person; whether the state has changed by it.

        A vote that says nothing is counted as heard alone. One above ``per_person`` is not counted.
        """
        if self.state != RUNNING:
            return False
        mark = self._mark("votes", person)[:12].hex()
        self.asked += 1
        if not vote or self.counted.get(mark, 0) >= self.per_person:
            return False
        self.counted[mark] = self.counted.get(mark, 0) + 1
        if self.bet.see(vote):
            self.state = STOPPED
        elif self.bet.votes >= self.enough:
            self.state = PASSED
        return self.state != RUNNING

    def _mark(self, purpose: str, text: str) -> bytes:
        return hmac.new(
            bytes.fromhex(self.key), f"{purpose}\n{text}".encode("utf-8", "surrogatepass"), hashlib.sha256
        ).digest()

    def words(self) -> str:
        """One line."""
        proof = f"evidence {self.bet.evidence:.3g} of {1 / self.bet.alpha:g}"
        votes = f"{self.bet.votes} votes of {self.enough} ({self.asked} feedbacks)"
        return f"{self.candidate_label} against {self.current_label}: {self.state}, {votes}, {proof}"

    def to_dict(self) -> dict[str, Any]:
        """What is written."""
        return dataclasses.asdict(self)


def write_canary(line: Path, tree: dict[str, Any]) -> None:
    """``LINE/canary.json``, for its owner alone. ``tree``: of :meth:`Canary.to_dict`."""
    (line / FILE).touch(0o600)
    write_json(line / FILE, tree)
    os.chmod(line / FILE, 0o600)


def begin(line: Line, trust: Trust, before: str, share: float, enough: int) -> Canary:
    """The canary of what the pointer names against ``before``, the address that it named until now.

    Raises:
        HubError: one of both does not pass.
    """
    labels = [line.adapter(address, trust).label for address in (line.current, before)]
    canary = Canary(line.current, before, labels[0], labels[1], share, enough)
    write_canary(line.folder, canary.to_dict())
    return canary


def read_canary(line: Path) -> Canary | None:
    """The canary of a line; None where there was none.

    Raises:
        RunError: the file is damaged.
    """
    file = line / FILE
    if not file.exists():
        return None
    try:
        with file.open("rb") as opened:
            tree: dict[str, Any] = json.loads(opened.read(MOST))
        bet = Bet(**tree.pop("bet"))
        canary = Canary(**tree, bet=bet)
        bytes.fromhex(canary.key)
        sound = (
            len(bet.logs) == len(STAKES) and 0 < bet.alpha < 1 and 0 < canary.share < 1
            and all(HASH.fullmatch(one) for one in (canary.candidate, canary.current))
            and canary.state in (RUNNING, STOPPED, PASSED)
        )  # fmt: skip
    except (OSError, ValueError, TypeError, KeyError, RecursionError, AttributeError):
        sound = False
    if not sound:
        raise RunError(f"{file} is damaged", remedy="remove it: the pointer's adapter then answers everybody")
    return canary
