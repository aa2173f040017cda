"""A federation of years: a finished run goes further, and nothing that was done in it is done again or lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.site import read_site
from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.config.read import build, read_config
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import ConfigError, LlmchainError, PrivacyError, RunError
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from server.state import last_state
from simulations.run import extend, simulate

FIRST, SECOND, THIRD = ({"name": name, "rounds": 1} for name in ("first", "second", "third"))


def play(config: RunConfig, folder: Path) -> RunDir:
    run = RunDir.create(folder, to_toml(config))
    simulate(config, run, Silent())
    return run


def further(run: RunDir, **changes: Any) -> RunDir:
    """Extended by whole sections, and played."""
    simulate(extend(wanted(run, **changes), run), run, Silent())
    return run


def wanted(run: RunDir, **changes: Any) -> RunConfig:
    tree = read_config(run.config).model_dump()
    for name, section in changes.items():
        tree[name] = {**tree[name], **section} if isinstance(section, dict) else section
    return build(tree)


def measured(run: RunDir) -> list[str]:
    """Rows of rounds 3 and 4 without clocks, in the order of their text; of round 3 those of stages known by then."""
    late = (row for row in run.rows() if row["round"] >= 3 and (row["round"], row["task"]) != (3, "third"))
    return sorted(json.dumps(row, sort_keys=True) for row in late if row["metric"] != "seconds")


def files(run: RunDir) -> Mapping[str, bytes]:
    """Everything that a refused extension must leave as it is."""
    found = (path for path in run.path.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(run.path)): path.read_bytes() for path in found}


def same(one: RunDir, other: RunDir) -> bool:
    mine, theirs = read_adapter(one.adapter)[1], read_adapter(other.adapter)[1]
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


KINDS = {
    "none": {"continual": {"guards": []}},
    "an optimizer": {"continual": {"guards": []}, "aggregation": {"rule": "ffa", "optimizer": "adam"}},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.part(1)
def test_a_run_extended_twice_ends_as_one_that_was_planned_so(kind: str, tiny: Any, tmp_path: Path) -> None:
    stages = [FIRST, {**SECOND, "rounds": 2}, THIRD]
    whole = play(tiny.config(stage=stages, **KINDS[kind]), tmp_path / "whole")
    run = play(tiny.config(stage=[FIRST, SECOND], **KINDS[kind]), tmp_path / "run")
    begun = last_state(run.state)
    further(run, stage=stages[:2])
    further(run, stage=stages)
    state = last_state(run.state)
    assert begun is not None
    assert state is not None
    assert (state.run, state.round, begun.round) == (begun.run, 4, 2)
    assert same(run, whole)
    assert measured(run) == measured(whole)
    assert {path.name for path in (run.path / "stages").iterdir()} == {"00-first", "01-second", "02-third"}
    assert read_config(run.config) == read_config(whole.config)
    assert [(entry["how"], entry["after_round"]) for entry in run.read_changes()] == [("extend", 2), ("extend", 3)]
    assert run.read_changes()[0]["changed"] == {"stage.second.rounds": [1, 2]}
    assert run.report.is_file()
    for site in ("site-00", "site-01", "site-02"):
        for name in ("first", "second", "third"):
            mine, theirs = (one.sites / site / f"{name}.jsonl" for one in (run, whole))
            assert mine.read_bytes() == theirs.read_bytes()


@pytest.mark.thorough
def test_what_a_new_stage_is_read_against_is_measured_when_it_is_added(tiny: Any, tmp_path: Path) -> None:
    run = play(tiny.config(stage=[FIRST, SECOND], continual={"guards": []}), tmp_path / "run")
    whole = play(tiny.config(stage=[FIRST, SECOND, THIRD], continual={"guards": []}), tmp_path / "whole")
    further(run, stage=[FIRST, SECOND, THIRD])

    def values(one: RunDir, number: int, metric: str) -> dict[str, float]:
        found = [row for row in one.rows() if (row["round"], row["metric"]) == (number, metric)]
        return {row["task"]: row["value"] for row in found if row.get("scope") == "global"}

    for number, metric in ((0, "accuracy"), (2, "accuracy"), (2, "r_matrix"), (3, "change_previous")):
        assert values(run, number, metric)["third"] == values(whole, number, metric)["third"]


# -- with privacy -----------------------------------------------------------------------------------------------------


def private(tiny: Any, **privacy: Any) -> RunConfig:
    config: RunConfig = tiny.config(
        continual={"guards": []},
        sites={"held_out": 0.0},
        privacy={"enabled": True, "epsilon": 6.0, **privacy},
        stage=[FIRST, SECOND],
    )
    return config


def own_epsilon(run: RunDir, site: str) -> float:
    """What the site's own ledger comes to."""
    return read_site(run.sites / site / "site.toml").open_ledger("person").spent().epsilon


@pytest.mark.thorough
def test_with_a_larger_budget_the_sites_ledgers_go_on_and_the_new_rounds_have_the_noise_that_keeps_them_within_it(
    tiny: Any, tmp_path: Path
) -> None:
    run = play(private(tiny), tmp_path / "run")
    before = own_epsilon(run, "site-00")
    assert 5.9 < before <= 6.0
    further(run, stage=[FIRST, {**SECOND, "rounds": 3}], privacy={"epsilon": 8.0})
    told = run.read_privacy()
    assert told["sites"]["site-00"]["rounds"] == 4
    assert own_epsilon(run, "site-00") == pytest.approx(told["sites"]["site-00"]["epsilon"], rel=1e-9)
    assert 7.9 < told["sites"]["site-00"]["epsilon"] <= 8.0
    (entry,) = run.read_changes()
    assert told["noise_multiplier"] == entry["noise_multiplier"] != told["earlier_plans"][0]["noise_multiplier"]


def test_a_budget_that_is_spent_is_refused_with_what_it_would_take(tiny: Any, tmp_path: Path) -> None:
    run = play(private(tiny), tmp_path / "run")
    before = files(run)
    with pytest.raises(PrivacyError, match=r"1 more rounds do not fit into privacy\.epsilon = 6") as refused:
        extend(wanted(run, stage=[FIRST, {**SECOND, "rounds": 2}]), run)
    assert "with the noise so far it would come to epsilon" in refused.value.remedy
    assert files(run) == before


def test_persons_of_a_disjoint_stage_have_a_budget_of_their_own(tiny: Any, tmp_path: Path) -> None:
    run = play(private(tiny, stages="disjoint"), tmp_path / "run")
    further(run, stage=[FIRST, SECOND, {**THIRD, "train": str(tiny.test)}])
    sites = run.read_privacy()["sites"]
    assert set(sites["site-00"]["groups"]) == {"training:first", "training:second", "training:third"}
    assert all(site["epsilon"] <= 6.0 for site in sites.values())


def test_a_run_that_was_stopped_for_its_budget_goes_on_with_a_larger_one(tiny: Any, tmp_path: Path) -> None:
    config = private(tiny, noise_multiplier=1.0, epsilon=6.5)
    run = RunDir.create(tmp_path / "run", to_toml(config))
    with pytest.raises(RunError, match="stopped after 1 of 2 rounds"):
        simulate(config, run, Silent())
    further(run, privacy={"epsilon": 12.0})
    assert last_state(run.state).round == 2  # type: ignore[union-attr]
    assert not any(row["metric"] == "stopped" for row in run.rows())
    assert "stopped" not in run.read_privacy()


# -- other sites ------------------------------------------------------------------------------------------------------


def test_sites_that_join_and_leave_do_so_from_the_next_round_on(tiny: Any, tmp_path: Path) -> None:
    run = play(tiny.config(stage=[FIRST, SECOND], continual={"guards": []}), tmp_path / "run")
    kept = {name: text for name, text in files(run).items() if "first" in name or "second" in name}
    gone = {"arrival": {"site-01": {"leaves": 2}}}
    further(run, stage=[FIRST, SECOND, THIRD], sites={"count": 4}, stream=gone)
    asked = {row["site"] for row in run.rows() if (row["round"], row["metric"]) == (3, "bytes_up")}
    assert asked == {"site-00", "site-02", "site-03"}
    assert (run.sites / "site-03" / "third.jsonl").is_file()
    assert not (run.sites / "site-03" / "first.jsonl").exists()
    assert {name: text for name, text in files(run).items() if name in kept} == kept
    assert read_config(run.config).stream.arrival["site-03"].joins == 3


def test_a_new_site_has_nothing_of_a_stage_that_is_dealt_out(tiny: Any, tmp_path: Path) -> None:
    run = play(tiny.config(stage=[FIRST, SECOND], continual={"guards": []}), tmp_path / "run")
    before = files(run)
    with pytest.raises(LlmchainError, match='site-03 has no record in stage "second"'):
        extend(wanted(run, stage=[FIRST, {**SECOND, "rounds": 2}], sites={"count": 4}), run)
    assert files(run) == before


# -- what is refused --------------------------------------------------------------------------------------------------


def test_what_would_alter_the_run_so_far_is_refused_all_at_once(tiny: Any, tmp_path: Path) -> None:
    run = play(tiny.config(stage=[FIRST, SECOND], continual={"guards": []}), tmp_path / "run")
    before = files(run)
    changes = {
        "adapter": {"rank": 4},
        "aggregation": {"rule": "fedit"},
        "task": {"head": "trained", "labels": list(reversed(tiny.labels))},
        "privacy": {"unit": "record"},
        "sites": {"count": 5},
        "stage": [SECOND, {**FIRST, "labels": list(tiny.labels)[:1]}, THIRD],
    }
    with pytest.raises(ConfigError) as refused:
        extend(wanted(run, **changes), run)
    told = "\n".join(refused.value.faults)
    for word in ("adapter.rank = 4, was 2", "aggregation.rule", "task.head", "privacy.unit", "stage.first.labels"):
        assert word in told
    assert "rounds 1 to 2 are done" in told
    assert "new labels go to its end" in told
    assert files(run) == before


def test_an_extension_that_leaves_nothing_to_do_is_refused(tiny: Any, tmp_path: Path) -> None:
    run = play(tiny.config(stage=[FIRST, SECOND], continual={"guards": []}), tmp_path / "run")
    with pytest.raises(ConfigError, match="nothing is left to do after round 2"):
        extend(wanted(run, train={"lr": 0.01}), run)
    with pytest.raises(RunError, match="has not begun"):
        extend(read_config(run.config), RunDir.create(tmp_path / "new", to_toml(read_config(run.config))))
