from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy import durable


def test_a_whole_file_is_replaced_and_no_draft_is_left(tmp_path: Path) -> None:
    target = tmp_path / "update.bin"
    durable.replace(target, b"old")
    durable.replace(target, b"new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["update.bin"]


def test_new_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        durable.replace(tmp_path / "key", b"secret")
        durable.append(tmp_path / "log", 0, b"line\n")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "update.bin"
    durable.replace(target, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", "/secret/path")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PrivacyError, match="errno 28") as caught, durable.disk_errors():
        durable.replace(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["update.bin"]
    assert "secret" not in str(caught.value)


def test_the_old_content_stands_until_the_moment_of_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "update.bin"
    durable.replace(target, b"old")
    seen = []

    def killed(draft: Path, goal: Path) -> None:
        seen.append((draft.read_bytes(), goal.read_bytes()))
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        durable.replace(target, b"new")
    assert seen == [(b"new", b"old")]


def test_a_draft_that_a_crash_left_behind_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".update.bin.draft").write_bytes(b"half of something much longer")
    durable.replace(tmp_path / "update.bin", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("update.bin", b"new")]


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The durable calls, in order; of fsync also what was flushed."""
    calls: list[str] = []
    names: dict[int, str] = {}

    def note(name: str, real: Any, *arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named)
        if name == "open":
            names[result] = Path(arguments[0]).name
        if name != "open":
            calls.append(f"{name} {names[arguments[0]]}" if name in ("fsync", "write") else name)
        return result

    for name in ("open", "write", "fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _name=name, _real=real, **k: note(_name, _real, *a, **k))
    return calls


def test_a_replaced_file_is_flushed_before_its_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    calls = recorded(monkeypatch)
    durable.replace(folder / "key", b"x")
    assert calls == ["write .key.draft", "fsync .key.draft", "replace", "fsync state"]


def test_the_name_of_a_log_is_on_the_disk_before_its_first_line_and_is_not_flushed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    calls = recorded(monkeypatch)
    durable.append(folder / "log", 0, b"x\n")
    durable.append(folder / "log", 2, b"y\n")
    assert calls == ["fsync state", "write log", "fsync log", "write log", "fsync log"]


def test_every_folder_that_is_made_is_flushed_in_the_one_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded(monkeypatch)
    durable.make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert calls[-3:] == [f"fsync {tmp_path.name}", "fsync a", "fsync b"]
    calls.clear()
    durable.make_folder(tmp_path / "a" / "b" / "c")
    assert calls == ["fsync b"]


def test_a_write_that_the_disk_takes_in_pieces_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr("os.write", lambda descriptor, data: real(descriptor, data[:3]))
    durable.replace(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_appending_makes_the_file_and_cuts_torn_bytes_off(tmp_path: Path) -> None:
    log = tmp_path / "log"
    durable.append(log, 0, b"one\n")
    log.write_bytes(b"one\ntorn and long")
    durable.append(log, 4, b"two\n")
    assert log.read_bytes() == b"one\ntwo\n"


def test_removing_what_is_not_there_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    durable.remove(tmp_path / "file")
    durable.remove(tmp_path / "file")
    assert durable.content(tmp_path / "file") is None


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


def test_every_folder_that_is_made_is_its_owners_alone_and_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        durable.make_folder(tmp_path / "there" / "a" / "b")
    finally:
        os.umask(before)
    modes = [(tmp_path / "there" / name).stat().st_mode & 0o777 for name in ("", "a", "a/b")]
    assert modes == [0o755, 0o700, 0o700]


def test_what_others_may_read_is_taken_from_them_and_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"x")
    outside.chmod(0o644)
    folder = tmp_path / "ledger"
    (folder / "members").mkdir(parents=True)
    (folder / "members" / "a.bin").write_bytes(b"x")
    (folder / "link").symlink_to(outside)
    for path, mode in ((folder, 0o755), (folder / "members", 0o777), (folder / "members" / "a.bin", 0o664)):
        path.chmod(mode)
    durable.tighten(folder)
    kept = (folder, folder / "members", folder / "members" / "a.bin", outside)
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o700, 0o700, 0o600, 0o644]
