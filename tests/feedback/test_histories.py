"""1,000 random histories of a store keep the laws: consent, caps, and that a person changes nobody else's rows."""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.core.privacy.units import same_person
from llmchain_fl.feedback.edition import freeze, withdraw
from llmchain_fl.feedback.quarantine import Rules
from llmchain_fl.feedback.store import TRAIN, Already, Full, Store

PERSONS, MOST, PER_DAY = ["ann", "Bob", "cid"], 2, 4
WORDS = ["card", "lost", "pay", "why", "send", "money", "pin", "rate"]


@dataclass
class History:
    """Steps that were drawn once, (what, person, a number of its own), to be played with and without somebody."""

    steps: list[tuple[str, str, int]] = field(default_factory=list)

    @staticmethod
    def drawn(seed: int) -> History:
        draw = random.Random(seed)
        kinds = ["tell"] * 8 + ["agree"] * 3 + ["accept"] * 4 + ["reject", "withdraw"] + ["freeze"] * 2
        drawn = [(draw.choice(kinds), draw.choice(PERSONS), draw.randrange(10**6)) for _ in range(draw.randint(4, 28))]
        steps = [("freeze", "", 0) if step[0] == "freeze" else step for step in drawn]
        return History([*steps, ("freeze", "", 0)])


def played(history: History, folder: Path, tell: Any, without: str = "") -> tuple[Store, list[Path], dict[str, int]]:
    """The store and its editions; and the step at which each person agreed last, or took it back (below 0)."""
    store, editions = Store(folder / "s.sqlite"), list[Path]()
    store._made.execute("PRAGMA synchronous = OFF")  # test_killed.py is about the disk
    agreed: dict[str, int] = {}
    for time, (what, person, number) in enumerate(history.steps, 1):
        if person and person == without:
            continue
        own = same_person(person)
        draw = random.Random(number)
        if what == "tell":
            kind = draw.choice(["correct", "choose", "up", "down"])
            text = " ".join(draw.choices(WORDS, k=2))
            right = draw.choice(["other", "rates", "nothing"]) if kind in ("correct", "choose") else ""
            with contextlib.suppress(Full, Already):
                store.add(
                    tell(own, text, request=f"req-{number}", kind=kind, correction=right, at=float(time)), PER_DAY
                )
        elif what == "agree":
            store.agree("north", own, TRAIN, "v1", float(time))
            agreed[own] = time
        elif what == "withdraw":
            withdraw(store, "north", person, float(time), Path.write_bytes)
            agreed[own] = -time
        elif what in ("accept", "reject"):
            for record in store.records("person = ? AND edition = 0", (own,)):
                if random.Random(f"{number}{record.told.request}").random() < 0.7:
                    store.decide(record.id, what == "accept")
        else:
            editions.append(folder / f"e{len(editions)}.jsonl")
            rules = Rules(most=MOST, labels=frozenset({"other", "rates"}), with_up=False)
            freeze(
                store, f"e{len(editions)}", editions[-1], "classification", "bank", rules, float(time), Path.write_bytes
            )
    return store, editions, agreed


def lines(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def keeps_the_laws(seed: int, tell: Any) -> int:
    """Rows of all editions of one history."""
    history = History.drawn(seed)
    with tempfile.TemporaryDirectory() as place:
        (folder := Path(place) / "all").mkdir()
        store, editions, agreed = played(history, folder, tell)
        rows = [lines(file) for file in editions]
        for edition in rows:
            for row in edition:
                assert agreed.get(row["person"], -1) > 0, "not agreed, or taken back"
                assert row["label"] in ("other", "rates")
            assert max(Counter(row["person"] for row in edition).values(), default=0) <= MOST
        said = [json.dumps(row) for edition in rows for row in edition]
        held = [record for record in store.records() if record.edition]
        assert len(said) == len(held), "a row is lost or doubled"
        for person in {same_person(one) for one in PERSONS}:
            assert len(store.records("person = ?", (person,))) <= PER_DAY
        store.close()
        for number, person in enumerate(PERSONS):
            (other := Path(place) / f"without-{number}").mkdir()
            left, fewer, _ = played(history, other, tell, without=person)
            expected = [[row for row in edition if row["person"] != same_person(person)] for edition in rows]
            assert [lines(file) for file in fewer] == expected
            left.close()
        return sum(map(len, rows))


def test_random_histories_keep_the_laws(say: Any) -> None:
    assert sum(keeps_the_laws(seed, say) for seed in range(25)) > 5


@pytest.mark.thorough
def test_a_thousand_histories_keep_the_laws(say: Any) -> None:
    assert sum(keeps_the_laws(seed, say) for seed in range(25, 1025)) > 200
