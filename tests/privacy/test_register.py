"""Who is in which group, through the ledger and on the disk."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchain_fl.errors import PrivacyError
from llmchain_fl.privacy.ledger import FileLedger, Terms
from llmchain_fl.privacy.register import admitted
from llmchain_fl.privacy.site_key import derive

A, B = "training:a", "training:b"


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is flushed, and when, is tested in test_durable.py."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def opened(path: Path) -> FileLedger:
    return FileLedger(path / "state", path / "anchor", Terms("cards", "person", 1e-5, "pld", math.inf))


def log(path: Path) -> bytes:
    return (path / "state" / "events.jsonl").read_bytes()


def test_the_first_group_that_meets_a_person_keeps_that_person(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert ledger.admit(A, ["ann", "bob"]).tolist() == [True, True]
    assert ledger.admit(B, ["bob", "cid"]).tolist() == [False, True]
    assert ledger.admit(A, ["cid", "ann", "bob"]).tolist() == [False, True, True]
    assert ledger.admit("held-out", ["ann", "cid", "dan"]).tolist() == [False, False, True]


def test_it_is_remembered_by_the_next_process(tmp_path: Path) -> None:
    opened(tmp_path).admit(A, ["ann"])
    assert opened(tmp_path).admit(B, ["ann"]).tolist() == [False]
    assert opened(tmp_path).admit(A, ["ann"]).tolist() == [True]


def test_a_person_named_twice_gets_the_same_answer_twice(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.admit(B, ["bob"])
    assert ledger.admit(A, ["ann", "bob", "ann", "bob", "ann"]).tolist() == [True, False, True, False, True]
    assert sum(len(file.read_bytes()) for file in (tmp_path / "state" / "members").iterdir()) == 2 * 32


def test_nothing_is_written_when_everybody_is_known(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.admit(A, ["ann", "bob"])
    before = log(tmp_path)
    ledger.admit(A, ["bob", "ann"])
    ledger.admit(B, ["ann"])
    assert ledger.admit(A, []).shape == (0,)
    assert log(tmp_path) == before


def test_the_answer_is_an_array_of_bools_in_the_order_asked(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.admit(B, ["p3", "p7"])
    may = ledger.admit(A, [f"p{k}" for k in range(10)])
    assert may.dtype == np.bool_
    assert np.flatnonzero(~may).tolist() == [3, 7]


def test_a_person_stands_there_as_a_keyed_hash_and_nowhere_by_name(tmp_path: Path) -> None:
    opened(tmp_path).admit(A, ["Jane Canary", "ann"])
    key = derive((tmp_path / "state" / "site.key").read_bytes(), "register")
    (file,) = (tmp_path / "state" / "members").iterdir()
    rows = [hmac.new(key, name.encode(), "sha256").digest() for name in ("Jane Canary", "ann")]
    assert file.read_bytes() == b"".join(sorted(rows))
    assert file.stem == hashlib.sha256(file.read_bytes()).hexdigest()
    everything = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"Jane" not in everything
    assert hashlib.sha256(b"Jane Canary").digest() not in everything
    entry = json.loads(log(tmp_path).splitlines()[-1])
    assert {name: entry[name] for name in ("type", "group", "members")} == {
        "type": "admit",
        "group": A,
        "members": file.stem,
    }
    assert entry.keys() == {"type", "group", "members", "seq", "time", "prev", "hash"}


def test_two_sites_hash_the_same_person_differently(tmp_path: Path) -> None:
    for name in "xy":
        (tmp_path / name).mkdir()
        opened(tmp_path / name).admit(A, ["ann"])
    files = [next((tmp_path / name / "state" / "members").iterdir()).read_bytes() for name in "xy"]
    assert files[0] != files[1]


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b""), None])
def test_a_register_that_is_damaged_stops_everything_without_a_name_or_a_count(tmp_path: Path, damage: object) -> None:
    ledger = opened(tmp_path)
    ledger.admit(A, ["Jane Canary", "ann", "bob"])
    (file,) = (tmp_path / "state" / "members").iterdir()
    if callable(damage):
        damage(file)
    else:
        file.write_bytes(file.read_bytes()[:64])
    for call in (lambda: ledger.admit(A, ["Jane Canary"]), ledger.spent, lambda: opened(tmp_path)):
        with pytest.raises(PrivacyError, match="register of people") as caught:
            call()
        assert "Jane" not in str(caught.value)
        assert not any(character.isdigit() for character in str(caught.value))


def test_a_file_that_no_line_of_the_log_names_admits_nobody_and_is_cleared_away(tmp_path: Path) -> None:
    """As after a crash between the file and its line."""
    ledger = opened(tmp_path)
    ledger.admit(A, ["ann"])
    (tmp_path / "state" / "members" / ("0" * 64 + ".bin")).write_bytes(b"1" * 32)
    (tmp_path / "state" / "members" / ".x.bin.draft").write_bytes(b"half")
    assert ledger.admit(B, ["bob"]).tolist() == [True]
    assert len(list((tmp_path / "state" / "members").iterdir())) == 2


def test_a_disk_that_fails_before_the_line_leaves_the_person_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(PrivacyError, match="errno 28"):
            ledger.admit(A, ["ann"])
    assert ledger.admit(B, ["ann"]).tolist() == [True]
    assert ledger.admit(A, ["ann"]).tolist() == [False]


def test_a_group_needs_a_name(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for group in ("", "g" * 501):
        with pytest.raises(PrivacyError, match="group"):
            ledger.admit(group, ["ann"])


def test_ids_of_any_characters_are_different_people(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    odd = ["", " ", "ann", "Ann", "ann ", "\u00e4", "a\u0308", "\ud800", "\x00", "\n"]
    assert ledger.admit(A, odd).all()
    assert not ledger.admit(B, odd).any()
    assert sum(len(file.read_bytes()) for file in (tmp_path / "state" / "members").iterdir()) == len(odd) * 32


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from("uvwxyz"), max_size=4)), max_size=8))
def test_nobody_is_ever_in_two_groups(calls: list[tuple[str, list[str]]]) -> None:
    known: dict[bytes, str] = {}
    took_part: dict[str, set[str]] = {}
    for group, people in calls:
        may, new = admitted(known, group, [person.encode() for person in people])
        known.update(dict.fromkeys(new, group))
        for person, ok in zip(people, may, strict=True):
            if ok:
                took_part.setdefault(person, set()).add(group)
            assert ok == (known[person.encode()] == group)
    assert all(len(groups) == 1 for groups in took_part.values())


def test_a_hundred_thousand_people_are_admitted_in_about_a_second(tmp_path: Path) -> None:
    ledger, people = opened(tmp_path), [f"person {k}" for k in range(100_000)]
    start = time.process_time()
    assert ledger.admit(A, people).all()
    assert not ledger.admit(B, people).any()
    assert time.process_time() - start < 4  # 0.6 s on one idle core
