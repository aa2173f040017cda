"""A SuperLink that keeps its state in a file, and updates of 10 MB of three sites at once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [pytest.mark.thorough, pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(1500)]
BENCH = Path(__file__).parents[3] / "benchmarks/bench_database.py"


def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_of_databases", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("database", [False, True], ids=["in memory", "a file"])
def test_three_sites_send_ten_megabytes_at_once_and_the_run_ends_well(database: bool, tmp_path: Path) -> None:
    found = bench().measured(tmp_path, database=database, megabytes=10, sites=3, rounds=3, wait=1200)
    assert (found.rounds, found.replies, found.ended) == (3, 9, "finished:completed")
    assert found.locked == 0
