"""Damaged configurations, site files, settings and trees: a configuration that survives its file, or a ConfigError."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.config.read import MOST_FAULTS, apply_settings, build
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.words import nearest


@pytest.fixture(scope="module")
def drill() -> ModuleType:
    """``benchmarks/bench_mutants_files.py``, which stands outside of every package."""
    path = Path(__file__).parents[2] / "benchmarks" / "bench_mutants_files.py"
    spec = importlib.util.spec_from_file_location("bench_mutants_files", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["config", "site", "setting", "tree"])
@pytest.mark.part(1)
def test_mutants_of_configurations_are_read_or_refused(drill: ModuleType, kind: str) -> None:
    found = drill.drill(seed=5, count=200, kinds=[kind])
    assert found["wrong"] == []
    assert found["growth_mb"] < 100
    assert {word for (_, word), count in found["outcomes"].items() if count} == {"accepted", "refused"}


def tree_of(**sections: Any) -> dict[str, Any]:
    return {"data": {"train": "x"}, "task": {"labels": ["a"]}, **sections}


def faults_of(tree: dict[str, Any]) -> list[str]:
    """What is wrong with a configuration; nothing for one that can run."""
    faults: list[str] = []
    try:
        build(tree)
    except ConfigError as error:
        faults = error.faults
    return faults


BIG: dict[str, dict[str, Any]] = {
    "unknown settings": {f"x{n}": 1 for n in range(50_000)},
    "unknown settings of a section": {"train": {f"x{n}": 1 for n in range(50_000)}},
    "settings under an unknown one": {"x": {f"x{n}": 1 for n in range(50_000)}},
    "stages": {"stage": [{"name": f"s{n}", "labels": [f"l{n}"]} for n in range(50_000)], "stream": {"kind": "blurry"}},
    "a range of labels": {"stage": [{"labels": "0:999999999"}], "task": {"labels": "l.json"}},
    "a range of many digits": {"stage": [{"labels": "0:" + "9" * 5000}], "task": {"labels": "l.json"}},
    "a long value": {"train": {"optimizer": "x" * 10_000_000}},
    "a long key": {"x" * 10_000_000: 1},
    "a deep value": {"train": {"lr": [[[[[[[[[[1]]]]]]]]]]}},
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", BIG)
def test_a_configuration_of_any_size_is_answered_soon_and_shortly(name: str) -> None:
    begun = time.perf_counter()
    faults = faults_of(tree_of(**BIG[name]))
    assert 0 < len(faults) <= MOST_FAULTS + 1 or "range" in name
    assert all(len(fault) < 500 for fault in faults)
    assert time.perf_counter() - begun < 10


def test_what_is_left_untold_is_said() -> None:
    faults = faults_of(tree_of(**{f"x{n}": 1 for n in range(MOST_FAULTS + 5)}))
    assert faults[-1] == "... and more"
    assert len(faults) == MOST_FAULTS + 1
    assert "... and more" not in faults_of(tree_of(**{f"x{n}": 1 for n in range(MOST_FAULTS)}))


def test_a_number_that_no_file_can_hold_is_refused() -> None:
    assert faults_of(tree_of(data={"train": "x", "train_size": 10**5000})) == [
        "a whole number does not fit into 64 bits"
    ]


@given(key=st.text(max_size=8), value=st.text(max_size=8) | st.sampled_from(["\x1b[2J", "\ud800", "\r\n"]))
def test_no_fault_writes_to_a_terminal_what_is_no_text(key: str, value: str) -> None:
    for tree in (tree_of(**{key: value}), tree_of(train={key: value}), tree_of(train={"optimizer": value})):
        assert all(fault.isprintable() for fault in faults_of(tree))


@pytest.mark.parametrize(
    "setting", ["stage." + "9" * 5000 + ".rounds=1", "a." * 50_000 + "b=1", "=" * 9, "a=" + "[" * 9999]
)
def test_a_setting_of_any_length_is_a_configuration_error(setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(apply_settings(tree_of(), [setting]))
    assert all(len(fault) < 500 for fault in caught.value.faults)


def test_a_long_word_has_no_neighbour() -> None:
    assert nearest("train.lr" + "x" * 200, ["train.lr"]) == ""
