"""Files of a ledger cut, changed by one bit, or put back from a backup: never a silent loss."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from llmchain_fl.core.privacy import register
from llmchain_fl.core.privacy.book import Book
from llmchain_fl.privacy.drill import damage
from llmchain_fl.privacy.drill.scratch import anchor_file, log_file


def test_a_log_cut_anywhere_under_its_anchor_is_refused(tmp_path: Path) -> None:
    truth, _ = damage.build(tmp_path, 2)
    assert damage.look(tmp_path, truth) == "kept"
    size = len(log_file(tmp_path).read_bytes())
    assert damage.cuts(tmp_path, truth) == {"refused": size}
    assert damage.look(tmp_path, truth) == "kept"


def test_a_line_torn_while_it_was_written_is_dropped_and_all_before_it_is_counted(tmp_path: Path) -> None:
    """Every cut through a reserve, a seal, an ack and another reserve line."""
    _, history = damage.build(tmp_path, 2)
    sizes = [len(files[log_file(tmp_path)]) for files in history[:5]]
    found = damage.torn_tails(tmp_path, history[:5])
    assert found == {"kept": sizes[-1] - sizes[0] + 4}
    assert [json.loads(line)["type"] for line in history[4][log_file(tmp_path)].splitlines()[1:]] == [
        *["reserve", "seal", "ack", "reserve"]
    ]


def test_one_flipped_bit_in_any_file_is_never_a_silent_loss(tmp_path: Path) -> None:
    truth, _ = damage.build(tmp_path, 3)
    found = damage.flips(tmp_path, truth, 200, random.Random(3))
    assert {kind for kind, _ in found} == {"events.jsonl", "anchor", "members", "site.key", "sealed"}
    assert sum(count for (_, outcome), count in found.items() if outcome == "lost") == 0
    assert sum(found.values()) == 200


def test_a_flipped_bit_in_the_end_of_any_line_or_anywhere_in_the_anchor_is_refused(tmp_path: Path) -> None:
    truth, history = damage.build(tmp_path, 2)
    log, anchor = log_file(tmp_path), anchor_file(tmp_path)
    ends = [(log, place) for place, byte in enumerate(log.read_bytes()) if byte == ord("\n")]
    places = ends + [(anchor, place) for place in range(len(anchor.read_bytes()))]
    for file, place in places:
        changed = bytearray(file.read_bytes())
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        assert damage.look(tmp_path, truth) == "refused"
        damage.put_back(tmp_path, history[-1])


def test_whatever_is_put_back_from_a_backup_is_found_if_it_forgets_anything(tmp_path: Path) -> None:
    truth, history = damage.build(tmp_path, 3)
    found = damage.rollbacks(tmp_path, truth, history)
    moments = found["log", "refused"]
    assert moments == found["folder", "refused"] == found["anchor", "kept"] > 6
    left = found["folder and anchor", "kept"]  # made after the last update left: nothing that was seen is missing
    assert left == 2
    for what in ("folder and anchor", "log and anchor", "folder and anchor, worked on"):
        assert (found[what, "refused"], found[what, "kept"]) == (moments - left, left)
    assert not [outcome for outcome in found if outcome[1] == "lost"]


def test_the_drills_find_a_ledger_that_does_not_ask_its_anchor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, history = damage.build(tmp_path, 2)
    monkeypatch.setattr(Book, "holds", lambda self, seq, head: True)
    lost = damage.rollbacks(tmp_path, truth, history)
    assert lost["log", "lost"] > 0
    assert lost["folder and anchor", "lost"] > 0


def test_and_one_that_does_not_check_its_register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, _ = damage.build(tmp_path, 3)
    monkeypatch.setattr(register, "_verified", lambda folder, digest: (folder / f"{digest}.bin").read_bytes())
    assert damage.flips(tmp_path, truth, 60, random.Random(3))["members", "lost"] > 0


def test_and_one_that_drops_any_line_it_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, _ = damage.build(tmp_path, 3)
    extend = Book.extend

    def lenient(self: Book, data: bytes, where: Path) -> bool:
        try:
            return extend(self, data, where)
        except Exception:
            return True

    monkeypatch.setattr(Book, "extend", lenient)
    monkeypatch.setattr(Book, "holds", lambda self, seq, head: True)
    assert damage.flips(tmp_path, truth, 60, random.Random(3))["events.jsonl", "lost"] > 0
