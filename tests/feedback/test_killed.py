"""The process is killed before and after every write, of the store and of an edition: nothing is lost or doubled."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.core.privacy import durable
from llmchain_fl.feedback.edition import freeze, settle, withdraw
from llmchain_fl.feedback.quarantine import Rules
from llmchain_fl.feedback.store import TRAIN, Store

KILLED = 77
WRITES = ("INSERT", "UPDATE", "DELETE", "COMMIT", "BEGIN", "PRAGMA wal_checkpoint")


class Killing:
    """Ends this process at the n-th write."""

    def __init__(self, at: int) -> None:
        self.left = at

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(KILLED)

    def statement(self, text: str) -> None:
        if text.lstrip().startswith(WRITES):
            self.count()

    def replace(self, path: Path, data: bytes) -> None:
        self.count()
        path.with_name(f".{path.name}.draft").write_bytes(data[: len(data) // 2])
        self.count()
        durable.replace(path, data)
        self.count()


def whole(folder: Path, tell: Any, killing: Killing | None = None) -> None:
    """One piece of work: two tell, both agree, one edition, one is taken back, another edition."""
    store = Store(folder / "s.sqlite")
    write = durable.replace
    if killing is not None:
        store._made.set_trace_callback(killing.statement)
        write = killing.replace
    settle(store, write)
    for person, text in (("ann", "card lost"), ("bob", "pay"), ("bob", "why")):
        store.add(tell(person, text, request=f"req-{text}"), 9)
        store.agree("north", person, TRAIN, "v1", 1.0)
    for record in store.records():
        store.decide(record.id, True)
    freeze(store, "one", folder / "one.jsonl", "classification", "bank", Rules(most=1), 9e9, write)
    withdraw(store, "north", "ann", 9e9, write)
    freeze(store, "two", folder / "two.jsonl", "classification", "bank", Rules(most=1), 9e9, write)
    store.close()


def texts(folder: Path) -> list[list[str]]:
    return [[json.loads(line)["text"] for line in (folder / f"{name}.jsonl").read_text().splitlines()]
            for name in ("one", "two")]  # fmt: skip


def child(folder: Path, tell: Any, at: int) -> int:
    """The exit code of a process that is killed at its ``at``-th write."""
    process = os.fork()
    if process == 0:
        try:
            whole(folder, tell, Killing(at))
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed_everywhere(tmp_path: Path, tell: Any, step: int) -> int:
    """How many kills; after each the same work is done again, as whoever is told nothing does it again."""
    at, kills = 1, 0
    while True:
        folder = tmp_path / str(at)
        folder.mkdir()
        code = child(folder, tell, at)
        assert code in (0, KILLED)
        store = Store(folder / "s.sqlite")
        settle(store)
        for file in folder.glob("*.jsonl"):
            held = Counter(one.told.input for one in store.records("edition > 0"))
            assert all(held[json.loads(line)["text"]] == 1 for line in file.read_text().splitlines())
        had_left = store.withdrawn("north", "ann")
        store.close()
        if had_left:  # she is gone: to tell anew is to agree anew
            assert "card lost" not in "".join(file.read_text() for file in folder.glob("*.jsonl"))
        whole(folder, tell)
        assert texts(folder)[0] in (["pay"], ["why"])
        assert sorted([*texts(folder)[0], *texts(folder)[1]]) == ["pay", "why"]
        if code == 0:
            return kills
        at, kills = at + step, kills + 1


def test_a_kill_at_every_third_write_loses_and_doubles_nothing(tmp_path: Path, say: Any) -> None:
    assert killed_everywhere(tmp_path, say, 3) > 8


@pytest.mark.thorough
def test_a_kill_at_every_write_loses_and_doubles_nothing(tmp_path: Path, say: Any) -> None:
    assert killed_everywhere(tmp_path, say, 1) > 25
