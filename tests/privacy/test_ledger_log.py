"""The log of the ledger: its chain, and everything in it that is not believed."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.book import Book
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.release import Charge, Release, Terms
from llmchain_fl.core.privacy.store import read_before

EVENT = Event("poisson-gaussian", 0.05, 1.0, 20)
HERE = Path("the log")


def opened(path: Path) -> FileLedger:
    return FileLedger(path / "state", path / "anchor", Terms("cards", "person", 1e-5, "pld", math.inf))


def release(key: str) -> Release:
    return Release(key, (Charge("cards/training", EVENT),), "plan", "training", "ward", "cards")


def log(path: Path) -> Path:
    return path / "state" / "events.jsonl"


def filled(path: Path) -> list[bytes]:
    ledger = opened(path)
    ledger.reserve(release("run/1"), [("cards/training", ["ann"])])
    ledger.reserve(release("run/1"), [("cards/training", ["ann", "bob"])])
    ledger.seal("run/1", b"first")
    ledger.acknowledge(ledger.receipt())
    ledger.reserve(release("run/2"))
    return log(path).read_bytes().splitlines(keepends=True)


def chained(entries: list[dict[str, Any]]) -> bytes:
    """The chain, by another road than the code's: what an honest log with these entries would be."""
    lines, prev = [], "0" * 64
    for entry in entries:
        told = {name: value for name, value in entry.items() if name not in ("prev", "hash")}
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        entry = {**told, "prev": prev, "hash": hashlib.sha256((prev + "\n" + text).encode()).hexdigest()}
        lines.append(json.dumps(entry, sort_keys=True, separators=(",", ":")) + "\n")
        prev = entry["hash"]
    return "".join(lines).encode()


def read(data: bytes) -> Book:
    book = Book()
    book.extend(data, HERE)
    return book


def test_every_line_has_a_number_a_utc_second_a_type_and_its_place_in_the_chain(tmp_path: Path) -> None:
    before = time.time()
    entries = [json.loads(line) for line in filled(tmp_path)]
    assert [entry["type"] for entry in entries] == ["open", "reserve", "admit", "seal", "ack", "reserve"]
    assert [entry["seq"] for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert chained(entries) == log(tmp_path).read_bytes()
    for entry in entries:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["time"])
        second = time.mktime(time.strptime(entry["time"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
        assert before - 2 <= second <= time.time() + 1


def test_the_first_line_says_whose_it_is(tmp_path: Path) -> None:
    first = json.loads(filled(tmp_path)[0])
    secret = (tmp_path / "state" / "site.key").read_bytes()
    told = {name: first[name] for name in ("format", "site", "unit", "adjacency", "site_key")}
    assert told == {
        "format": 2,
        "site": "cards",
        "unit": "person",
        "adjacency": "add-or-remove-one",
        "site_key": hashlib.sha256(b"llmchain_fl/site-key\n" + secret).hexdigest(),
    }
    assert secret.hex() not in log(tmp_path).read_text()


@pytest.mark.parametrize(
    ("position", "change"),
    [
        (0, {"format": 3}),
        (1, {"type": "refund"}),
        (1, {"extra": 1}),
        (1, {"members": {"cards/training": "00"}}),
        (1, {"members": {"cards/training": 7}}),
        (1, {"members": {"cards/held-out": "0" * 64}}),
        (1, {"members": ["cards/training"]}),
        (1, {"left": {"cards/held-out": "0" * 64}}),
        (1, {"charges": [{"group": "training", "event": asdict(EVENT)}]}),
        (1, {"charges": [{"group": "cards/training", "event": {"kind": "laplace", "sampling_rate": 1.0}}]}),
        (1, {"charges": [{"group": "cards/training", "event": {**asdict(EVENT), "kind": "laplace"}}]}),
        (1, {"charges": [{"group": "cards/training", "event": {**asdict(EVENT), "steps": 10**10}}]}),
        (1, {"charges": []}),
        (1, {"charges": None}),
        (1, {"purpose": "fun"}),
        (1, {"federation": "\x1b[2J"}),
        (2, {"key": "run/7"}),
        (2, {"members": {"cards/training": "00"}}),
        (2, {"members": {"*": "0" * 64}}),
        (2, {"time": "yesterday"}),
        (2, {"seq": 4}),
        (3, {"key": "run/7"}),
        (3, {"sha256": 7}),
        (4, {"key": "run/2"}),
        (5, {"key": "run/1"}),
        (5, {"epsilon": 1.0}),
    ],
)
def test_a_line_of_unknown_content_is_refused_even_in_a_chain_that_holds(
    tmp_path: Path, position: int, change: dict[str, Any]
) -> None:
    entries = [json.loads(line) for line in filled(tmp_path)]
    assert len(read(chained(entries)).hashes) == 6
    entries[position] |= change
    with pytest.raises(PrivacyError, match=f"line {position + 1} of the log cannot be trusted"):
        read(chained(entries))


@pytest.mark.parametrize("twice", [0, 1, 2, 3, 4])
def test_what_can_happen_once_is_refused_the_second_time(tmp_path: Path, twice: int) -> None:
    entries = [json.loads(line) for line in filled(tmp_path)]
    with pytest.raises(PrivacyError, match="line 7"):
        read(chained([*entries, {**entries[twice], "seq": 7}]))


def test_a_log_must_begin_with_its_opening_line(tmp_path: Path) -> None:
    entries = [json.loads(line) for line in filled(tmp_path)]
    with pytest.raises(PrivacyError, match="line 1"):
        read(chained([{**entries[1], "seq": 1}]))


def test_a_kind_of_release_that_is_not_known_any_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    monkeypatch.delitem(Event.__post_init__.__globals__["KINDS"], "poisson-gaussian")
    read_before.cache_clear()  # another process
    with pytest.raises(PrivacyError, match="line 2"):
        opened(tmp_path)


def test_lines_that_this_process_has_verified_are_not_replayed_and_any_other_byte_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, replayed, add = filled(tmp_path), list[bytes](), Book.add

    def noted(book: Book, line: bytes) -> None:
        replayed.append(line)
        add(book, line)

    monkeypatch.setattr(Book, "add", noted)
    opened(tmp_path).spent()
    assert replayed == []
    log(tmp_path).write_bytes(b"".join(lines).replace(b"poisson", b"Poisson", 1))
    with pytest.raises(PrivacyError, match="line 2"):
        opened(tmp_path)
    assert [line + b"\n" for line in replayed][:1] == lines[:1]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"7",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"type": "reserve", "key": "run/7", "hash": ""}',
        b'{"type": ["seal"], "hash": ""}',
    ],
)
@pytest.mark.parametrize("position", [0, 2, 6])
def test_an_ended_line_that_makes_no_sense_is_refused_on_every_call(tmp_path: Path, line: bytes, position: int) -> None:
    lines, ledger = filled(tmp_path), opened(tmp_path)
    lines.insert(position, line + b"\n")
    log(tmp_path).write_bytes(b"".join(lines))
    for call in (ledger.spent, ledger.receipt, lambda: opened(tmp_path), lambda: ledger.reserve(release("run/3"))):
        with pytest.raises(PrivacyError, match=rf"line {position + 1} of .* cannot be trusted"):
            call()


def test_lines_may_not_change_places_go_missing_or_come_twice(tmp_path: Path) -> None:
    lines = filled(tmp_path)
    for number in range(1, 5):
        swapped = [*lines]
        swapped[number], swapped[number + 1] = swapped[number + 1], swapped[number]
        for damaged in (swapped, lines[:number] + lines[number + 1 :], [*lines, lines[number]]):
            with pytest.raises(PrivacyError, match="cannot be trusted"):
                read(b"".join(damaged))


def test_the_same_entry_written_in_another_way_is_refused(tmp_path: Path) -> None:
    lines = filled(tmp_path)
    for other in (lines[1].replace(b",", b", ", 1), lines[1].replace(b"1.0", b"1.00"), b" " + lines[1]):
        assert json.loads(other) == json.loads(lines[1])
        with pytest.raises(PrivacyError, match="line 2"):
            read(b"".join([lines[0], other, *lines[2:]]))


EARLIER = {
    "before there was a chain": {"type": "reserve", "key": "run/1", "unit": "record", "plan": "plan", "event": {}},
    "one for each data set": {
        "type": "open",
        "format": 1,
        "data_set": "cards",
        "unit": "person",
        "adjacency": "add-or-remove-one",
        "site_key": "0" * 64,
        "seq": 1,
        "time": "2026-01-01T00:00:00Z",
    },
}


@pytest.mark.parametrize("kind", EARLIER)
@pytest.mark.parametrize("folder", ["state", "cards"])
def test_a_ledger_of_an_earlier_format_is_refused_with_a_remedy_wherever_the_site_kept_it(
    tmp_path: Path, kind: str, folder: str
) -> None:
    """Beside the new ledger too: the folder of a data set, as earlier versions had one for each."""
    old = tmp_path / folder / "events.jsonl"
    old.parent.mkdir()
    entry = EARLIER[kind]
    old.write_bytes(chained([entry]) if "seq" in entry else json.dumps(entry).encode() + b"\n")
    before = old.read_bytes()
    with pytest.raises(
        PrivacyError, match=r"(?s)a site has one for all its .*lower limits.epsilon by what the old one"
    ):
        opened(tmp_path)
    assert old.read_bytes() == before
    assert not (tmp_path / "anchor").exists()


def test_a_neighbouring_ledger_of_another_site_is_no_hindrance(tmp_path: Path) -> None:
    opened(tmp_path)
    FileLedger(tmp_path / "other", tmp_path / "other.anchor", Terms("loans", "person", 1e-5, "pld", math.inf))


def test_nothing_is_believed_from_memory_when_the_file_has_changed(tmp_path: Path) -> None:
    lines, ledger = filled(tmp_path), opened(tmp_path)
    assert ledger.spent().events[0].steps == 40
    log(tmp_path).write_bytes(b"".join(lines).replace(b"run/1", b"run/9"))
    with pytest.raises(PrivacyError, match="line 2"):
        ledger.spent()
    log(tmp_path).write_bytes(b"".join(lines))
    assert ledger.spent().events[0].steps == 40


def test_two_ledgers_on_one_folder_see_what_the_other_wrote(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    one.reserve(release("run/1"))
    two.reserve(release("run/2"))
    one.seal("run/2", b"x")
    assert two.sealed("run/2") == b"x"
    assert one.spent() == two.spent()
    assert two.spent().events[0].steps == 40


def test_ten_thousand_lines_are_verified_in_well_under_a_second(tmp_path: Path) -> None:
    ledger, book = opened(tmp_path), Book()
    book.extend(log(tmp_path).read_bytes(), HERE)
    for number in range(3333):
        key = f"run/{number}"
        paid = {**release(key).to_dict(), "members": {}, "left": {}}
        for kind, told in (("reserve", paid), ("seal", {"sha256": "0" * 64}), ("ack", {})):
            book.add(book.next_line(kind, **{"key": key, **told})[:-1])
    log(tmp_path).write_bytes(bytes(book.raw))
    start = time.process_time()
    again = read(bytes(book.raw))
    first = time.process_time() - start
    assert (len(again.hashes), again.head) == (10_000, book.head)
    assert first < 1.5  # 0.2 s on one idle core
    opened(tmp_path)
    ledger.sealed("run/none")
    start = time.process_time()
    for _ in range(10):
        ledger.sealed("run/none")
    assert (time.process_time() - start) / 10 < first / 4  # what was verified is compared, not parsed again
