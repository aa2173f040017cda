"""Deliberate faults, done to the real code: each is found by the gate's check that is made for it.

The tables are in ``breakages/``; ``benchmarks/bench_gate_mutants.py`` prints what each fault costs to find. Those that
no check found when a list was first tried are its ``MISSED``: the checks came first, the lists after them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from _pytest.mark import ParameterSet

from llmchain_fl.core.adapter import resident
from simulations.audit.gate import EFFORTS, INTEGERS, run_check


def _table(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"breakages_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLES = {path.stem: _table(path) for path in sorted((Path(__file__).parent / "breakages").glob("*.py"))}


def faults() -> Iterator[ParameterSet]:
    """All; ``make test`` plays the first one for each finding of a check."""
    seen: set[tuple[str, str]] = set()
    for group, table in TABLES.items():
        for what, (_, *made_for) in table.BREAKAGES.items():
            yield pytest.param(group, what, marks=[pytest.mark.thorough] * (tuple(made_for) in seen))
            seen.add(tuple(made_for))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No model that an earlier test has looked at; one thread, as in the gate."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    resident._resident.cache_clear()
    yield
    resident._resident.cache_clear()
    torch.set_num_threads(threads)


def failed(check: str) -> list[str]:
    return [found.name for found in run_check(check, EFFORTS["quick"]) if not found.passed]


@pytest.mark.parametrize(("group", "what"), faults())
@pytest.mark.part(8)
def test_a_breakage_is_found_by_the_check_made_for_it(group: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    apply, check, finding = TABLES[group].BREAKAGES[what]
    apply(monkeypatch)
    assert finding in failed(check)


@pytest.mark.parametrize("group", TABLES)
def test_what_was_missed_at_first_is_in_the_list(group: str) -> None:
    assert set(getattr(TABLES[group], "MISSED", ())) <= set(TABLES[group].BREAKAGES)


@pytest.mark.parametrize("check", INTEGERS)
def test_each_check_of_the_integers_has_a_fault_that_it_finds(check: str) -> None:
    assert check in {made_for for table in TABLES.values() for _, made_for, _ in table.BREAKAGES.values()}


@pytest.mark.parametrize(
    ("group", "what"),
    [("noise", "no noise"), ("sums", "no clipping"), ("sums", "each record clipped, not each person")],
)
@pytest.mark.part(1)
def test_the_canary_audit_refutes_a_claim_that_is_grossly_false(
    group: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    TABLES[group].BREAKAGES[what][0](monkeypatch)
    assert "canaries" in failed("canaries")
