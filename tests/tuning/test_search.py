"""Which choices are played, that private records are refused before anything is, and what comes out."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from llmchain_fl.cli.main import app
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.tuning.search import choices, overlay, ranges, tune

TABLE = [["a=1", "a=2", "a=3"], ["b=x", "b=y"]]


@given(st.integers(1, 9), st.integers(0, 5))
def test_no_more_than_the_budget_is_played_none_twice_and_all_where_it_suffices(budget: int, seed: int) -> None:
    found = choices(TABLE, budget, seed)
    assert len(found) == len(set(found)) == min(budget, 6)
    assert set(found) <= {(a, b) for a in TABLE[0] for b in TABLE[1]}
    assert choices(TABLE, budget, seed) == found


def test_without_a_table_the_scenario_is_played_as_it_is() -> None:
    assert choices([], 3, 1) == [()]


@pytest.mark.parametrize(("tries", "fault"), [(["a=1", "a=2"], "twice"), (["a=1,1"], "twice"), (["a"], "key=value")])
def test_a_table_with_a_fault_names_it(tries: list[str], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        ranges(tries)


def played(place: Path, **changes: Any) -> Any:
    seen: list[float] = []

    def play(config: Any, path: Path) -> float:
        seen.append(config.train.lr)
        return math.nan if config.train.lr == 0.03 else -abs(config.train.lr - 0.02)

    told = {"tries": ["train.lr=0.01,0.02,0.03"], "budget": 9, "place": place, "play": play, **changes}
    return tune("demo", **told), seen


def test_the_best_comes_first_and_one_without_a_score_last(tmp_path: Path) -> None:
    trials, seen = played(tmp_path)
    assert seen == [0.01, 0.02, 0.03]
    assert [one.choice for one in trials] == [("train.lr=0.02",), ("train.lr=0.01",), ("train.lr=0.03",)]
    assert tomllib.loads(overlay(("train.lr=0.02", "train.steps=3", 'aggregation.rule="ffa"'))) == {
        "train": {"lr": 0.02, "steps": 3},
        "aggregation": {"rule": "ffa"},
    }


def test_private_records_are_refused_with_the_reason_before_anything_is_played(tmp_path: Path) -> None:
    source = "/srv/north/records.csv"
    with pytest.raises(ConfigError, match=r"not named as public: every run on private records is charged"):
        played(tmp_path, settings=[f'data.train="{source}"'])
    _, seen = played(tmp_path, settings=[f'data.train="{source}"'], public=[source])
    assert seen


def test_the_command_writes_the_best_settings_and_leaves_a_file_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchain_fl.tuning.search.simulated", lambda config, path: config.train.lr)
    out = tmp_path / "best.toml"
    words = ["tune", "demo", "--try", "train.lr=0.01,0.02", "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert tomllib.loads(out.read_text()) == {"train": {"lr": 0.02}}
    assert "--set train.lr=0.02" in done.output
    assert isinstance(CliRunner().invoke(app, words).exception, ConfigError)
