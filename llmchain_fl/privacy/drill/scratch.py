"""What the drills share: a made-up ledger in a folder of its own, its files, and what one round releases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from llmchain_fl.core.privacy.book import Book
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.register import NOBODY, Profile, Register, hashed
from llmchain_fl.core.privacy.release import Charge, Release, Terms
from llmchain_fl.core.privacy.site_key import read_key

GROUP = "drill/training"
TERMS = Terms("drill", "person", 1e-5, "pld", math.inf)
EVENT = Event("poisson-gaussian", 0.05, 1.0, 20)


def open_ledger(folder: Path) -> FileLedger:
    """The scratch ledger of ``folder``: state folder and anchor beside each other."""
    return FileLedger(folder / "state", anchor_file(folder), TERMS)


def anchor_file(folder: Path) -> Path:
    """Its anchor."""
    return folder / "anchor"


def log_file(folder: Path) -> Path:
    """Its log."""
    return folder / "state" / "events.jsonl"


def read_log(folder: Path) -> Book:
    """What the log says, read without repairing anything."""
    book, file = Book(), log_file(folder)
    book.extend(file.read_bytes() if file.exists() else b"", file)
    return book


def groups_of(folder: Path, people: Sequence[str]) -> list[Profile]:
    """Which groups each of ``people`` is in, as log and register say it; nothing is repaired."""
    state = log_file(folder).parent
    known = Register(state / "members").people(read_log(folder).members)
    return [known.get(one, NOBODY) for one in hashed(read_key(state / "site.key"), people)]


def release(number: int, group: str = GROUP) -> Release:
    """Round ``number``."""
    return Release(f"drill/{number}", (Charge(group, EVENT),), "plan", "training", "federation", "stage")
