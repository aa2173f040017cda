"""Which labels are of which stage: from the configuration to the work description, where a guard asks."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.planning.work import work_from

LABELS = {name: name for name in ("red", "green", "blue", "black")}


def told(*stages: object, guards: tuple[str, ...] = ("mask",), **sections: Any) -> RunConfig:
    """A run of stages with these ``labels``."""
    tree = {
        "task": {"labels": LABELS},
        "data": {"train": "x"},
        "continual": {"guards": list(guards)},
        "stage": [{"name": "abc"[i], "labels": labels} for i, labels in enumerate(stages)],
    }
    return build({**tree, **sections})


def stage_labels(config: RunConfig) -> dict[str, tuple[int, ...]]:
    work = work_from(config, LABELS, ("lora_B",), None)
    assert type(work).from_json(work.to_json()) == work
    return dict(work.task.stage_labels)


def test_names_and_ranges_become_positions_and_stages_may_share_some() -> None:
    config = told(["blue", "red", "blue"], "1:3", "2:4")
    assert stage_labels(config) == {"a": (2, 0), "b": (1, 2), "c": (2, 3)}


def test_nothing_is_told_where_no_guard_asks() -> None:
    assert stage_labels(told("0:2", "2:4", guards=("distill",))) == {}


def test_a_joint_run_has_the_labels_of_all_its_stages() -> None:
    assert stage_labels(told("0:2", ["black"], stream={"play": "joint"})) == {"joint": (0, 1, 3)}


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (("0:2", ""), 'labels are of stage "b": set labels'),
        (("0:2", ["black"]), 'the one label of stage "b"'),
        (("3:4", "0:2"), 'the one label of stage "a"'),
    ],
)
def test_a_stage_without_two_labels_is_refused_before_the_run(stages: tuple[object, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        told(*stages)


def test_a_task_without_labels_is_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match="has no labels"):
        told("", task={"kind": "causal-lm"})
