"""Whether a source is still what it was: each row of the table."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from llmchain_fl.core.data.state import SETTLED, state_of


def later() -> float:
    """A time at which what was written now has settled."""
    return time.time() + 10 * SETTLED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "in" / "b.jsonl").write_text("{}\n")
    return tmp_path


@pytest.mark.parametrize("name", ["a.jsonl", "", "in"])
def test_what_has_not_been_changed_has_the_same_state(folder: Path, name: str) -> None:
    state = state_of(str(folder / name), later())
    assert state is not None
    assert state == state_of(str(folder / name), later())


def test_a_change_of_any_file_of_a_folder_is_a_change_of_the_folder(folder: Path) -> None:
    states = [state_of(str(folder), later())]
    (folder / "in" / "b.jsonl").write_text("[]\n")
    states.append(state_of(str(folder), later()))
    (folder / "in" / "c.jsonl").touch()
    states.append(state_of(str(folder), later()))
    (folder / "a.jsonl").unlink()
    states.append(state_of(str(folder), later()))
    assert len(set(states)) == 4


def test_what_was_changed_a_moment_ago_or_in_the_future_proves_nothing(folder: Path) -> None:
    assert state_of(str(folder / "a.jsonl")) is None
    assert state_of(str(folder / "a.jsonl"), later() - 100 * SETTLED) is None


@pytest.mark.parametrize("source", ["none.jsonl", "generated:bank-messages", "hub:org/name"])
def test_what_is_no_file_proves_nothing(folder: Path, source: str) -> None:
    assert state_of(source if ":" in source else str(folder / source), later()) is None


def test_an_empty_folder_proves_nothing(folder: Path) -> None:
    (folder / "in" / "b.jsonl").unlink()
    assert state_of(str(folder / "in"), later()) is None
