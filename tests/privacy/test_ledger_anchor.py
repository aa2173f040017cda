"""The ledger's anchor and key: what is missing, damaged or from the past is refused."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.release import Charge, Release, Terms
from llmchain_fl.privacy.anchor_renewal import AnchorRenewal

EVENT = Event("poisson-gaussian", 0.05, 1.0, 20)
PEOPLE = [("cards/training", ["ann"])]
TERMS = Terms("cards", "person", 1e-5, "pld", math.inf)


def opened(path: Path) -> FileLedger:
    return FileLedger(path / "state", path / "far" / "anchor", TERMS)


def release(key: str) -> Release:
    return Release(key, (Charge("cards/training", EVENT),), "plan", "training", "ward", "cards")


def log(path: Path) -> Path:
    return path / "state" / "events.jsonl"


def anchor(path: Path) -> Path:
    return path / "far" / "anchor"


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log(path).read_text().splitlines()]


def sealed_round(ledger: FileLedger, number: int) -> str:
    ledger.reserve(release(f"run/{number}"))
    ledger.seal(f"run/{number}", b"update %d" % number)
    return ledger.receipt()


def refused(path: Path, match: str, ledger: FileLedger | None = None) -> None:
    """Every call says so, of a ledger that is open and of a new one; nothing is written."""
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "lock"}
    calls: list[Callable[[], object]] = [lambda: opened(path)]
    if ledger is not None:
        calls += [
            ledger.spent,
            ledger.receipt,
            lambda: ledger.sealed("run/1"),
            lambda: ledger.seal_of("run/1"),
            lambda: ledger.afford(release("run/99")),
            lambda: ledger.reserve(release("run/99"), PEOPLE),
            lambda: ledger.seal("run/1", b"update 1"),
        ]
    for call in calls:
        with pytest.raises(PrivacyError, match=match):
            call()
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "lock"}


def test_the_anchor_names_the_last_line_and_its_own_checksum(tmp_path: Path) -> None:
    sealed_round(opened(tmp_path), 1)
    last = entries(tmp_path)[-1]
    told = json.loads(anchor(tmp_path).read_text())
    checksum = hashlib.sha256(f"3 {last['hash']}".encode()).hexdigest()
    assert told == {"seq": 3, "head": last["hash"], "sha256": checksum}


def test_an_anchor_inside_the_ledgers_own_folder_is_no_anchor(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "state")
    for inside in (tmp_path / "state" / "anchor", tmp_path / "state" / "x" / ".." / "anchor", tmp_path / "link" / "a"):
        with pytest.raises(PrivacyError, match="own folder"):
            FileLedger(tmp_path / "state", inside, TERMS)


def test_a_log_that_is_older_than_its_anchor_is_refused(tmp_path: Path) -> None:
    ledger, before = opened(tmp_path), {}
    for number in range(1, 4):
        before[number] = log(tmp_path).read_bytes()
        sealed_round(ledger, number)
    for number in range(1, 4):
        log(tmp_path).write_bytes(before[number])
        refused(tmp_path, "rolled back", ledger)


def test_a_log_that_tells_another_story_is_refused(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    sealed_round(ledger, 1)
    fork = log(tmp_path).read_bytes(), anchor(tmp_path).read_bytes()
    sealed_round(ledger, 2)
    kept = anchor(tmp_path).read_bytes()
    log(tmp_path).write_bytes(fork[0])
    anchor(tmp_path).write_bytes(fork[1])
    for file in (tmp_path / "state" / "sealed").iterdir():
        file.unlink()
    for number in range(3, 9):
        sealed_round(opened(tmp_path), number)
    anchor(tmp_path).write_bytes(kept)
    refused(tmp_path, "rolled back", ledger)


def test_an_anchor_that_lags_is_brought_up_to_date(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.reserve(release("run/1"))
    old = anchor(tmp_path).read_bytes()
    ledger.reserve(release("run/2"))
    new = anchor(tmp_path).read_bytes()
    anchor(tmp_path).write_bytes(old)
    assert ledger.spent().events[0].steps == 40
    assert anchor(tmp_path).read_bytes() == new


def test_the_log_is_flushed_before_an_anchor_that_lags_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that wrote the line may have died before its flush."""
    ledger = opened(tmp_path)
    old = anchor(tmp_path).read_bytes()
    ledger.reserve(release("run/1"))
    anchor(tmp_path).write_bytes(old)
    seen: list[object] = []
    monkeypatch.setattr("llmchain_fl.core.privacy.store.sync", seen.append)
    monkeypatch.setattr("llmchain_fl.core.privacy.store.write_anchor", lambda path, told: seen.append(told.seq))
    ledger.spent()
    assert seen == [log(tmp_path), 2]


def test_a_log_that_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    sealed_round(ledger, 1)
    whole = log(tmp_path).read_bytes()
    for left in (None, b"", whole[:50]):
        log(tmp_path).unlink()
        if left is not None:
            log(tmp_path).write_bytes(left)
        refused(tmp_path, "gone or empty|rolled back", ledger)
        log(tmp_path).write_bytes(whole)
    shutil.rmtree(tmp_path / "state")
    with pytest.raises(PrivacyError, match="gone or empty"):
        opened(tmp_path)


def test_log_and_anchor_gone_together_are_given_away_by_the_files_beside_them(tmp_path: Path) -> None:
    sealed_round(opened(tmp_path), 1)
    log(tmp_path).unlink()
    anchor(tmp_path).unlink()
    refused(tmp_path, "gone or empty")


def test_an_old_log_beside_newer_updates_is_refused_without_any_anchor_to_tell(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    pair = log(tmp_path).read_bytes(), anchor(tmp_path).read_bytes()
    sealed_round(ledger, 1)
    log(tmp_path).write_bytes(pair[0])
    anchor(tmp_path).write_bytes(pair[1])
    refused(tmp_path, "knows nothing of", ledger)


def test_an_anchor_that_is_gone_is_refused_and_the_remedy_names_the_command(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    sealed_round(ledger, 1)
    anchor(tmp_path).unlink()
    refused(tmp_path, r"is gone(?s:.*)llmchain-fl privacy ledger SITE --renew-anchor", ledger)


def test_also_when_nothing_was_sealed_yet(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.reserve(release("run/1"), PEOPLE)
    anchor(tmp_path).unlink()
    refused(tmp_path, "is gone", ledger)


@pytest.mark.parametrize("extra", [b"x", b"half a line"])
def test_also_when_anything_at_all_follows_the_opening_line(tmp_path: Path, extra: bytes) -> None:
    opened(tmp_path)
    anchor(tmp_path).unlink()
    with log(tmp_path).open("ab") as file:
        file.write(extra)
    refused(tmp_path, "is gone")


def test_a_ledger_that_was_only_opened_gets_its_anchor_again(tmp_path: Path) -> None:
    """As after a crash between its opening line and its first anchor."""
    opened(tmp_path)
    anchor(tmp_path).unlink()
    opened(tmp_path).reserve(release("run/1"))
    assert json.loads(anchor(tmp_path).read_text())["seq"] == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: data.replace(b'"seq": 3', b'"seq": 2'),
        lambda data: data.replace(b" ", b""),
        lambda data: b"[]",
        lambda data: b"7",
        lambda data: b"\xff",
        lambda data: b"[" * 100_000,
        lambda data: b'{"seq": Infinity, "head": ""}',
    ],
)
def test_a_damaged_anchor_is_refused_like_one_that_is_gone(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    ledger = opened(tmp_path)
    sealed_round(ledger, 1)
    anchor(tmp_path).write_bytes(damage(anchor(tmp_path).read_bytes()))
    refused(tmp_path, r"is damaged(?s:.*)--renew-anchor", ledger)


@pytest.mark.parametrize("was", ["gone", "damaged"])
def test_a_renewed_anchor_lets_the_ledger_go_on_and_is_remembered(tmp_path: Path, was: str) -> None:
    ledger = opened(tmp_path)
    token = sealed_round(ledger, 1)
    anchor(tmp_path).unlink()
    if was == "damaged":
        anchor(tmp_path).write_bytes(b"?")
    AnchorRenewal(tmp_path / "state", anchor(tmp_path), TERMS).renew()
    told = entries(tmp_path)[-1]
    assert (told["type"], told["was"], told["seq"]) == ("anchor-renewed", was, 4)
    assert json.loads(anchor(tmp_path).read_text())["head"] == told["hash"]
    assert ledger.sealed("run/1") == b"update 1"
    ledger.acknowledge(token)
    assert opened(tmp_path).spent().events == (EVENT,)


def test_a_good_anchor_is_not_renewed(tmp_path: Path) -> None:
    sealed_round(opened(tmp_path), 1)
    before = log(tmp_path).read_bytes(), anchor(tmp_path).read_bytes()
    AnchorRenewal(tmp_path / "state", anchor(tmp_path), TERMS).renew()
    assert (log(tmp_path).read_bytes(), anchor(tmp_path).read_bytes()) == before


def test_renewing_does_not_excuse_a_rolled_back_damaged_missing_or_foreign_ledger(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.reserve(release("run/0"), PEOPLE)
    early = log(tmp_path).read_bytes()
    sealed_round(ledger, 1)
    late, good = log(tmp_path).read_bytes(), anchor(tmp_path).read_bytes()

    def renewed(match: str, terms: Terms = TERMS) -> None:
        before = log(tmp_path).read_bytes() if log(tmp_path).exists() else None
        with pytest.raises(PrivacyError, match=match):
            AnchorRenewal(tmp_path / "state", anchor(tmp_path), terms).renew()
        assert before == (log(tmp_path).read_bytes() if log(tmp_path).exists() else None)

    log(tmp_path).write_bytes(early)
    renewed("rolled back")  # the anchor is good
    anchor(tmp_path).unlink()
    renewed("knows nothing of")  # it is gone, but there is a sealed update
    log(tmp_path).write_bytes(late.replace(b"run/1", b"run/2"))
    renewed("cannot be trusted")
    log(tmp_path).unlink()
    renewed("gone or empty")
    log(tmp_path).write_bytes(late)
    renewed("site", replace(TERMS, site="loans"))
    (member,) = (tmp_path / "state" / "members").iterdir()
    hidden = member.rename(tmp_path / "hidden")
    renewed("register of people")
    hidden.rename(member)
    key = tmp_path / "state" / "site.key"
    secret = key.read_bytes()
    key.write_bytes(bytes(32))
    renewed("secret key")
    key.write_bytes(secret)
    anchor(tmp_path).write_bytes(good)
    assert ledger.spent().events == (replace(EVENT, steps=40),)


def test_renewing_a_ledger_that_never_was_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="errno 2"):
        AnchorRenewal(tmp_path / "state", anchor(tmp_path), TERMS).renew()


@pytest.mark.parametrize("damage", ["gone", "short", "other"])
def test_a_key_that_is_gone_or_another_is_refused(tmp_path: Path, damage: str) -> None:
    ledger = opened(tmp_path)
    sealed_round(ledger, 1)
    key = tmp_path / "state" / "site.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32
    if damage == "gone":
        key.unlink()
    else:
        key.write_bytes(bytes(31 if damage == "short" else 32))
    refused(tmp_path, "secret key", ledger)


def test_the_key_is_made_once_even_if_the_first_start_died_after_it(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "site.key").write_bytes(bytes(range(32)))
    opened(tmp_path)
    assert (tmp_path / "state" / "site.key").read_bytes() == bytes(range(32))


def test_two_ledgers_do_not_share_an_anchor(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(PrivacyError, match="gone or empty"):
        FileLedger(tmp_path / "other", anchor(tmp_path), replace(TERMS, site="loans"))
