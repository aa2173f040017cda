"""Stages with a kind of task of their own are one run: one adapter, one ledger, one report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.config.read import build
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.metrics_file import main_metric
from llmchain_fl.progress import Silent
from llmchain_fl.report.readings import Readings
from llmchain_fl.run_dir import RunDir
from simulations.dummy import check_model
from simulations.run import simulate

STAGES = [{"name": "read", "rounds": 1, "task": "masked-lm"}, {"name": "sort", "rounds": 1}]


@pytest.fixture
def told(tiny: Any, small: Any) -> Any:
    """Settings of such a run, with changes."""

    def settings(**more: Any) -> Any:
        tree = {
            "model": {"path": str(small.shape("masked"))},
            "sites": {"held_out": 0.0},
            "stage": STAGES,
            "aggregation": {"rule": "ffa"},
        }
        return tiny.config(**{**tree, **more})

    return settings


@pytest.fixture(scope="module")
def played(tiny: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A private run that reads and then sorts."""
    config = tiny.config(
        model={"path": str(small.shape("masked"))},
        sites={"held_out": 0.0},
        stage=STAGES,
        aggregation={"rule": "ffa"},
        privacy={"enabled": True, "noise_multiplier": 0.5, "unit": "person"},
        train={"steps": 1},
    )
    run = RunDir.create(tmp_path_factory.mktemp("chain") / "run", to_toml(config))
    simulate(config, run, Silent())
    return run


def test_each_stage_has_the_scores_of_its_kind_and_all_have_one_in_common(played: Any) -> None:
    rows = played.rows()
    named = {(row["task"], row["metric"]) for row in rows if row.get("scope") == "global"}
    assert {("read", "masked_accuracy"), ("sort", "accuracy"), ("read", "loss"), ("sort", "loss")} <= named
    assert ("read", "accuracy") not in named
    assert main_metric(rows).name == "loss"
    matrix = [row for row in rows if row["metric"] == "r_matrix"]
    assert {row["of"] for row in matrix} == {"loss"}
    assert [stage.name for stage in Readings(rows).stages] == ["read", "sort"]


def test_one_ledger_has_the_rounds_of_all_stages(played: Any) -> None:
    spent = [row["value"] for row in played.rows() if row["metric"] == "epsilon" and row.get("site")]
    assert max(spent) > 0
    logs = list(Path(played.sites).glob("*/state/*/events.jsonl"))
    assert len(logs) == 3
    for log in logs:
        text = log.read_text()
        assert "/1" in text
        assert "/2" in text


def test_the_adapter_of_a_stage_says_which_kind_it_is_of(played: Any) -> None:
    folders = sorted(Path(played.path).glob("stages/*/adapter"))
    assert [read_adapter(folder)[0].task.kind for folder in folders] == ["masked-lm", "classification"]
    assert read_adapter(played.adapter)[0].task.kind == "classification"
    assert "the loss on held-out records" in (Path(played.path) / "report.html").read_text()


def test_a_site_is_told_the_kind_of_its_stage_and_the_guard_sees_the_adapter_go_on(
    told: Any, tmp_path: Path, tiny: Any, small: Any, without_pages: None
) -> None:
    seen: list[str] = []

    def watch(site: Any, task: Any, result: Any) -> None:
        seen.append(f"{task.stage_name}: {WorkSpec.from_json(task.work).task.kind}")

    sections = {"model": {"path": str(small.shape("masked"))}, "sites": {"held_out": 0.0}, "stage": STAGES}
    tiny.played(tmp_path / "run", watch, **sections, aggregation={"rule": "ffa"})
    assert seen == ["read: masked-lm"] * 3 + ["sort: classification"] * 3


def test_a_check_tries_each_kind_on_made_up_records(told: Any) -> None:
    found = check_model(told())
    assert not found.faulty
    assert any("tokens a word" in one.text for one in found)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"stage": [{"name": "a", "task": "plain-text"}]}, "another base"),
        ({"stage": [{"name": "a", "task": "pair-classification"}]}, "has a label list"),
        ({"task": {"head": "trained"}}, "trains a head"),
        ({"stage": [{"name": "a", "task": "ranking"}]}, "trains a head"),
        ({"continual": {"public": "x.jsonl"}}, "read as records of one kind"),
        ({"sites": {"held_out": 0.2}}, "sites.held_out"),
        ({"stream": {"kind": "blurry", "blur": 0.2}}, "stream.blur"),
        ({"stream": {"play": "joint"}, "continual": {"guards": []}}, "joint"),
        ({"continual": {"guards": ["rehearsal"]}}, "rehearses"),
        ({"stream": {"probes": {"general": "a.csv"}}}, "stream.probes"),
        ({"stage": [{"name": "a", "task": "masked-ml"}]}, "masked-lm"),
    ],
)
def test_stages_that_do_not_go_together_are_refused_with_the_reason(told: Any, more: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        told(**more)
    assert words in str(caught.value)


def test_a_stream_of_one_kind_is_as_before(tiny: Any) -> None:
    tree = json.loads(tiny.config().model_dump_json())
    tree["stage"] = [{**stage, "task": "classification"} for stage in tree["stage"]]
    assert build(tree).stage[0].task == "classification"
