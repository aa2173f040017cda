"""Files and folders of their owner alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.onprem.files import open_to_others, own_folder, readable_by_others, write_file, write_key


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    folder = own_folder(tmp_path / "a" / "b")
    write_key(folder / "key", b"1")
    write_file(folder / "file", "text")
    assert (mode(folder.parent), mode(folder)) == (0o700, 0o700)
    assert (mode(folder / "key"), mode(folder / "file")) == (0o600, 0o600)


def test_a_folder_and_a_file_that_stood_open_are_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o644)
    write_file(own_folder(tmp_path) / "file", "new")
    assert (mode(tmp_path), mode(tmp_path / "file"), (tmp_path / "file").read_text()) == (0o700, 0o600, "new")


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    write_key(tmp_path / "key", b"first")
    with pytest.raises(ConfigError, match="never written over"):
        write_key(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "file", "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_file(tmp_path / "file", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_a_file_that_nobody_can_get_to_is_not_readable_by_others(tmp_path: Path) -> None:
    file = tmp_path / "closed" / "file"
    file.parent.mkdir(mode=0o700)
    file.write_text("x")
    file.chmod(0o644)
    assert open_to_others(file)
    assert not readable_by_others(file)
    assert not readable_by_others(tmp_path / "gone")
    assert readable_by_others(Path("/etc/passwd"))
