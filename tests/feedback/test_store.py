"""Each row of the store's table; who may read the file; what a withdrawal leaves behind."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.core.errors import DataError
from llmchain_fl.feedback.edition import freeze, withdraw
from llmchain_fl.feedback.quarantine import Rules
from llmchain_fl.feedback.store import MONITOR, TRAIN, Already, Full, Store

DAY = 86_400.0


def test_the_file_and_what_stands_beside_it_are_for_the_owner_alone(store: Any, say: Any) -> None:
    store.say(say())
    for file in store.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert sqlite3.connect(store.path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("bad", ["open", "link", "folder", "foreign", "newer"])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "s.sqlite"
    if bad == "folder":
        file.mkdir()
    elif bad == "foreign":
        file.write_text("not a data base " * 300)
        file.chmod(0o600)
    else:
        Store(tmp_path / "real.sqlite").close()
        (tmp_path / "real.sqlite").rename(file)
        if bad == "open":
            file.chmod(0o640)
        if bad == "newer":
            sqlite3.connect(file).executescript("PRAGMA user_version = 9")
        if bad == "link":
            file.rename(tmp_path / "moved")
            file.symlink_to(tmp_path / "moved")
    with pytest.raises(DataError) as error:
        Store(file)
    assert (bad == "open") == (f"chmod 600 {file}" in str(error.value))


def test_the_same_again_is_kept_once_and_another_word_is_refused(store: Any, say: Any) -> None:
    for _ in range(3):
        store.add(say(), 50)
    assert len(store.records()) == 1
    for other in (say(correction="rates"), say(person="bob", request=say().request), say(kind="down", correction="")):
        with pytest.raises(Already):
            store.add(other, 50)
    store.add(say(output="rates", kind="down", correction=""), 50)
    assert len(store.records()) == 2


def test_a_person_leaves_no_more_than_a_day_may_have_and_takes_nothing_from_others(store: Any, say: Any) -> None:
    for n in range(3):
        store.add(say(input=f"text {n}"), 3)
    with pytest.raises(Full):
        store.add(say(input="one more"), 3)
    store.add(say(person="bob"), 3)
    store.add(say(input="tomorrow", at=2 * DAY), 3)
    store.add(say(input="other tenant", tenant="south"), 3)
    assert len(store.records()) == 6


def test_no_tenant_agrees_or_takes_back_for_anothers_person(store: Any, say: Any) -> None:
    store.say(say(), agreed=False)
    store.agree("south", "ann", TRAIN, "v1", DAY)
    assert not store.agrees("north", "ann", TRAIN)
    assert store.persons("classification", "bank") == []
    store.agree("north", "ann", TRAIN, "v1", DAY)
    assert withdraw(store, "south", "ann") == 0
    assert store.persons("classification", "bank") == [("north", "ann")]


def test_a_withdrawal_deletes_the_rows_from_the_store_and_from_every_edition(
    store: Any, say: Any, tmp_path: Path
) -> None:
    file = tmp_path / "e.jsonl"
    store.say(say(input="secret words of ann"), say("bob"), say(input="later", at=3 * DAY))
    freeze(store, "one", file, "classification", "bank", Rules(), 9 * DAY)
    before = file.read_text().splitlines()
    assert withdraw(store, "north", " ANN ") == 2
    assert file.read_text().splitlines() == [line for line in before if '"bob"' in line]
    assert store.withdrawn("north", "ann")
    assert not store.withdrawn("south", "ann")
    for part in store.path.parent.iterdir():
        assert b"secret words" not in part.read_bytes(), part.name
        assert b"ann" not in part.read_bytes(), part.name
    store.agree("north", "ann", TRAIN, "v2", 9 * DAY)
    assert not store.withdrawn("north", "ann")


def test_votes_count_only_of_persons_who_agree_to_it(store: Any, say: Any) -> None:
    for person, kind in (("ann", "down"), ("bob", "up"), ("cid", "down")):
        store.add(say(person, kind=kind, correction=""), 50)
    for person in ("ann", "bob"):
        store.agree("north", person, MONITOR, "v1", DAY)
    store.agree("north", "cid", TRAIN, "v1", DAY)
    assert store.votes() == [("1970-01-02", "bank@1", 1, 1)]
    store.withdraw("north", "ann", MONITOR, DAY)
    assert store.votes() == [("1970-01-02", "bank@1", 1, 0)]
    assert len(store.records()) == 3


def test_names_of_models_are_no_patterns(store: Any, say: Any) -> None:
    store.say(say(model="b_nk@1"), say("bob", model="bank@1"))
    assert store.persons("classification", "b_nk") == [("north", "ann")]
    assert store.persons("classification", "bank") == [("north", "bob")]


def test_a_stored_row_cannot_be_read_by_the_mode_of_the_process(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        Store(tmp_path / "x" / "s.sqlite").close()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x" / "s.sqlite").stat().st_mode) == 0o600
