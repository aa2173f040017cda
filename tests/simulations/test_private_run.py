"""Whole private runs over small sites: the server's numbers are the sites' own, after a stop and on a set-back disk."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from client.site import read_site
from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.progress import RoundReport, Silent
from llmchain_fl.run_dir import RunDir
from server.checkpoint import read_state
from server.state import last_state
from simulations.run import simulate

NAMES = ["site-00", "site-01", "site-02"]


class StopAfter(Silent):
    """Pulls the plug after a round."""

    def __init__(self, number: int) -> None:
        self._number = number

    def round_finished(self, report: RoundReport) -> None:
        if report.round == self._number:
            raise KeyboardInterrupt


@pytest.fixture
def config_of(small: Any, tmp_path: Path) -> Any:
    """Privacy settings -> two stages of two rounds over the same twelve persons, who have five records each."""
    rows = small.rows(60)
    text = "".join(
        json.dumps({**row, "person": f"p{i % 12}", "ward": NAMES[i % 12 // 4]}) + "\n" for i, row in enumerate(rows)
    )
    (tmp_path / "train.jsonl").write_text(text)
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in small.rows(9, seed=2)))

    def config(held_out: float = 0.0, **privacy: Any) -> RunConfig:
        tree: dict[str, Any] = {
            "model": {"path": str(small.bert), "threads": 1, "max_tokens": 8},
            "adapter": {"rank": 2, "last_layers": 1},
            "task": {"labels": list(small.labels)},
            "data": {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")},
            "sites": {"count": 3, "minimum": 2, "held_out": held_out, "partition": "column", "column": "ward"},
            "train": {"steps": 2, "sampling_rate": 0.5, "batch_size": 4, "lr": 0.02},
            "privacy": {"enabled": True, "noise_multiplier": 2.0, **privacy},
            "stage": [{"name": "cards", "rounds": 2}, {"name": "loans", "rounds": 2}],
            "federation": "north",
        }
        return build(tree)

    return config


def play(config: RunConfig, path: Path) -> RunDir:
    run = RunDir.create(path, to_toml(config))
    simulate(config, run, Silent())
    return run


def stopped(config: RunConfig, path: Path, after: int) -> RunDir:
    run = RunDir.create(path, to_toml(config))
    with pytest.raises(KeyboardInterrupt):
        simulate(config, run, StopAfter(after))
    return run


def own_numbers(run: RunDir, unit: str) -> dict[str, float]:
    """What each site's ledger says."""
    sites = {name: read_site(run.sites / name / "site.toml") for name in NAMES}
    return {name: site.open_ledger(unit).spent().epsilon for name, site in sites.items()}


def told_numbers(run: RunDir) -> dict[str, float]:
    """What the run's record says."""
    told = json.loads((run.path / "privacy.json").read_text())["sites"]
    return {name: told[name]["epsilon"] for name in NAMES}


def own_groups(run: RunDir, unit: str) -> dict[str, dict[str, int]]:
    """Group -> releases, as each site's ledger has them."""
    sites = {name: read_site(run.sites / name / "site.toml") for name in NAMES}
    spent = {name: site.open_ledger(unit).spent().groups for name, site in sites.items()}
    return {name: {group: sum(e.steps for e in events) for group, events in found} for name, found in spent.items()}


def told_groups(run: RunDir, unit: str) -> dict[str, dict[str, int]]:
    """The same in the run's record, which counts rounds and scores, under the names that a site gives its groups."""
    told = json.loads((run.path / "privacy.json").read_text())
    steps = told["steps_per_round"]
    return {
        name: {
            f"{name}/{group}" if unit == "person" else "everybody": count * (1 if group == "held-out" else steps)
            for group, count in told["sites"][name]["groups"].items()
        }
        for name in NAMES
    }


def values(run: RunDir, metric: str, scope: str = "site") -> list[dict[str, Any]]:
    return [row for row in run.rows() if row["metric"] == metric and row["scope"] == scope]


KINDS: dict[str, tuple[float, dict[str, Any]]] = {
    "persons, shared stages": (0.0, {}),
    "persons, disjoint stages": (0.0, {"stages": "disjoint"}),
    "persons, own scores": (0.4, {}),
    "records": (0.0, {"unit": "record"}),
    "sites": (0.0, {"unit": "site", "noise_multiplier": 8.0, "clip_quantile": 0.5}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.part(2)
def test_the_server_tells_what_each_site_has_written_down_itself(kind: str, config_of: Any, tmp_path: Path) -> None:
    held_out, privacy = KINDS[kind]
    run = play(config_of(held_out, **privacy), tmp_path / "run")
    assert own_numbers(run, privacy.get("unit", "person")) == told_numbers(run)
    assert all(value > 0 for value in told_numbers(run).values())
    assert own_groups(run, privacy.get("unit", "person")) == told_groups(run, privacy.get("unit", "person"))
    assert values(run, "refused") == []
    last = [row for row in values(run, "epsilon") if row["round"] == 4]
    if not held_out:  # scores of the last round are paid after its row
        assert {row["site"]: row["value"] for row in last} == told_numbers(run)


def test_disjoint_stages_cost_what_the_largest_does_and_shared_ones_more(config_of: Any, tmp_path: Path) -> None:
    epsilons = {}
    for stages in ("shared", "disjoint"):
        run = play(config_of(stages=stages), tmp_path / stages)
        rows = [row for row in values(run, "epsilon") if row["site"] == "site-00"]
        epsilons[stages] = [row["value"] for row in sorted(rows, key=lambda row: int(row["round"]))]
    assert epsilons["shared"][:2] == epsilons["disjoint"][:2]
    assert epsilons["disjoint"][1:] == [epsilons["disjoint"][1]] * 3
    assert epsilons["shared"][3] > epsilons["shared"][2] > epsilons["shared"][1]


def test_noised_scores_of_the_sites_are_numbers_between_0_and_1_for_every_stage(config_of: Any, tmp_path: Path) -> None:
    run = play(config_of(0.4), tmp_path / "run")
    found = values(run, "accuracy")
    assert {(row["site"], row["round"], row["task"]) for row in found} == {
        (name, number, task) for name in NAMES for number, task in ((2, "cards"), (4, "cards"), (4, "loans"))
    }
    assert all(0.0 <= row["value"] <= 1.0 for row in found)


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.part(1)
def test_a_run_that_was_stopped_goes_on_with_its_receipts_and_no_round_is_paid_twice(
    config_of: Any, tmp_path: Path, after: int
) -> None:
    config = config_of(0.4)
    run = stopped(config, tmp_path / "run", after)
    state = last_state(run.state)
    assert state is not None
    assert set(state.receipts) == set(NAMES)
    assert all(state.receipts.values())
    simulate(config, run, Silent())
    assert own_numbers(run, "person") == told_numbers(run) == told_numbers(play(config, tmp_path / "whole"))
    log = (run.sites / "site-00" / "state" / "site-00" / "events.jsonl").read_text().splitlines()
    keys = [entry["key"].partition("/")[2] for entry in map(json.loads, log) if entry["type"] == "reserve"]
    assert keys == ["1", "2", "2/scores", "3", "4", "4/scores"]


def test_a_site_whose_disk_was_set_back_between_two_rounds_is_left_out_of_the_rest(
    config_of: Any, tmp_path: Path
) -> None:
    config = config_of()
    run = stopped(config, tmp_path / "run", 1)
    home, copy = run.sites / "site-01", tmp_path / "copy"
    shutil.copytree(home, copy)
    with pytest.raises(KeyboardInterrupt):
        simulate(config, run, StopAfter(2))
    shutil.rmtree(home)
    shutil.copytree(copy, home)
    simulate(config, run, Silent())
    refused = {(row["round"], row["site"], row["reason"]) for row in values(run, "refused")}
    assert refused == {(3, "site-01", "privacy"), (4, "site-01", "privacy")}
    assert {row["round"] for row in values(run, "epsilon")} == {1, 2, 3, 4}
    told = told_numbers(run)
    assert told["site-01"] < told["site-00"] == told["site-02"]


def clip_of(run: RunDir) -> float:
    saved = read_state(run.state)
    assert saved is not None
    return float(saved["clip"]["clip"])


def test_the_clip_norm_of_a_site_level_run_moves_and_survives_a_stop(config_of: Any, tmp_path: Path) -> None:
    config = config_of(unit="site", noise_multiplier=8.0, clip_quantile=0.3)
    run = stopped(config, tmp_path / "run", 2)
    before = clip_of(run)
    assert before not in (0.0, config.privacy.clip_norm)
    simulate(config, run, Silent())
    after = clip_of(run)
    assert after not in (0.0, before)
    low, high = math.exp(-2 * 0.2 * 0.7), math.exp(2 * 0.2 * 0.3)  # two more steps, from where it was
    assert low * (1 - 1e-9) <= after / before <= high * (1 + 1e-9)
