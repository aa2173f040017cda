"""Faults of a stream: all at once, in words, with the nearest name."""

from __future__ import annotations

from typing import Any

import pytest

from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.stream import StageConfig, StreamConfig
from llmchain_fl.config.stream_faults import kind_faults
from llmchain_fl.core.errors import ConfigError

CARDS, FRAUD = {"name": "cards", "rounds": 2}, {"name": "fraud", "rounds": 3}
LABELS = ["lost", "stolen", "phished"]
CLASSES = StreamConfig(kind="class-incremental")


def faults_of(**sections: Any) -> list[str]:
    """What a run with these sections is told; nothing if it can be built."""
    tree = {"task": {"labels": LABELS}, "data": {"train": "x"}, "sites": {"count": 2}, "stage": [CARDS, FRAUD]}
    try:
        build({**tree, **sections})
    except ConfigError as error:
        return error.faults
    return []


def with_labels(*named: Any) -> list[dict[str, Any]]:
    return [{"name": name, "labels": labels} for name, labels in zip(["cards", "fraud", "more"], named, strict=False)]


FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an unknown stage in the order": (
        {"order": ["cards", "frued"]},
        ['stream.order: there is no stage "frued"; did you mean fraud?', 'leaves out stage "fraud"'],
    ),
    "a stage twice in the order": ({"order": ["cards", "cards", "fraud"]}, ['the stage "cards" 2 times']),
    "an order that leaves one out": ({"order": ["fraud"]}, ['leaves out stage "cards"']),
    "an unknown stage in a site's order": (
        {"arrival": {"a": {"order": ["card"]}}},
        ['stream.arrival."a".order: there is no stage "card"; did you mean cards?'],
    ),
    "a stage twice in a site's order": (
        {"arrival": {"a": {"order": ["cards", "cards"]}}},
        ['"a".order names the stage "cards" 2 times'],
    ),
    "leaves before it joins": ({"arrival": {"a": {"joins": 4, "leaves": 3}}}, ["leaves = 3 is before joins = 4"]),
    "joins after the end": ({"arrival": {"a": {"joins": 6}}}, ['"a": the site is in none of the 5 rounds']),
    "begins after the end": ({"arrival": {"a": {"offset_rounds": 5}}}, ["in none of the 5 rounds"]),
    "a stage that is never reached": (
        {"arrival": {"a": {"order": ["fraud", "cards"], "offset_rounds": 2}}},
        ['"a" never comes to stage "cards" in 5 rounds'],
    ),
    "more arrivals than sites": (
        {"arrival": {"a": {}, "b": {}, "c": {}}},
        ["names 3 sites, sites.count = 2"],
    ),
    "blurry without a share": ({"kind": "blurry"}, ['stream.blur = 0 with stream.kind = "blurry"']),
    "a share without blurry": ({"blur": 0.25}, ['stream.blur = 0.25 with stream.kind = ""']),
    "a baseline with sites on other stages": (
        {"play": "joint", "arrival": {"a": {"offset_rounds": 1}, "b": {"joins": 2}}},
        ['stream.play = "joint" with an order or offset_rounds of "a"'],
    ),
    "announced ends with sites on other stages": (
        {"boundaries": "announced", "arrival": {"a": {"order": ["fraud"]}}},
        ['stream.boundaries = "announced" with an order or offset_rounds of "a"'],
    ),
    "new classes without labels": (
        {"kind": "class-incremental"},
        ['stream.kind = "class-incremental": no labels are said for stages "cards", "fraud"'],
    ),
    "task ids without labels": (
        {"kind": "task-incremental"},
        ['stream.kind = "task-incremental": no labels are said for stages "cards", "fraud"'],
    ),
    "a label that is not in the list": (
        {"arrival": {"a": {"relabel": {"lots": "stolen"}}}},
        ['"a".relabel: "lots" is not in task.labels; did you mean lost?'],
    ),
    "a target that is not in the list": (
        {"arrival": {"a": {"relabel": {"lost": "stole"}}}},
        ['"stole" is not in task.labels; did you mean stolen?'],
    ),
    "a label called as it is called": (
        {"arrival": {"a": {"relabel": {"lost": "lost"}}}},
        ['"a".relabel leaves "lost" as it is'],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_stream_is_told_what_is_wrong(name: str) -> None:
    stream, wanted = FAULTS[name]
    said = faults_of(stream=stream)
    assert len(said) == len(wanted)
    for words in wanted:
        assert any(words in line for line in said), said


def test_all_faults_of_a_stream_are_told_at_once() -> None:
    arrival = {"a": {"order": ["card"]}, "b": {"joins": 9}, "c": {"joins": 3, "leaves": 1}}
    said = faults_of(stream={"order": ["fraud", "cards"], "kind": "blurry", "arrival": arrival})
    assert len(said) == 5


def test_a_faulty_order_of_the_run_does_not_hide_what_is_wrong_with_a_site() -> None:
    arrival = {"a": {"joins": 3, "leaves": 1}, "b": {"order": ["car"]}}
    assert len(faults_of(stream={"order": ["fraud"], "arrival": arrival})) == 3
    fine = {"a": {"joins": 2, "order": ["fraud"]}}
    assert len(faults_of(stream={"order": ["cards", "frued"], "arrival": fine})) == 2


@pytest.mark.parametrize(
    "stream",
    [
        {},
        {"order": ["fraud", "cards"]},
        {"play": "joint"},
        {"play": "alone", "arrival": {"a": {"joins": 2, "leaves": 4}}},
        {"boundaries": "announced", "arrival": {"a": {"joins": 2}}},
        {"arrival": {"a": {"joins": 3, "leaves": 3}}},
        {"kind": "blurry", "blur": 0.3},
        {"arrival": {"a": {"order": ["fraud"]}, "b": {"offset_rounds": 4, "relabel": {"lost": "stolen"}}}},
        {"arrival": {"a": {"order": ["fraud", "cards"], "joins": 3}}},
    ],
)
def test_a_stream_that_can_be_played_has_no_fault(stream: dict[str, Any]) -> None:
    assert faults_of(stream=stream) == []


def test_a_stage_called_joint_is_refused_only_where_the_word_is_taken() -> None:
    stages = [{"name": "joint"}, {"name": "x"}]
    assert len(faults_of(stage=stages, stream={"play": "joint"})) == 1
    assert faults_of(stage=stages) == []


def test_one_stage_cannot_be_blurred() -> None:
    (said,) = faults_of(stage=[CARDS], stream={"kind": "blurry", "blur": 0.5})
    assert "needs two stages or more" in said


def test_without_a_stream_there_is_nothing_wrong_with_it() -> None:
    assert faults_of() == []


# -- kinds ------------------------------------------------------------------------------------------------------------

KINDS: dict[str, tuple[str, list[Any], str]] = {
    "new labels": ("class-incremental", [["lost"], ["stolen", "phished"]], ""),
    "new labels by position": ("class-incremental", ["0:1", "1:3"], ""),
    "a label twice": ("class-incremental", [["lost", "stolen"], ["stolen"]], '"cards" and "fraud" share 1 label(s)'),
    "positions that overlap": ("class-incremental", ["0:2", "1:3"], 'the first is "stolen"'),
    "a position and its name": ("class-incremental", ["0:2", ["stolen"]], 'the first is "stolen"'),
    "the third shares with the first": ("class-incremental", ["0:1", "1:2", ["lost"]], '"cards" and "more" share 1'),
    "the third shares with the second": ("class-incremental", ["0:1", "1:2", "1:3"], '"fraud" and "more" share 1'),
    "the same labels": ("domain-incremental", ["0:2", ["stolen", "lost"]], ""),
    "no labels said": ("domain-incremental", [[], []], ""),
    "other labels": ("domain-incremental", [["lost"], ["stolen"]], 'other labels than in "cards" for stage "fraud"'),
    "all and some": ("domain-incremental", [[], ["stolen"]], 'for stage "fraud"'),
    "tasks may share labels": ("task-incremental", [["lost"], ["lost", "stolen"]], ""),
    "unchecked": ("", [["lost"], ["lost"]], ""),
}


@pytest.mark.parametrize("name", KINDS)
def test_stages_are_checked_against_the_kind_of_the_stream(name: str) -> None:
    kind, named, wanted = KINDS[name]
    said = faults_of(stage=with_labels(*named), stream={"kind": kind})
    assert len(said) == bool(wanted)
    assert wanted in "".join(said)


@pytest.mark.parametrize(
    ("named", "wanted"),
    [(["0:2", "1:3"], "number 1 of the list"), ([["lost"], ["lost"]], '"lost"'), (["0:2", ["stolen"]], "")],
)
def test_before_the_list_is_read_ranges_are_compared_with_ranges_and_names_with_names(
    named: list[Any], wanted: str
) -> None:
    task, stages = {"labels": "labels.txt"}, with_labels(*named)
    said = faults_of(task=task, stage=stages, stream={"kind": "class-incremental"})
    assert len(said) == bool(wanted)
    assert wanted in "".join(said)


def test_with_the_list_a_range_is_compared_with_names() -> None:
    stages = [StageConfig(name="cards", labels="0:2"), StageConfig(name="fraud", labels=["stolen"])]
    config = RunConfig.model_validate({"task": {"labels": "labels.txt"}, "data": {"train": "x"}})
    config = RunConfig.model_construct(**{**dict(config), "stage": stages, "stream": CLASSES})
    assert 'the first is "stolen"' in kind_faults(config, LABELS)[0]
    assert kind_faults(config, None) == []


@pytest.mark.parametrize("kind", ["class-incremental", "task-incremental"])
def test_a_task_without_labels_cannot_be_of_a_kind_about_labels(kind: str) -> None:
    (said,) = faults_of(task={"kind": "causal-lm"}, stream={"kind": kind})
    assert said == f'stream.kind = "{kind}" needs labels, and a causal-lm task has none'
    arrival = {"a": {"relabel": {"lost": "stolen"}}}
    (said,) = faults_of(task={"kind": "causal-lm"}, stream={"arrival": arrival})
    assert said.startswith('stream.arrival."a".relabel needs labels')
