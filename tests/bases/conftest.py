"""Tiny random bases of many architectures (``benchmarks/bench_bases.py``), each written and judged once a session."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "bench_bases.py"


def bench() -> Any:
    """The benchmark, which stands outside of every package."""
    if "bench_bases" not in sys.modules:
        spec = importlib.util.spec_from_file_location("bench_bases", FILE)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["bench_bases"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["bench_bases"])
    return sys.modules["bench_bases"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``architecture`` and ``kind``: every row of the table."""
    if {"architecture", "kind"} <= set(metafunc.fixturenames):
        rows = [(name, kind) for name, (kinds, _) in bench().BASES.items() for kind in kinds]
        metafunc.parametrize(("architecture", "kind"), rows, ids=[" as ".join(row) for row in rows])


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """(architecture, kind) -> its folder."""
    folder = tmp_path_factory.mktemp("bases")

    def write(architecture: str, kind: str) -> Path:
        path = folder / f"{architecture}-{kind}"
        return path if path.exists() else bench().write_base(path, architecture, kind)

    return write
