"""A store in a folder, and short ways to say something in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.feedback.record import Told
from llmchain_fl.feedback.store import TRAIN, Store

DAY = 86_400.0


def told(person: str = "ann", input: str = "card lost", **changes: Any) -> Told:
    """A correction to ``other``, told at the first day."""
    usual: dict[str, Any] = {
        "tenant": "north",
        "model": "bank@1",
        "adapter": "a" * 64,
        "task": "classification",
        "request": f"req-{hashlib.sha256(f'{person}/{input}'.encode()).hexdigest()[:24]}",
        "output": "lost_card",
        "kind": "correct",
        "correction": "other",
        "at": DAY,
    }
    return Told(person=person, input=input, **{**usual, **changes})


class Kept(Store):
    """With a word for agreeing and accepting."""

    def say(self, *all_told: Told, agreed: bool = True, accepted: bool = True) -> None:
        for one in all_told:
            self.add(one, 10**6)
            if agreed:
                self.agree(one.tenant, one.person, TRAIN, "v1", one.at)
        for record in self.records("state = 'pending'") if accepted else ():
            self.decide(record.id, True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Kept]:
    found = Kept(tmp_path / "kept" / "feedback.sqlite")
    yield found
    found.close()


@pytest.fixture
def say() -> Any:
    """See ``told``."""
    return told
