"""A run on a real SuperLink that is stopped and goes on, and a site that comes late and restarts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.run_dir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(1800)]
Private = Callable[[Path], Path]


def test_a_stopped_run_goes_on_where_it_was_and_no_site_pays_twice(
    lab: Any, private: Private, wait_until: Callable[..., None], tmp_path: Path
) -> None:
    before = {name: lab.steps(name) for name in ("north", "south")}
    out = tmp_path / "run"
    scenario = private(tmp_path / "s.toml")
    number, _ = lab.submit(stream=False, scenario=str(scenario), out=str(out), set="stage.rounds=4 stage.0.rounds=1")
    wait_until(lambda: bool(list(out.glob("state/round-000001.*"))), lab.folder, tmp_path)
    lab.flwr("stop", number, "lab")
    assert lab.entry(number)["status"] == "finished:stopped"
    assert 1 <= max(row["round"] for row in RunDir.open(out).rows()) < 5
    number, said = lab.submit(out=str(out), resume=True)
    assert lab.entry(number)["status"] == "finished:completed", said
    assert "round 5/5 second: 2/2 sites" in said
    assert {row["round"] for row in RunDir.open(out).rows()} == set(range(6))
    assert {name: lab.steps(name) - before[name] for name in before} == {"north": 15, "south": 15}
