"""Clubs in memory, where the system has a folder there, and never flushed: the files matter, thousands of times."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmchain_fl.privacy.drill.secure_sum import Club, new_club

MEMORY = Path("/dev/shm")
MakeClub = Callable[..., Club]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as made:
        yield Path(made)


@pytest.fixture
def make_club(folder: Path) -> MakeClub:
    made: list[Club] = []

    def make(count: int, **policy: int) -> Club:
        made.append(new_club(folder / f"club-{len(made)}", count, **policy))
        return made[-1]

    return make
