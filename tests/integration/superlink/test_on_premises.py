"""Runs over a SuperLink with sites as they are on premises: each answers from a resident executor.

One file, so one lab: a lab is up for all tests of a file.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.core.errors import RunError
from llmchain_fl.run_dir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(1800)]
Private = Callable[[Path], Path]
COST = re.compile(r"\[executor\] \S+ \S+ (\w+)(?:, round (\d+))?: [\d.]+ s, ([\d.]+) CPU s, (\d+) modules imported")


def test_two_sites_learn_together_and_no_message_imports_torch_anew(
    lab: Any, learn_together: Callable[[Any, Path], str], tmp_path: Path
) -> None:
    learn_together(lab, tmp_path)
    for name in ("north", "south"):
        told = [(kind, number, float(cpu), int(modules)) for kind, number, cpu, modules in COST.findall(lab.log(name))]
        assert [one[:2] for one in told] == [("query", ""), ("train", "1"), ("train", "2")]
        assert lab.log(name).count("CPU s of imports, once") == 1
        assert told[-1][3] == 0
        assert all(modules < 30 and cpu < 6 for _, _, cpu, modules in told)
        assert told[-1][2] < 2


def test_a_bundle_that_was_not_approved_is_refused_for_free_and_no_line_of_it_runs(
    lab: Any, private: Private, app: Path, tmp_path: Path
) -> None:
    before = {name: lab.steps(name) for name in ("north", "south")}
    other, mark = tmp_path / "llmchain-fl", tmp_path / "executed"
    shutil.copytree(app, other)
    for file in ("client/app.py", "client/site.py", "server/app.py", "llmchain_fl/core/errors.py"):
        with (other / file).open("a") as opened:
            opened.write(f"\nopen({str(mark)!r}, 'w').close()\n")
    number, _ = lab.submit(
        app=other, scenario=str(private(tmp_path / "s.toml")), out=str(tmp_path / "run"), set="sites.wait_seconds=4"
    )
    assert lab.entry(number)["status"] == "finished:failed"
    assert not mark.exists()
    assert {name: lab.steps(name) for name in before} == before
    assert all("is not approved" in lab.log(name) for name in before)


@pytest.mark.thorough
def test_a_site_whose_budget_is_used_up_says_no_and_the_other_goes_on(
    lab: Any, private: Private, tmp_path: Path
) -> None:
    lab.write_site("north", epsilon=0.5)
    before = {name: lab.steps(name) for name in ("north", "south")}
    out = tmp_path / "run"
    try:
        number, said = lab.submit(scenario=str(private(tmp_path / "s.toml")), out=str(out), set="stage.rounds=1")
    finally:
        lab.write_site("north", epsilon=50.0)
    assert lab.entry(number)["status"] == "finished:completed", said
    assert "1/2 sites" in said
    refused = [(row["site"], row["reason"]) for row in RunDir.open(out).rows() if row["metric"] == "refused"]
    assert set(refused) == {("north", "budget")}
    assert lab.steps("north") == before["north"]
    assert lab.steps("south") == before["south"] + 6
    assert "the site's limit is 0.5" in (lab.folder / "north.log").read_text()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"scenario": "demmo"}, "there is no scenario 'demmo'; did you mean demo?"),
        ({"set": "train.lrr=1"}, "train.lrr is not a setting; did you mean train.lr?"),
        ({"set": "title='half"}, "cannot be read: No closing quotation"),
    ],
)
def test_settings_that_cannot_run_end_in_a_failed_run_that_says_why(
    lab: Any, settings: dict[str, str], text: str
) -> None:
    number, said = lab.submit(**settings)
    entry = lab.entry(number)
    assert entry["status"] == "finished:failed"
    assert text in said
    assert text in entry["status-details"]


def is_free(out: Path) -> bool:
    try:
        with RunDir.open(out).alone():
            return True
    except RunError:
        return False


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
    wait_until(lambda: is_free(out), lab.folder, tmp_path)  # a process whose run was stopped ends when it next looks
    number, said = lab.submit(out=str(out), resume=True)
    assert lab.entry(number)["status"] == "finished:completed", said
    assert "round 5/5 second: 2/2 sites" in said
    assert {row["round"] for row in RunDir.open(out).rows()} == set(range(6))
    assert {name: lab.steps(name) - before[name] for name in before} == {"north": 15, "south": 15}


def test_an_executor_that_is_killed_comes_back_by_itself_and_the_run_goes_on(
    lab: Any, private: Private, wait_until: Callable[..., None], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = "stage.rounds=60 sites.minimum=1"
    number, _ = lab.submit(stream=False, scenario=str(private(tmp_path / "s.toml")), out=str(out), set=settings)

    def rounds_of(site: str) -> int:
        rows = RunDir.open(out).rows() if (out / "metrics.jsonl").exists() else []
        return max((row["round"] for row in rows if (row["metric"], row["site"]) == ("update_norm", site)), default=0)

    try:
        wait_until(lambda: rounds_of("north") >= 1, lab.folder, tmp_path)
        seen, killed = rounds_of("north"), lab.process("north", "run_site_executor")
        killed.send_signal(signal.SIGKILL)
        wait_until(lambda: rounds_of("north") > seen + 1, lab.folder, tmp_path)
        assert lab.process("north", "run_site_executor").pid != killed.pid
    finally:
        lab.flwr("stop", number, "lab")


@pytest.mark.thorough
def test_a_site_joins_a_run_under_way_and_is_taken_back_after_a_restart(
    lab: Any, private: Private, tiny: Any, wait_until: Callable[..., None], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = "sites.count=3 stage.rounds=60 stream.arrival.west.joins=2"
    number, _ = lab.submit(stream=False, scenario=str(private(tmp_path / "s.toml")), out=str(out), set=settings)

    def last_round() -> int:
        """In which the new site took part."""
        rows = RunDir.open(out).rows() if (out / "metrics.jsonl").exists() else []
        found = (row["round"] for row in rows if row["metric"] == "update_norm" and row["site"] == "west")
        return max(found, default=0)

    def took_part(after: int) -> int:
        wait_until(lambda: last_round() > after, lab.folder, tmp_path)
        return last_round()

    node = lab.connect("west", tiny)
    first = took_part(0)
    os.killpg(node.pid, signal.SIGTERM)
    node.wait(timeout=120)
    node = lab.connect("west", tiny)
    try:
        assert took_part(first) > first >= 2
    finally:
        lab.flwr("stop", number, "lab")
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(timeout=120)


def test_a_site_and_a_coordinator_that_are_stopped_leave_no_process(lab: Any, still_running: Any) -> None:
    lab.stop()
    assert still_running(lab.environment) == []
