"""Clubs on a disk that is not flushed: what is in the files matters, thousands of times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmchain_fl.secure_drill import Club, new_club

MakeClub = Callable[..., Club]


@pytest.fixture(autouse=True)
def unflushed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def make_club(tmp_path: Path) -> MakeClub:
    made: list[Club] = []

    def make(count: int, **policy: int) -> Club:
        made.append(new_club(tmp_path / f"club-{len(made)}", count, **policy))
        return made[-1]

    return make
