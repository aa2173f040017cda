from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.errors import SecureSumError
from llmchain_fl.core.secure.store import Kept, OnceFile, SecretStore


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path / "state" / "secrets")


def filled(store: SecretStore, run: str = "r") -> Path:
    with store.opened(run) as file:
        file.rounds[3] = Kept(seed="00", holders=("a", "b"), held={"a": "11"}, bundle='"quoted"\n', floor=2)
        file.write_upload(3, b"masked")
        file.save()
        return file._file


def test_what_was_saved_comes_back(store: SecretStore) -> None:
    filled(store)
    with store.opened("r") as file:
        assert file.rounds == {3: Kept(seed="00", holders=("a", "b"), held={"a": "11"}, bundle='"quoted"\n', floor=2)}
        assert file.read_upload(3) == b"masked"
        assert file.read_upload(4) == b""


def test_what_was_not_saved_does_not(store: SecretStore) -> None:
    with store.opened("r") as file:
        file.rounds[1] = Kept(seed="00")
    with store.opened("r") as file:
        assert not file.rounds


@pytest.mark.parametrize("other", ["s", "R", "r/../r", "\ud800", "r\n"])
def test_runs_are_kept_apart(store: SecretStore, other: str) -> None:
    filled(store)
    with store.opened(other) as file:
        assert not file.rounds
        file.rounds[3] = Kept(seed="77")
        file.forget(0)
    with store.opened("r") as file:
        assert file.rounds[3].seed == "00"
        assert file.read_upload(3) == b"masked"


def test_everything_is_its_owners_alone(store: SecretStore) -> None:
    before = os.umask(0)
    try:
        file = filled(store)
    finally:
        os.umask(before)
    assert {one.stat().st_mode & 0o777 for one in file.parent.iterdir()} == {0o600}
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_bit_that_flipped_is_refused(store: SecretStore) -> None:
    file = filled(store)
    good = file.read_bytes()
    for place in range(0, len(good), 7):
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        file.write_bytes(bytes(bad))
        with pytest.raises(SecureSumError, match=r"^store"), store.opened("r"):
            pass


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"{}", b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"]
)
def test_a_file_that_is_none_is_refused(store: SecretStore, data: bytes) -> None:
    filled(store).write_bytes(data)
    with pytest.raises(SecureSumError, match=r"^store"), store.opened("r"):
        pass


def test_a_disk_that_fails_is_told_without_a_path(store: SecretStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", "/some/path")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SecureSumError, match="errno 28") as caught:
        filled(store)
    assert "path" not in str(caught.value)


def test_a_name_has_one_digest_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "record" / "once.jsonl"
    OnceFile(path)("round 1", "aa")
    for _ in range(2):
        OnceFile(path)("round 1", "aa")
        with pytest.raises(SecureSumError, match="round 1 was done before"):
            OnceFile(path)("round 1", "bb")
    OnceFile(path)("round 2", "bb")
    assert path.read_bytes() == b'["round 1","aa"]\n["round 2","bb"]\n'
    assert path.stat().st_mode & 0o777 == 0o600


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from("ab")), max_size=12))
def test_the_record_is_a_table_that_keeps_its_first_values(tmp_path_factory, lines: list[tuple[str, str]]) -> None:  # type: ignore[no-untyped-def]
    once, known = OnceFile(tmp_path_factory.mktemp("record") / "once.jsonl"), {}
    for name, told in lines:
        if known.setdefault(name, told) == told:
            once(name, told)
        else:
            with pytest.raises(SecureSumError, match=r"^store"):
                once(name, told)


def test_a_line_that_was_being_written_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "once.jsonl"
    once = OnceFile(path)
    once("a", "11")
    whole = path.read_bytes()
    for cut in range(1, len(b'["b","22"]')):
        path.write_bytes(whole + b'["b","22"]\n'[:cut])
        once("b", "33")
        assert path.read_bytes() == whole + b'["b","33"]\n'


@pytest.mark.parametrize("line", [b"{}\n", b"[1]\n", b"\xff\n", b"\n", b'["a","11","22"]\n', b"nothing\n"])
def test_a_record_that_is_damaged_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "once.jsonl"
    path.write_bytes(b'["a","11"]\n' + line)
    with pytest.raises(SecureSumError, match=r"^store"):
        OnceFile(path)("b", "22")
