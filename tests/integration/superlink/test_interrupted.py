"""A run on a real SuperLink that is stopped and goes on, and a site that comes late and restarts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.run_dir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(240)]
Private = Callable[[Path], Path]


def test_a_stopped_run_goes_on_where_it_was_and_no_site_pays_twice(lab: Any, private: Private, tmp_path: Path) -> None:
    before = {name: lab.steps(name) for name in ("north", "south")}
    out = tmp_path / "run"
    scenario = private(tmp_path / "s.toml")
    number, _ = lab.submit(stream=False, scenario=str(scenario), out=str(out), set="stage.rounds=2 stage.0.rounds=1")
    end = time.monotonic() + 120
    while time.monotonic() < end and not list(out.glob("state/round-000001.*")):
        time.sleep(0.2)
    lab.flwr("stop", number, "lab")
    assert lab.entry(number)["status"] == "finished:stopped"
    assert max(row["round"] for row in RunDir.open(out).rows()) == 1
    number, said = lab.submit(out=str(out), resume=True)
    assert lab.entry(number)["status"] == "finished:completed", said
    assert "round 3/3 second: 2/2 sites" in said
    assert {row["round"] for row in RunDir.open(out).rows()} == {0, 1, 2, 3}
    assert {name: lab.steps(name) - before[name] for name in before} == {"north": 9, "south": 9}


def test_a_site_joins_a_run_under_way_and_is_taken_back_after_a_restart(
    lab: Any, private: Private, tiny: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = "sites.count=3 stage.rounds=20 stream.arrival.west.joins=2"
    number, _ = lab.submit(stream=False, scenario=str(private(tmp_path / "s.toml")), out=str(out), set=settings)

    def took_part(after: int) -> int:
        """The first round after ``after`` in which the new site took part."""
        end = time.monotonic() + 100
        while time.monotonic() < end:
            rows = RunDir.open(out).rows() if (out / "metrics.jsonl").exists() else []
            rounds = [row["round"] for row in rows if row["metric"] == "update_norm" and row["site"] == "west"]
            if rounds and max(rounds) > after:
                return int(max(rounds))
            time.sleep(0.5)
        pytest.fail((lab.folder / "superlink.log").read_text())

    node = lab.connect("west", tiny)
    first = took_part(0)
    os.killpg(node.pid, signal.SIGTERM)
    node.wait(timeout=20)
    node = lab.connect("west", tiny)
    try:
        assert took_part(first) > first >= 2
    finally:
        lab.flwr("stop", number, "lab")
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(timeout=20)
