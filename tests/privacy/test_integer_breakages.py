"""Deliberate faults in shared noise and its integers: each is found by the check that is made for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llmchain_fl.core.privacy import accounting
from simulations.audit.effort import EFFORTS
from simulations.audit.integer_noise import CHECKS

PATH = Path(__file__).parent / "breakages" / "integers.py"
SPEC = importlib.util.spec_from_file_location("breakages_integers", PATH)
assert SPEC is not None
assert SPEC.loader is not None
TABLE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(TABLE)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """One thread, as in the gate; no epsilon that an earlier test has computed, nor one for a later one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    accounting._composed.cache_clear()
    yield
    accounting._composed.cache_clear()
    torch.set_num_threads(threads)


def failed(check: str, folder: Path) -> list[str]:
    return [found.name for found in CHECKS[check](folder, EFFORTS["quick"]) if not found.passed]


@pytest.mark.parametrize("what", TABLE.BREAKAGES)
def test_a_breakage_is_found_by_the_check_made_for_it(
    what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    apply, check, finding = TABLE.BREAKAGES[what]
    apply(monkeypatch)
    assert finding in failed(check, tmp_path)


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_found_where_nothing_is_broken(check: str, tmp_path: Path) -> None:
    assert failed(check, tmp_path) == []


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_has_a_fault_that_it_finds(check: str) -> None:
    assert check in {check for _, check, _ in TABLE.BREAKAGES.values()}
