"""Who is in which groups, through the ledger and on the disk."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from llmchain_fl.core.errors import BudgetExhausted, PrivacyError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.groups import EVERYBODY, check_group, excludes, site_group
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.register import Stay
from llmchain_fl.core.privacy.release import Charge, Release, Terms
from llmchain_fl.core.privacy.site_key import derive
from llmchain_fl.privacy.drill.scratch import groups_of

A, B, SHARED, HELD_OUT = "cards/training:a", "cards/training:b", "cards/training", "cards/held-out"
LOANS = "loans/training"
EVENT = Event("gaussian", 1.0, 4.0, 1)
ONE, TWO, THREE = (epsilon([EVENT] * count, 1e-5) for count in (1, 2, 3))


def opened(path: Path, limit: float = math.inf) -> FileLedger:
    return FileLedger(path / "state", path / "anchor", Terms("north", "person", 1e-5, "pld", limit))


def release(key: str, *groups: str) -> Release:
    return Release(key, tuple(Charge(group, EVENT) for group in groups), "plan", "training", "ward", "cards")


class Rounds:
    """A ledger that is asked for one round after the other."""

    def __init__(self, path: Path, limit: float = math.inf) -> None:
        self.ledger, self.path, self.number = opened(path, limit), path, 0

    def take(self, group: str, people: list[str]) -> list[bool]:
        """Who may take part in the next round of ``group``."""
        self.number += 1
        (may,) = self.ledger.reserve(release(f"r/{self.number}", group), [(group, people)])
        return list(may)

    def groups(self, person: str) -> set[Stay]:
        (found,) = groups_of(self.path, [person])
        return set(found)


@pytest.fixture
def rounds(tmp_path: Path) -> Rounds:
    return Rounds(tmp_path)


def log(path: Path) -> bytes:
    return (path / "state" / "events.jsonl").read_bytes()


def members(path: Path) -> list[Path]:
    return sorted((path / "state" / "members").iterdir())


@pytest.mark.parametrize(
    ("one", "other", "excluded"),
    [
        (A, A, False),
        (A, B, True),
        (HELD_OUT, A, True),
        (HELD_OUT, SHARED, True),
        (SHARED, A, False),
        (SHARED, LOANS, False),
        (A, "loans/training:b", False),
        (HELD_OUT, LOANS, False),
        (EVERYBODY, HELD_OUT, False),
        (EVERYBODY, EVERYBODY, False),
    ],
)
def test_which_groups_exclude_each_other(one: str, other: str, excluded: bool) -> None:
    assert excludes(one, other) == excludes(other, one) == excluded


@pytest.mark.parametrize(
    "group",
    ["training", "cards/", "/training", "cards/scores", "cards/training:", "a/b/training", "**", "", "a b/held-out"],
)
def test_a_group_that_nobody_could_place_is_refused_before_anything_is_written(tmp_path: Path, group: str) -> None:
    with pytest.raises(PrivacyError, match="no group of a site"):
        check_group(group)
    if group:
        before = log(tmp_path) if (tmp_path / "state").exists() else (opened(tmp_path), log(tmp_path))[1]
        with pytest.raises(PrivacyError, match="no group of a site"):
            opened(tmp_path).reserve(release("r/1", group))
        assert log(tmp_path) == before


def test_the_data_sets_name_makes_a_plans_group_one_of_the_site() -> None:
    assert [site_group(group, "cards") for group in ("training", "training:a", "held-out", "site", "*")] == [
        *[SHARED, A, HELD_OUT, EVERYBODY, EVERYBODY]
    ]
    with pytest.raises(PrivacyError):
        site_group("training", "cards/training:x")


def test_the_first_of_two_groups_that_exclude_each_other_keeps_a_person_for_ever(rounds: Rounds) -> None:
    assert rounds.take(A, ["ann", "bob"]) == [True, True]
    assert rounds.take(B, ["bob", "cid"]) == [False, True]
    assert rounds.take(A, ["cid", "ann", "bob"]) == [False, True, True]
    assert rounds.take(HELD_OUT, ["ann", "cid", "dan"]) == [False, False, True]
    assert rounds.take(SHARED, ["ann", "dan"]) == [True, False]
    assert rounds.groups("ann") == {Stay(A), Stay(SHARED)}


def test_a_person_of_several_groups_takes_part_in_all_of_them(rounds: Rounds) -> None:
    for group in (A, SHARED, LOANS, "visits/held-out"):
        assert rounds.take(group, ["ann"]) == [True]
    assert rounds.groups("ann") == {Stay(A), Stay(SHARED), Stay(LOANS), Stay("visits/held-out")}


def test_it_is_remembered_by_the_next_process(tmp_path: Path, rounds: Rounds) -> None:
    rounds.take(A, ["ann"])
    rounds.ledger = opened(tmp_path)
    assert rounds.take(B, ["ann"]) == [False]
    rounds.ledger = opened(tmp_path)
    assert rounds.take(A, ["ann"]) == [True]


def test_a_person_named_twice_gets_the_same_answer_twice(tmp_path: Path, rounds: Rounds) -> None:
    rounds.take(B, ["bob"])
    assert rounds.take(A, ["ann", "bob", "ann", "bob", "ann"]) == [True, False, True, False, True]
    assert sum(len(file.read_bytes()) for file in members(tmp_path)) == 2 * 32


def test_who_is_named_in_two_parts_is_let_into_the_first_and_into_all_that_it_does_not_exclude(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    parts = [(B, ["ann", "bob"]), (A, ["bob", "cid"]), (SHARED, ["bob", "dan"])]
    may = ledger.reserve(release("r/1", A, B, SHARED), parts)
    assert [mask.tolist() for mask in may] == [[True, True], [False, True], [True, True]]
    assert groups_of(tmp_path, ["bob"]) == [{Stay(B), Stay(SHARED)}]


def test_nobody_is_registered_under_a_group_that_does_not_pay(tmp_path: Path) -> None:
    before = (opened(tmp_path), log(tmp_path))[1]
    with pytest.raises(PrivacyError, match="does not pay"):
        opened(tmp_path).reserve(release("r/1", A), [(B, ["ann"])])
    assert log(tmp_path) == before
    assert not members(tmp_path)


def test_everybody_needs_no_register(tmp_path: Path) -> None:
    (may,) = opened(tmp_path).reserve(release("r/1", EVERYBODY), [(EVERYBODY, ["ann", "bob"])])
    assert may.all()
    assert not members(tmp_path)


def test_no_file_is_written_when_everybody_is_known(tmp_path: Path, rounds: Rounds) -> None:
    rounds.take(A, ["ann", "bob"])
    before = members(tmp_path)
    rounds.take(A, ["bob", "ann"])
    rounds.take(B, ["ann"])
    assert rounds.take(A, []) == []
    assert members(tmp_path) == before
    assert json.loads(log(tmp_path).splitlines()[-1])["members"] == {}


def test_the_answer_is_an_array_of_bools_in_the_order_asked(tmp_path: Path, rounds: Rounds) -> None:
    rounds.take(B, ["p3", "p7"])
    (may,) = rounds.ledger.reserve(release("x", A), [(A, [f"p{k}" for k in range(10)])])
    assert may.dtype == np.bool_
    assert np.flatnonzero(~may).tolist() == [3, 7]


def test_a_person_stands_there_as_a_keyed_hash_and_nowhere_by_name(tmp_path: Path, rounds: Rounds) -> None:
    rounds.take(A, ["Jane Canary", "ann"])
    key = derive((tmp_path / "state" / "site.key").read_bytes(), "register")
    (file,) = members(tmp_path)
    rows = [hmac.new(key, name.encode(), "sha256").digest() for name in ("Jane Canary", "ann")]
    assert file.read_bytes() == b"".join(sorted(rows))
    assert file.stem == hashlib.sha256(file.read_bytes()).hexdigest()
    everything = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"Jane" not in everything
    assert hashlib.sha256(b"Jane Canary").digest() not in everything


def test_reservation_and_membership_are_one_line(tmp_path: Path, rounds: Rounds) -> None:
    rounds.take(A, ["ann"])
    entries = [json.loads(line) for line in log(tmp_path).splitlines()]
    (file,) = members(tmp_path)
    assert [entry["type"] for entry in entries] == ["open", "reserve"]
    assert (entries[1]["members"], entries[1]["left"]) == ({A: file.stem}, {})


def test_on_a_retry_those_who_are_new_join_the_reservation_and_nothing_is_paid_again(tmp_path: Path) -> None:
    told = release("r/1", A)
    opened(tmp_path).reserve(told, [(A, ["ann"])])
    before = opened(tmp_path).spent()
    (may,) = opened(tmp_path, limit=0.0).reserve(told, [(A, ["ann", "bob"])])
    assert may.tolist() == [True, False]  # nobody new fits a limit that was lowered since
    opened(tmp_path).reserve(release("r/2", B), [(B, ["cid"])])
    (may,) = opened(tmp_path).reserve(told, [(A, ["ann", "bob", "cid"])])
    assert may.tolist() == [True, True, False]
    assert json.loads(log(tmp_path).splitlines()[-1])["type"] == "admit"
    size = len(log(tmp_path))
    (may,) = opened(tmp_path).reserve(told, [(A, ["ann", "bob", "cid"])])
    assert may.tolist() == [True, True, False]
    assert len(log(tmp_path)) == size
    assert dict(opened(tmp_path).spent().groups)[A] == dict(before.groups)[A]


def test_two_sites_hash_the_same_person_differently(tmp_path: Path) -> None:
    for name in "xy":
        (tmp_path / name).mkdir()
        Rounds(tmp_path / name).take(A, ["ann"])
    files = [members(tmp_path / name)[0].read_bytes() for name in "xy"]
    assert files[0] != files[1]


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b""), None])
def test_a_register_that_is_damaged_stops_everything_without_a_name_or_a_count(
    tmp_path: Path, damage: object, rounds: Rounds
) -> None:
    rounds.take(A, ["Jane Canary", "ann", "bob"])
    (file,) = members(tmp_path)
    if callable(damage):
        damage(file)
    else:
        file.write_bytes(file.read_bytes()[:64])
    ledger = rounds.ledger
    for call in (lambda: rounds.take(A, ["Jane Canary"]), ledger.spent, lambda: opened(tmp_path)):
        with pytest.raises(PrivacyError, match="register of people") as caught:
            call()
        assert "Jane" not in str(caught.value)
        assert not any(character.isdigit() for character in str(caught.value))


def test_a_file_that_no_line_of_the_log_names_registers_nobody_and_is_cleared_away(
    tmp_path: Path, rounds: Rounds
) -> None:
    """As after a crash between the file and its line."""
    rounds.take(A, ["ann"])
    (tmp_path / "state" / "members" / ("0" * 64 + ".bin")).write_bytes(b"1" * 32)
    (tmp_path / "state" / "members" / ".x.bin.draft").write_bytes(b"half")
    assert rounds.take(B, ["bob"]) == [True]
    assert len(members(tmp_path)) == 2


def test_a_disk_that_fails_before_the_line_leaves_the_person_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: Rounds
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(PrivacyError, match="errno 28"):
            rounds.take(A, ["ann"])
    assert rounds.ledger.spent().groups == ()
    assert rounds.take(B, ["ann"]) == [True]
    assert rounds.take(A, ["ann"]) == [False]


def test_ids_of_any_characters_are_different_people(tmp_path: Path, rounds: Rounds) -> None:
    odd = ["", " ", "ann", "Ann", "ann ", "\u00e4", "a\u0308", "\ud800", "\x00", "\n"]
    assert all(rounds.take(A, odd))
    assert not any(rounds.take(B, odd))
    assert sum(len(file.read_bytes()) for file in members(tmp_path)) == len(odd) * 32


def test_a_refused_round_registers_nobody(tmp_path: Path) -> None:
    """A task that cannot pay would otherwise put everybody into a group of its own, for ever and for free."""
    evil = Rounds(tmp_path, limit=TWO)
    people = ["ann", "bob"]
    before = log(tmp_path)
    dear = Release("evil/1", (Charge(A, Event("gaussian", 1.0, 1e-3, 1)),), "p", "training", "w", "a")
    for call in (evil.ledger.afford, lambda told: evil.ledger.reserve(told, [(A, people)])):
        with pytest.raises(BudgetExhausted):
            call(dear)
    assert log(tmp_path) == before
    assert not members(tmp_path)
    assert evil.take(B, people) == [True, True]


def test_disjoint_stages_before_a_shared_one_add_up_and_leave_nobody_out(tmp_path: Path) -> None:
    honest = Rounds(tmp_path, limit=THREE)
    assert honest.take(A, ["ann"]) == [True]
    assert honest.take(B, ["bob"]) == [True]
    assert honest.take(SHARED, ["ann", "bob", "cid"]) == [True, True, True]
    assert honest.ledger.spent().epsilon == TWO > ONE
    assert dict(honest.ledger.spent().groups).keys() == {A, B, SHARED, f"{SHARED} + {A}", f"{SHARED} + {B}"}


def test_somebody_whose_own_budget_is_used_up_is_left_out_and_the_round_is_played(tmp_path: Path) -> None:
    site = Rounds(tmp_path, limit=TWO)
    assert site.take(SHARED, ["ann", "bob"]) == [True, True]
    assert site.take(LOANS, ["bob", "cid"]) == [True, True]
    assert site.take(LOANS, ["bob", "cid", "ann"]) == [False, True, False]
    assert site.groups("bob") == {Stay(SHARED), Stay(LOANS, 4)}
    assert site.groups("ann") == {Stay(SHARED)}
    assert site.ledger.spent().epsilon == TWO
    assert site.take(SHARED, ["ann", "bob"]) == [True, False]
    assert site.groups("bob") == {Stay(SHARED, 5), Stay(LOANS, 4)}
    with pytest.raises(BudgetExhausted):
        site.take(LOANS, ["bob"])
    assert site.ledger.spent().epsilon == TWO


def test_somebody_who_is_not_in_the_data_today_leaves_too_and_pays_no_more(tmp_path: Path) -> None:
    site = Rounds(tmp_path, limit=TWO)
    site.take(SHARED, ["bob"])
    site.take(LOANS, ["bob"])
    site.take(LOANS, [])
    assert site.groups("bob") == {Stay(SHARED), Stay(LOANS, 4)}
    assert site.ledger.spent().epsilon == TWO


def test_under_a_higher_limit_they_come_back_and_pay_all_that_their_groups_have_paid(tmp_path: Path) -> None:
    site = Rounds(tmp_path, limit=TWO)
    for group in (SHARED, LOANS, LOANS):
        site.take(group, ["bob"])
    site.ledger = opened(tmp_path)
    assert site.take(LOANS, ["bob"]) == [True]
    assert site.groups("bob") == {Stay(SHARED), Stay(LOANS)}
    assert site.ledger.spent().epsilon == epsilon([EVENT] * 4, 1e-5)


def test_a_hundred_thousand_people_are_registered_in_about_a_second(tmp_path: Path, rounds: Rounds) -> None:
    people = [f"person {k}" for k in range(100_000)]
    start = time.process_time()
    assert all(rounds.take(A, people))
    assert not any(rounds.take(B, people))
    assert time.process_time() - start < 4  # 1.2 s on one idle core
