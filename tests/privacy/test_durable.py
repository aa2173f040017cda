from __future__ import annotations

import threading
from pathlib import Path

import pytest

from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.errors import PrivacyError
from llmchain_fl.privacy import durable


def test_a_whole_file_is_replaced_and_no_draft_is_left(tmp_path: Path) -> None:
    target = tmp_path / "update.bin"
    atomic_write(target, b"old")
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["update.bin"]


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "update.bin"
    atomic_write(target, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", "/secret/path")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PrivacyError, match="errno 28") as caught, durable.disk_errors():
        atomic_write(target, b"new")
    assert target.read_bytes() == b"old"
    assert "secret" not in str(caught.value)


def test_the_old_content_stands_until_the_moment_of_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "update.bin"
    atomic_write(target, b"old")
    seen = []

    def killed(draft: Path, goal: Path) -> None:
        seen.append((draft.read_bytes(), goal.read_bytes()))
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(target, b"new")
    assert seen == [(b"new", b"old")]


def test_appending_makes_the_file_and_cuts_torn_bytes_off(tmp_path: Path) -> None:
    log = tmp_path / "log"
    durable.append(log, 0, b"one\n")
    log.write_bytes(b"one\ntor")
    durable.append(log, 4, b"two\n")
    assert log.read_bytes() == b"one\ntwo\n"


def test_the_lock_keeps_two_threads_apart(tmp_path: Path) -> None:
    inside, overlaps = [0], [0]

    def work() -> None:
        for _ in range(50):
            with durable.locked(tmp_path / "lock"):
                inside[0] += 1
                overlaps[0] += inside[0] > 1
                threading.Event().wait(0.0002)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [0]
