"""Streams with sites of their own mind, the baselines, small updates: through whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.config.write import to_toml
from llmchain_fl.continual.federated_metrics import spatial_forgetting
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.next_stage import announce
from llmchain_fl.progress import RoundReport, Silent
from llmchain_fl.run_dir import RunDir
from simulations.run import simulate

STAGES = [{"name": "first", "rounds": 2}, {"name": "second", "rounds": 2}]


class Watching(Silent):
    """Remembers what it was told; may stop the run after a round, or do something then."""

    def __init__(self, after: Any = None) -> None:
        self.upload, self.reports, self._after = "", [], after

    def started(self, total: int, done: int, sites: int, privacy: str, upload: str = "") -> None:
        self.upload = upload

    def round_finished(self, report: RoundReport) -> None:
        self.reports.append(report)
        if self._after:
            self._after(report.round)


def play(tiny: Any, folder: Path, watching: Watching | None = None, **sections: Any) -> RunDir:
    given = {"continual": {"guards": []}, "stage": STAGES, "sites": {"held_out": 0.0}, **sections}
    config = tiny.config(**given)
    run = RunDir.create(folder, to_toml(config)) if not folder.exists() else RunDir.open(folder)
    simulate(config, run, watching or Watching())
    return run


def arrays(run: RunDir, stage: int = -1) -> dict[str, np.ndarray]:
    return read_adapter(sorted(run.path.glob("stages/*/adapter"))[stage])[1]


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def sites_of(run: RunDir, number: int) -> set[str]:
    return {row["site"] for row in run.rows() if row["metric"] == "update_norm" and row["round"] == number}


# -- streams ----------------------------------------------------------------------------------------------------------


def test_sites_come_late_leave_early_and_learn_in_their_own_order(tiny: Any, tmp_path: Path) -> None:
    arrival = {
        "site-00": {"joins": 2},
        "site-01": {"leaves": 3},
        "site-02": {"order": ["second", "first"]},
    }
    run = play(tiny, tmp_path / "run", stream={"arrival": arrival})
    assert [sites_of(run, number) for number in (1, 2, 3, 4)] == [
        {"site-01", "site-02"},
        {"site-00", "site-01", "site-02"},
        {"site-00", "site-01", "site-02"},
        {"site-00", "site-02"},
    ]
    straight = play(tiny, tmp_path / "straight", stream={"arrival": {k: arrival[k] for k in ("site-00", "site-01")}})
    assert not same(arrays(run), arrays(straight))


def test_a_round_with_nobody_there_passes_and_changes_nothing(tiny: Any, tmp_path: Path) -> None:
    away = {f"site-0{n}": {"joins": 3} for n in range(3)}
    run = play(tiny, tmp_path / "run", stream={"arrival": away})
    assert sites_of(run, 1) == sites_of(run, 2) == set()
    assert [folder.name for folder in (run.path / "stages").iterdir()] == ["01-second"]  # nothing was trained before it
    assert len(sites_of(run, 3)) == 3


def test_an_arrival_of_a_site_that_is_not_there_is_refused(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such site; did you mean site-01"):
        play(tiny, tmp_path / "run", stream={"arrival": {"site-1": {"joins": 2}}})


@pytest.mark.thorough
def test_alone_starts_anew_at_each_stage(tiny: Any, tmp_path: Path) -> None:
    """So its second stage is the first stage of a run that has only that one."""
    alone = play(tiny, tmp_path / "alone", stream={"play": "alone"}, aggregation={"optimizer": "momentum"})
    only = play(tiny, tmp_path / "only", stage=STAGES[:1], aggregation={"optimizer": "momentum"})
    assert same(arrays(alone, 0), arrays(only, 0))
    naive = play(tiny, tmp_path / "naive", aggregation={"optimizer": "momentum"})
    assert same(arrays(naive, 0), arrays(alone, 0))
    assert not same(arrays(naive, 1), arrays(alone, 1))


def test_joint_trains_on_all_stages_in_every_round(tiny: Any, tmp_path: Path) -> None:
    run = play(tiny, tmp_path / "joint", stream={"play": "joint"})
    dealt = (run.sites / "site-00" / "joint.jsonl").read_text().splitlines()
    parts = [(run.sites / "site-00" / f"{stage}.jsonl").read_text().splitlines() for stage in ("first", "second")]
    assert sorted(dealt) == sorted(parts[0] + parts[1])
    last = [row for row in run.rows() if row["metric"] == "average_accuracy"]
    assert last[-1]["stage"] == 1


def test_an_announced_stage_ends_early_and_a_resumed_run_remembers_it(tiny: Any, tmp_path: Path) -> None:
    stages = [{"name": "first", "rounds": 5}, {"name": "second", "rounds": 1}]
    folder = tmp_path / "run"

    def announce_then_stop(number: int) -> None:
        if number == 1:
            announce(RunDir.open(folder), "first", ["first", "second"])
        if number == 2:
            (folder / "next-stage").unlink()
            raise KeyboardInterrupt

    told = {"stream": {"boundaries": "announced"}, "stage": stages}
    with pytest.raises(KeyboardInterrupt):
        play(tiny, folder, Watching(announce_then_stop), **told)
    run = play(tiny, folder, **told)
    matrix = [(row["round"], row["stage"]) for row in run.rows() if row["metric"] == "r_matrix"]
    assert set(matrix) == {(2, 0), (3, 1)}


def test_scores_are_taken_every_so_many_rounds_and_at_every_stage_s_end(tiny: Any, tmp_path: Path) -> None:
    stages = [{"name": "first", "rounds": 3}, {"name": "second", "rounds": 2}]
    every, seldom = (
        play(tiny, tmp_path / f"every-{n}", stage=stages, data={"test_every": n}) for n in (1, 2)
    )  # fmt: skip
    scored = [sorted({row["round"] for row in run.rows() if row["metric"] == "loss"}) for run in (every, seldom)]
    assert scored == [[0, 1, 2, 3, 4, 5], [0, 2, 3, 4, 5]]
    assert same(arrays(every), arrays(seldom))
    matrix = [
        {(r["stage"], r["task"]): r["value"] for r in run.rows() if r["metric"] == "r_matrix"}
        for run in (every, seldom)
    ]
    assert matrix[0] == matrix[1]


def test_a_stage_that_is_called_off_is_scored_although_its_turn_had_not_come(tiny: Any, tmp_path: Path) -> None:
    stages = [{"name": "first", "rounds": 5}, {"name": "second", "rounds": 1}]
    folder = tmp_path / "run"

    def announce_it(number: int) -> None:
        if number == 0:
            announce(RunDir.open(folder), "first", ["first", "second"])

    class AtOnce(Silent):
        def round_started(self, number: int, stage: str, sites: int) -> None:
            announce_it(number - 1)

    told = {"stream": {"boundaries": "announced"}, "stage": stages, "data": {"test_every": 4}}
    run = play(tiny, folder, AtOnce(), **told)
    assert sorted({row["round"] for row in run.rows() if row["metric"] == "loss"}) == [0, 1, 2]
    assert {(row["round"], row["stage"]) for row in run.rows() if row["metric"] == "r_matrix"} == {(1, 0), (2, 1)}


def test_each_stage_may_have_dev_records_of_its_own(tiny: Any, tmp_path: Path) -> None:
    stages = [
        {"name": "first", "rounds": 1, "dev": str(tiny.train)},
        {"name": "second", "rounds": 1, "dev": str(tiny.test)},
    ]
    run = play(tiny, tmp_path / "run", stage=stages)
    sizes = {row["task"]: row["n"] for row in run.rows() if row["metric"] == "loss" and row["scope"] == "global"}
    assert sizes == {"first": 60, "second": 40}
    assert {row["metric"] for row in run.rows() if row["round"] == 2} >= {"test_loss", "loss"}


def test_probes_are_scored_before_training_and_at_every_stage_s_end(tiny: Any, tmp_path: Path) -> None:
    probes = {"general": str(tiny.train), "general/news": str(tiny.test), "manners": str(tiny.test)}
    stages = [{"name": "first", "rounds": 2}, {"name": "second", "rounds": 1}]
    run = play(tiny, tmp_path / "run", stage=stages, stream={"probes": probes})
    rows = [row for row in run.rows() if row["scope"] == "probe" and row["metric"] == "accuracy"]
    assert {(row["round"], row["stage"]) for row in rows} == {(0, -1), (2, 0), (3, 1)}
    assert {(row["task"], row["n"]) for row in rows} == {("general", 60), ("general/news", 40), ("manners", 40)}
    tested = {
        (r["round"], r["task"]): r["value"] for r in run.rows() if (r["scope"], r["metric"]) == ("global", "accuracy")
    }
    assert {row["value"] for row in rows if row["task"] == "manners" and row["round"] == 3} == {tested[3, "second"]}
    plain = play(tiny, tmp_path / "plain", stage=stages)
    assert same(arrays(run), arrays(plain))
    with pytest.raises(DataError, match="no such file"):
        play(tiny, tmp_path / "missing", stream={"probes": {"general": "missing.csv"}})


@pytest.mark.thorough
def test_in_a_simulation_the_sites_own_models_are_scored_when_a_stage_ends(tiny: Any, tmp_path: Path) -> None:
    stages = [{"name": "first", "rounds": 2}, {"name": "second", "rounds": 1}]
    one = play(tiny, tmp_path / "one", stage=stages, sites={"held_out": 0.3, "count": 1})
    local = {(r["round"], r["site"]): r["value"] for r in one.rows() if r["metric"] == "local_accuracy"}
    shared = {
        (r["round"], r["site"], r["task"]): r["value"]
        for r in one.rows()
        if r["scope"] == "site" and r["metric"] == "accuracy"
    }
    assert local == {(2, "site-00"): shared[2, "site-00", "first"], (3, "site-00"): shared[3, "site-00", "second"]}
    many = play(tiny, tmp_path / "many", stage=stages, sites={"held_out": 0.3})
    assert {r["round"] for r in many.rows() if r["metric"] == "local_accuracy"} == {2, 3}
    assert spatial_forgetting(many.rows(), "accuracy").keys() == {2, 3}
    assert same(arrays(many), arrays(play(tiny, tmp_path / "plain", stage=stages, sites={"held_out": 0.3})))


@pytest.mark.parametrize(
    "sections",
    [{"sites": {"held_out": 0.0}}, {"privacy": {"enabled": True, "epsilon": 8.0}, "sites": {"held_out": 0.3}}],
)
@pytest.mark.part(1)
def test_no_site_s_own_model_is_scored_without_held_out_records_or_under_privacy(
    tiny: Any, tmp_path: Path, sections: Any
) -> None:
    run = play(tiny, tmp_path / "run", **sections)
    assert not [row for row in run.rows() if row["metric"].startswith("local_")]


def test_another_order_teaches_the_stages_in_that_order(tiny: Any, tmp_path: Path) -> None:
    stages = [{**STAGES[0], "labels": list(tiny.labels)[:2]}, {**STAGES[1], "labels": list(tiny.labels)[2:]}]
    run = play(tiny, tmp_path / "run", stage=stages, stream={"order": ["second", "first"]})
    assert [path.parent.name for path in sorted(run.path.glob("stages/*/adapter"))] == ["00-second", "01-first"]
    swapped = play(tiny, tmp_path / "swapped", stage=stages[::-1])
    rows = [[r["value"] for r in one.rows() if r["metric"] == "r_matrix"] for one in (run, swapped)]
    assert len(rows[0]) == len(rows[1]) == 4


def test_with_the_task_known_only_its_labels_can_be_the_answer(tiny: Any, tmp_path: Path) -> None:
    names = list(tiny.labels)
    stages = [{**STAGES[0], "labels": names[:2]}, {**STAGES[1], "labels": names[2:]}]
    kinds = {kind: play(tiny, tmp_path / (kind or "plain"), stage=stages, stream={"kind": kind})
             for kind in ("class-incremental", "task-incremental")}  # fmt: skip
    start = {
        kind: {r["task"]: r["value"] for r in run.rows() if r["round"] == 0 and r["metric"] == "loss"}
        for kind, run in kinds.items()
    }
    for task in ("first", "second"):  # the same model; fewer answers are never harder
        assert start["task-incremental"][task] < start["class-incremental"][task]
    assert same(*(arrays(run) for run in kinds.values()))


@pytest.mark.parametrize("stages", ["shared", "disjoint"])
@pytest.mark.part(1)
def test_a_rehearsed_run_pays_for_every_group_and_stays_within_its_budget(
    tiny: Any, tmp_path: Path, stages: str
) -> None:
    privacy = {"enabled": True, "epsilon": 6.0, "stages": stages}
    guards = {"guards": ["rehearsal"], "rehearsal": {"keep": 0.5}}
    run = play(tiny, tmp_path / "run", privacy=privacy, continual=guards)
    found = run.read_privacy()["sites"]["site-00"]
    groups = {"shared": {"training": 4}, "disjoint": {"training:first": 4, "training:second": 2}}[stages]
    assert found["groups"] == groups
    assert 5.9 < found["epsilon"] <= 6.0
    from client.site import read_site

    ledger = read_site(run.sites / "site-00" / "site.toml").open_ledger("person")
    assert ledger.spent().epsilon == pytest.approx(found["epsilon"], rel=1e-6)


# -- fewer bytes ------------------------------------------------------------------------------------------------------

CODECS = ["bf16", "int8", "int4", "top-k"]


@pytest.mark.parametrize("up", CODECS)
@pytest.mark.part(2)
def test_a_compressed_run_sends_exactly_what_was_announced_and_learns(tiny: Any, tmp_path: Path, up: str) -> None:
    watching = Watching()
    plain = play(tiny, tmp_path / "plain")
    run = play(tiny, tmp_path / "run", watching, compression={"up": up, "feedback": up == "top-k", "share": 0.2})
    sent = {row["value"] for row in run.rows() if row["metric"] == "bytes_up"}
    whole = {row["value"] for row in plain.rows() if row["metric"] == "bytes_up"}
    assert len(sent) == len(whole) == 1
    assert sent.pop() < 0.51 * whole.pop()
    assert watching.upload.startswith("up ")
    one, other = arrays(run), arrays(plain)
    change = sum(float(np.square(one[n] - other[n]).sum()) for n in one) ** 0.5
    size = sum(float(np.square(other[n]).sum()) for n in one if n.endswith("lora_B")) ** 0.5
    assert 0 < change < 0.9 * size


@pytest.mark.parametrize("up", ["int4", "top-k"])
@pytest.mark.part(1)
def test_a_stopped_compressed_run_goes_on_bit_for_bit(tiny: Any, tmp_path: Path, up: str) -> None:
    told = {"compression": {"up": up, "feedback": True, "block": 8}}
    whole = play(tiny, tmp_path / "whole", **told)

    def stop(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(tiny, tmp_path / "cut", Watching(stop), **told)
    assert same(arrays(play(tiny, tmp_path / "cut", **told)), arrays(whole))


@pytest.mark.thorough
def test_a_private_compressed_round_is_sealed_as_it_is_sent(tiny: Any, tmp_path: Path) -> None:
    privacy = {"enabled": True, "noise_multiplier": 1.0}
    run = play(tiny, tmp_path / "run", privacy=privacy, compression={"up": "int8", "feedback": True})
    sealed = next((run.sites / "site-00" / "state" / "site-00" / "sealed").iterdir())
    from safetensors.numpy import load

    content = load(sealed.read_bytes())
    assert {value.dtype for value in content.values()} == {np.dtype(np.uint8)}
    sent = next(row["value"] for row in run.rows() if row["metric"] == "bytes_up")
    assert sum(value.nbytes for value in content.values()) == sent


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aggregation": {"rule": "fedsvd"}, "compression": {"up": "top-k"}}, "turns its factors in every round"),
        ({"compression": {"up": "int8", "link_kbit": 1.0, "max_seconds": 2.0}}, "more than compression.max_seconds"),
        ({"compression": {"feedback": True}}, "has nothing to remember"),
    ],
)
def test_what_compression_cannot_do_is_refused_before_round_1(
    tiny: Any, tmp_path: Path, changes: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        play(tiny, tmp_path / "run", **changes)


# -- robust steps and quarantine --------------------------------------------------------------------------------------

ROBUST = ["norm-bound", "median", "trimmed-mean", "krum", "multi-krum", "geometric-median"]


@pytest.mark.parametrize("robust", ROBUST)
@pytest.mark.part(2)
def test_every_robust_step_plays_a_run(tiny: Any, tmp_path: Path, robust: str) -> None:
    given = {"aggregation": {"robust": robust, "hostile": 0}, "sites": {"held_out": 0.0, "minimum": 3}}
    run = play(tiny, tmp_path / robust, **given)
    shares = [row["value"] for row in run.rows() if row["metric"] == "robust_share"]
    assert len(shares) == 12
    assert all(0 <= share <= 1 for share in shares)
    assert any(value.any() for name, value in arrays(run).items() if name.endswith("lora_B"))


def test_a_robust_step_that_cannot_hold_is_refused_at_the_start(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="krum needs"):
        play(tiny, tmp_path / "run", aggregation={"robust": "krum", "hostile": 1})
