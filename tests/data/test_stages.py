"""The labels of a stage, and whether a stream fits the public label list."""

from __future__ import annotations

from typing import Any

import pytest

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.stream import StageConfig
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.data.stages import answers, check_stages, stage_labels

LABELS = ["lost", "stolen", "phished", "spied"]


def run(*named: Any, **stream: Any) -> RunConfig:
    """Stages with these labels; the list is in a file, so that the configuration alone cannot check it."""
    stages = [{"name": f"s{i}", "labels": labels} for i, labels in enumerate(named)]
    return RunConfig.model_validate(
        {"task": {"labels": "labels.txt"}, "data": {"train": "x"}, "stage": stages, "stream": stream}
    )


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ([], None),
        ("", None),
        ("1:3", ["stolen", "phished"]),
        (" 0 : 4 ", LABELS),
        (["spied", "lost"], ["spied", "lost"]),
    ],
)
def test_a_stage_keeps_the_labels_it_names_in_either_way(labels: Any, kept: list[str] | None) -> None:
    assert stage_labels(StageConfig(labels=labels), LABELS) == kept


LONG = "0:" + "9" * 5000


@pytest.mark.parametrize(
    "labels", ["2:2", "3:1", "0:5", "1", "a:b", "-1:2", "²:3", ":", LONG], ids=lambda text: text[:9]
)
def test_a_range_that_is_none_is_refused_with_its_bounds(labels: str) -> None:
    with pytest.raises(ConfigError, match="within 0:4"):
        stage_labels(StageConfig(labels=labels), LABELS)


def test_all_unknown_labels_of_all_stages_are_told_at_once_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        check_stages(run(["lots", "stolen"], "0:9", ["phish", "x"]), LABELS)
    said = caught.value.faults
    assert len(said) == 4
    assert said[0] == 'stage "s0": the label "lots" is not in task.labels; did you mean lost?'
    assert "did you mean phished?" in said[2]


def test_what_only_the_label_list_can_tell_is_told_with_the_list() -> None:
    overlapping = run("0:2", ["stolen"], kind="class-incremental")
    with pytest.raises(ConfigError, match='the first is "stolen"'):
        check_stages(overlapping, LABELS)
    with pytest.raises(ConfigError, match=r'"spyed" is not in task.labels; did you mean spied\?'):
        check_stages(run([], arrival={"a": {"relabel": {"lost": "spyed"}}}), LABELS)


def test_a_stream_that_fits_the_list_passes() -> None:
    check_stages(
        run("0:2", ["phished"], kind="class-incremental", arrival={"a": {"relabel": {"lost": "spied"}}}), LABELS
    )


def test_a_task_without_labels_has_none_to_check() -> None:
    config = RunConfig.model_validate({"task": {"kind": "causal-lm"}, "data": {"train": "x"}})
    check_stages(config, [])


def test_only_with_a_known_task_are_answers_confined_to_its_labels() -> None:
    named = ["2:4", ["spied", "lost"]]
    known, unknown = run(*named, kind="task-incremental"), run(*named)
    assert [answers(known, stage, LABELS) for stage in known.stage] == [[2, 3], [3, 0]]
    assert [answers(unknown, stage, LABELS) for stage in unknown.stage] == [None, None]
