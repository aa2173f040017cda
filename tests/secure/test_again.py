"""Asked again, after a restart, after a crash at any write, with an older store: one answer to each question."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmchain_fl.core.errors import SecureSumError
from llmchain_fl.core.secure.identity import digest, read_identity
from llmchain_fl.core.secure.member import Member
from llmchain_fl.core.secure.words import wrapped
from llmchain_fl.privacy.drill import secure_sum as drill
from llmchain_fl.privacy.drill.secure_sum import BITS, PLAN, RUN, Club
from llmchain_fl.secure_sum import Opened

NAMES = ME, PEER, LAST = ["site-00", "site-01", "site-02"]
NUMBERS, LATER = drill.some_numbers(NAMES), drill.some_numbers(NAMES, seed=1)
CALLS = ("open", "write", "ftruncate", "replace", "unlink", "mkdir", "fsync")
Step = Callable[[Club, Member], bytes]


def masked(numbers: dict[str, np.ndarray]) -> Step:
    return lambda club, member: member.masked(
        RUN,
        1,
        club.server.directory(),
        club.server.shared(),
        club.server.shares_for(ME),
        wrapped(numbers[ME], BITS),
        BITS,
    )


def statements(club: Club) -> list[bytes]:
    """Of everybody else, whether or not they uploaded: they collude with the server."""
    place = {"run": RUN, "round": 1, "directory": club.server.members.digest, "shared": digest(club.server.shared())}
    return [identity(club, name).signed("upload", {**place, "site": name}) for name in (PEER, LAST)]


def identity(club: Club, name: str):  # type: ignore[no-untyped-def]
    return read_identity(club.home / name / "identity.key")


def listed(*survivors: str) -> tuple[Step, Step]:
    """(confirm, unmask) for a list."""
    return (
        lambda club, member: member.confirm(RUN, 1, survivors, statements(club)),
        lambda club, member: member.unmask(RUN, 1, survivors, statements(club)),
    )


KEY: Step = lambda _, member: member.key(RUN, 1)  # noqa: E731
SHARES: Step = lambda club, member: member.shares(RUN, 1, club.server.directory(), PLAN)  # noqa: E731
STEPS: dict[str, Step] = {
    "key": KEY,
    "share": SHARES,
    "upload": masked(NUMBERS),
    "survivors": listed(ME, PEER)[0],
    "answer": listed(ME, PEER)[1],
}


def others(club: Club, kind: str) -> None:
    """What the two others do in a step; the last one does not upload."""
    club.ask("key", [PEER, LAST] if kind == "key" else [], lambda _, member: member.key(RUN, 1))
    if kind == "share":
        drill.give_shares(club, [PEER, LAST])
    if kind == "upload":
        drill.upload(club, [PEER], NUMBERS)
    if kind == "answer":
        drill.unmask(club, [PEER])


def total(club: Club) -> np.ndarray:
    opened = club.server.opened()
    assert isinstance(opened, Opened)
    assert opened.sites == (ME, PEER)
    return opened.total


def test_every_answer_is_the_same_when_asked_again_also_from_disk_and_with_other_numbers(make_club) -> None:  # type: ignore[no-untyped-def]
    club, heard = make_club(3), {}
    for kind, step in STEPS.items():
        heard[kind] = step(club, club.members[ME])
        if kind != "survivors":
            club.server.hear(kind, ME, heard[kind])
        others(club, kind)
        for _ in range(2):
            for earlier, answer in heard.items():
                again = masked(LATER) if earlier == "upload" else STEPS[earlier]
                assert again(club, club.members[ME]) == answer
            club.reopen()
    assert (total(club) == NUMBERS[ME] + NUMBERS[PEER]).all()


class Dead(BaseException):
    """The process is gone."""


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[Callable[[], bool]]:
    """The ``at``-th call that touches the disk kills; a write is half done by then. Nothing works afterwards.

    Gives whether it came to that.
    """
    calls = [0]

    def follow(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def followed(*arguments: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] >= at:
                if calls[0] == at and name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise Dead
            return real(*arguments, **named)

        return followed

    with monkeypatch.context() as patched:
        for name in CALLS:
            patched.setattr(os, name, follow(name, getattr(os, name)))
        yield lambda: calls[0] >= at


def survive(club: Club, step: Step, again: Step, monkeypatch: pytest.MonkeyPatch, at: int) -> tuple[bytes, bool]:
    """(the answer to a step, given after a death if it comes to that; whether it did)."""
    with dying(monkeypatch, at) as died:
        try:
            return step(club, club.members[ME]), died()
        except Dead:
            pass
    club.members[ME] = drill.open_member(club.home / ME, ME, club.policy)
    return again(club, club.members[ME]), died()


@pytest.mark.parametrize("kind", list(STEPS))
def test_a_death_at_any_write_of_any_step_changes_no_answer(make_club, monkeypatch, kind: str) -> None:  # type: ignore[no-untyped-def]
    at, died = 0, True
    while died:
        at += 1
        club = make_club(3)
        for current, step in STEPS.items():
            again = masked(LATER) if current == "upload" else step
            answer, fell = survive(club, step, again, monkeypatch, at if current == kind else 10**9)
            died = fell if current == kind else died
            club.reopen()
            assert again(club, club.members[ME]) == answer
            if current != "survivors":
                club.server.hear(current, ME, answer)
            others(club, current)
        assert any((total(club) == numbers[ME] + NUMBERS[PEER]).all() for numbers in (NUMBERS, LATER))
    assert at > 3


@pytest.mark.parametrize("first", [0, 1], ids=["confirm", "unmask"])
def test_a_death_at_any_write_never_lets_two_lists_be_answered(make_club, monkeypatch, first: int) -> None:  # type: ignore[no-untyped-def]
    at, died = 0, True
    lists = listed(ME, PEER), listed(*NAMES)
    outcomes, refused = set(), set()
    while died:
        at += 1
        club = make_club(3)
        drill.give_keys(club)
        drill.give_shares(club, NAMES)
        drill.upload(club, NAMES, NUMBERS)
        heard = set()
        with dying(monkeypatch, at) as fell:
            try:
                lists[0][first](club, club.members[ME])
                heard.add(0)
            except Dead:
                pass
        died = fell()
        for _ in range(2):
            for number in (1, 0):
                club.reopen()
                try:
                    lists[number][1](club, club.members[ME])
                    heard.add(number)
                except SecureSumError as refusal:
                    refused.add(refusal.check)
        outcomes.add(frozenset(heard))
    assert refused == {"one-list", "store"}
    assert outcomes == {frozenset({0}), frozenset({1})}


def test_an_older_store_never_answers_a_question_in_another_way(make_club, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    club, copies, heard = make_club(3), [], {}
    store = club.home / ME / "store"
    for kind, step in STEPS.items():
        copies.append(tmp_path / f"before-{kind}")
        shutil.copytree(store, copies[-1])
        heard[kind] = step(club, club.members[ME])
        if kind != "survivors":
            club.server.hear(kind, ME, heard[kind])
        others(club, kind)
    hostile = {**STEPS, "upload": masked(LATER), "survivors": listed(*NAMES)[0], "answer": listed(*NAMES)[1]}
    refused = set()
    for copy in copies:
        for steps in (hostile, STEPS):
            shutil.rmtree(store)
            shutil.copytree(copy, store)
            club.reopen()
            for kind, step in steps.items():
                try:
                    answer = step(club, club.members[ME])
                except SecureSumError as refusal:
                    refused.add((kind, refusal.check))
                    continue
                # keys alone may be others: the shares of the round were given under the old ones
                assert answer == heard[kind] or (kind == "key" and copy is copies[0])
    assert {("share", "own-key"), ("share", "store"), ("upload", "store"), ("answer", "store")} <= refused


def test_what_is_forgotten_stands_in_no_file_any_more(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(3)
    store = club.home / ME / "store"
    drill.give_keys(club)
    drill.give_shares(club, NAMES)
    drill.upload(club, NAMES, NUMBERS)
    with club.members[ME]._store.opened(RUN) as file:
        kept = file.rounds[1]
    secrets = {kept.seed, *kept.held.values(), kept.bundle.splitlines()[0]}
    assert len(secrets) == 5
    club.members[ME].key(RUN, 2)
    club.reopen()
    drill.unmask(club, NAMES)
    assert (total_of(club) == sum(NUMBERS.values())).all()
    told = b"".join(file.read_bytes() for file in store.iterdir()).decode("latin-1").replace('\\"', '"')
    assert all(secret in told for secret in secrets)
    club.members[ME].key(RUN, 3)
    told = b"".join(file.read_bytes() for file in store.iterdir()).decode("latin-1").replace('\\"', '"')
    assert not any(secret in told for secret in secrets)
    assert not list(store.glob("*.bin"))
    for step in (STEPS["key"], STEPS["share"], masked(NUMBERS), listed(*NAMES)[1]):
        with pytest.raises(SecureSumError, match=r"^old-round"):
            step(club, club.members[ME])


def total_of(club: Club) -> np.ndarray:
    opened = club.server.opened()
    assert isinstance(opened, Opened)
    return opened.total


def test_a_round_goes_on_while_the_keys_of_the_next_one_are_there(make_club) -> None:  # type: ignore[no-untyped-def]
    club = make_club(3)
    for number in (1, 2, 3):
        drill.give_keys(club)
        drill.give_shares(club, NAMES)
        for member in club.members.values():
            member.key(RUN, number + 1)
        drill.upload(club, NAMES, NUMBERS)
        drill.unmask(club, NAMES)
        assert (total_of(club) == sum(NUMBERS.values())).all()
        drill.next_round(club)
    assert not club.refused


def test_rounds_only_grow(make_club) -> None:  # type: ignore[no-untyped-def]
    member = make_club(3).members[ME]
    member.key(RUN, 7)
    member.key(RUN, 6)
    with pytest.raises(SecureSumError, match=r"^old-round"):
        member.key(RUN, 5)
    member.forget(RUN, 9)
    for number in (6, 7, 8):
        with pytest.raises(SecureSumError, match=r"^old-round"):
            member.key(RUN, number)
    member.key(RUN, 9)
    member.key("another run", 1)
