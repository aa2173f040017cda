"""Receipts through the ledger: what the server hands back tells the site whether its own ledger is the latest."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.receipt import Receipt, mark, read_receipt
from llmchain_fl.core.privacy.release import Charge, Release, Terms

EVENT = Event("poisson-gaussian", 0.05, 1.0, 20)
TERMS = Terms("cards", "person", 1e-5, "pld", math.inf)


def opened(path: Path) -> FileLedger:
    return FileLedger(path / "state", path / "far" / "anchor", TERMS)


def release(key: str) -> Release:
    return Release(key, (Charge("cards/training", EVENT),), "plan", "training", "ward", "cards")


def log(path: Path) -> Path:
    return path / "state" / "events.jsonl"


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log(path).read_text().splitlines()]


def sealed_round(ledger: FileLedger, number: int) -> str:
    ledger.reserve(release(f"run/{number}"))
    ledger.seal(f"run/{number}", os.urandom(16))
    return ledger.receipt()


def test_a_receipt_names_the_head_after_the_seal_it_travels_with(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    secret = (tmp_path / "state" / "site.key").read_bytes()
    first = entries(tmp_path)[0]["hash"]
    assert read_receipt(secret, ledger.receipt()) == Receipt(1, str(first), mark(""))
    token = sealed_round(ledger, 1)
    last = entries(tmp_path)[-1]
    assert last["type"] == "seal"
    assert read_receipt(secret, token) == Receipt(3, str(last["hash"]), mark("run/1"))
    assert ledger.receipt() != token


def test_what_the_server_echoes_is_noted_once(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.acknowledge("")
    token = sealed_round(ledger, 1)
    ledger.acknowledge(token)
    assert [entry["type"] for entry in entries(tmp_path)] == ["open", "reserve", "seal", "ack"]
    before = log(tmp_path).read_bytes()
    ledger.acknowledge(token)
    ledger.acknowledge("")
    opened(tmp_path).acknowledge(token)
    assert log(tmp_path).read_bytes() == before


def test_a_receipt_of_before_the_first_update_acknowledges_nothing(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    token = ledger.receipt()
    sealed_round(ledger, 1)
    ledger.acknowledge(token)
    assert "ack" not in [entry["type"] for entry in entries(tmp_path)]


def test_a_server_that_went_back_to_an_older_receipt_is_no_fault_of_the_site(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    tokens = [sealed_round(ledger, number) for number in range(1, 4)]
    for token in reversed(tokens):
        ledger.acknowledge(token)
    assert [entry["key"] for entry in entries(tmp_path) if entry["type"] == "ack"] == ["run/3", "run/2", "run/1"]


def test_a_backup_restored_over_log_and_anchor_is_found_by_the_servers_receipt(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    sealed_round(ledger, 1)
    shutil.copytree(tmp_path / "state", tmp_path / "backup")
    shutil.copytree(tmp_path / "far", tmp_path / "backup-far")
    token = sealed_round(ledger, 2)
    for kept, lost in (("backup", "state"), ("backup-far", "far")):
        shutil.rmtree(tmp_path / lost)
        shutil.copytree(tmp_path / kept, tmp_path / lost)
    restored = opened(tmp_path)
    assert restored.spent().events == (EVENT,)  # consistent in itself
    with pytest.raises(PrivacyError, match=r"rolled back: the server has seen a later state(?s:.*)these records are"):
        restored.acknowledge(token)
    for number in range(3, 7):
        sealed_round(restored, number)  # longer than the lost one by now
    with pytest.raises(PrivacyError, match="rolled back"):
        restored.acknowledge(token)


def test_a_new_state_folder_cannot_read_the_receipts_of_the_old_one(tmp_path: Path) -> None:
    token = sealed_round(opened(tmp_path), 1)
    shutil.rmtree(tmp_path / "state")
    shutil.rmtree(tmp_path / "far")
    with pytest.raises(PrivacyError, match="state folder was replaced"):
        opened(tmp_path).acknowledge(token)


def copied(path: Path) -> tuple[FileLedger, FileLedger]:
    """A site, and a true copy of it: state folder, key and anchor."""
    (path / "one").mkdir()
    one = opened(path / "one")
    one.acknowledge(sealed_round(one, 1))
    shutil.copytree(path / "one", path / "two")
    return one, opened(path / "two")


@pytest.mark.parametrize("first", [2, 7])
@pytest.mark.parametrize("second", [2, 9])
def test_of_two_copies_that_both_went_on_each_is_refused_when_it_meets_a_receipt_of_the_other(
    tmp_path: Path, first: int, second: int
) -> None:
    one, two = copied(tmp_path)
    mine, theirs = sealed_round(one, first), sealed_round(two, second)
    for ledger, own, other in ((one, mine, theirs), (two, theirs, mine)):
        ledger.acknowledge(own)
        with pytest.raises(PrivacyError, match="rolled back"):
            ledger.acknowledge(other)
        ledger.acknowledge(sealed_round(ledger, 20))
        with pytest.raises(PrivacyError, match="rolled back"):  # however far it goes on
            ledger.acknowledge(other)


def test_a_copy_that_stood_still_is_refused_and_the_one_that_went_on_is_not(tmp_path: Path) -> None:
    one, two = copied(tmp_path)
    still = two.receipt()
    token = sealed_round(one, 2)
    with pytest.raises(PrivacyError, match="rolled back"):
        two.acknowledge(token)
    one.acknowledge(still)  # a state of its own past


def test_what_cannot_be_found_is_not_claimed(tmp_path: Path) -> None:
    """Folder and anchor deleted under a server that echoes nothing; a copy that hears of its own receipts only."""
    one, two = copied(tmp_path)
    one.acknowledge(sealed_round(one, 2))
    two.acknowledge(sealed_round(two, 3))
    assert one.spent() == two.spent()
    shutil.rmtree(tmp_path / "one")
    fresh = opened(tmp_path / "one")
    fresh.acknowledge("")
    assert fresh.spent().epsilon == 0.0
    from llmchain_fl.core.privacy import ledger

    told = " ".join((ledger.__doc__ or "").split())
    assert "a folder deleted together with its anchor, under a server that echoes no receipt, is a fresh budget" in told
    assert "a copy that never meets a receipt of the other" in told
