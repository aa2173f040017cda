"""What a classification gets that names no way to train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.config.read import build, parse
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.usual import CHOICES, with_usual
from llmchain_fl.core.errors import ConfigError

DATA = {"train": "a.csv", "test": "b.csv"}
PRIVATE = {"enabled": True, "epsilon": 3.0}
NEW_LABELS: Mapping[str, Any] = {
    "stream": {"kind": "class-incremental"},
    "stage": [{"name": "one", "labels": ["a", "b"]}, {"name": "two", "labels": ["c", "d"]}],
}
CHOSEN: Mapping[str, Any] = {
    "train.method": "local",
    "train.steps": 3,
    "train.proximal": 0.1,
    "task.head": "label-text",
    "aggregation.rule": "ffa",
    "aggregation.optimizer": "adam",
    "aggregation.robust": "median",
    "aggregation.weights": [1.0, 2.0, 1.0],
    "aggregation.personal_head": True,
    "continual.guards": ["ema"],
    "compression.up": "int8",
    "sites.cohort": 2,
    "privacy.clip_quantile": 0.5,
    "stream.play": "joint",
    "adapter": {"rank": 4},
}


def run(sites: int = 3, **sections: Any) -> RunConfig:
    return build({"task": {"labels": ["a", "b", "c", "d"]}, "data": DATA, "sites": {"count": sites}, **sections})


def test_a_private_classification_gets_a_head_in_lockstep_under_noise_on_the_sum() -> None:
    got = run(privacy=PRIVATE)
    assert (got.train.method, got.train.steps, got.task.head) == ("lockstep", 1, "trained")
    assert (got.secure.sum, got.privacy.noise, got.aggregation.rule) == (True, "sum", "head-only")
    assert (got.train.sampling_rate, got.train.lr, got.stage[0].rounds) == (1.0, 0.01, 30)
    assert got.continual.guards == []


def test_two_sites_have_no_sum_to_hide_in_and_each_adds_its_own_noise() -> None:
    got = run(sites=2, privacy=PRIVATE)
    assert (got.train.method, got.secure.sum, got.privacy.noise) == ("lockstep", False, "site")


def test_a_private_stream_of_new_labels_is_masked_to_the_labels_of_its_stage() -> None:
    got = run(privacy=PRIVATE, **NEW_LABELS)
    assert (got.continual.guards, got.train.sums) == (["mask"], 0.25)
    assert run(privacy=PRIVATE).train.sums == 0
    assert [stage.rounds for stage in got.stage] == [30, 30]


@pytest.mark.parametrize("sites", [2, 3])
def test_a_stream_of_new_labels_without_privacy_gets_heads_in_closed_form(sites: int) -> None:
    got = run(sites=sites, **NEW_LABELS)
    assert (got.train.method, got.task.head, got.secure.sum) == ("closed-form", "trained", sites >= 3)
    assert got.task.features > 0
    stages = [{**stage, "rounds": 4} for stage in NEW_LABELS["stage"]]
    for told in (got, run(**{**NEW_LABELS, "stage": stages})):
        assert [stage.rounds for stage in told.stage] == [1, 1]


def test_other_classifications_without_privacy_train_an_adapter_locally() -> None:
    for got in (run(), run(stage=NEW_LABELS["stage"]), run(stream={"kind": "domain-incremental"})):
        assert (got.train.method, got.aggregation.rule, got.task.head) == ("local", "ffa", "label-text")


@pytest.mark.parametrize("kind", ["causal-lm", "plain-text"])
def test_only_classifiers_have_a_head_to_train_alone(kind: str) -> None:
    told = {"task": {"kind": kind}, "privacy": PRIVATE, "data": DATA}
    assert with_usual(told) == told


def test_the_unit_site_has_no_persons_whose_gradients_could_be_summed() -> None:
    told = {"privacy": {**PRIVATE, "unit": "site"}, "data": DATA}
    assert with_usual(told) == told


def test_every_choice_is_tried_here() -> None:
    assert set(CHOSEN) == set(CHOICES)


@pytest.mark.parametrize("key", CHOICES)
@pytest.mark.parametrize("private", [True, False])
def test_who_names_a_way_to_train_gets_no_other(key: str, private: bool) -> None:
    section, _, name = key.partition(".")
    told: dict[str, Any] = {**NEW_LABELS, "data": DATA, "privacy": {"enabled": private}}
    told[section] = {**told.get(section, {}), name: CHOSEN[key]} if name else CHOSEN[key]
    assert with_usual(told) == told


def test_no_guards_is_no_choice_of_a_method_and_leaves_none() -> None:
    got = run(privacy=PRIVATE, continual={"guards": []}, **NEW_LABELS)
    assert (got.train.method, got.continual.guards, got.train.sums) == ("lockstep", [], 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"train": {"method": "local", "sums": 0.2}},
        {"aggregation": {"rule": "ffa"}},
        {"continual": {"guards": ["mask", "ema"]}},
        {"continual": {"guards": []}},
    ],
    ids=str,
)
def test_sums_by_label_are_refused_where_rounds_cannot_be_of_them(changed: dict[str, Any]) -> None:
    good = {"train": {"method": "lockstep", "sums": 0.2}, "aggregation": {"rule": "head-only"}}
    told = {**good, "task": {"labels": ["a", "b", "c", "d"], "head": "trained"}, "data": DATA, **NEW_LABELS}
    told["continual"] = {"guards": ["mask"]}
    assert build(told).train.sums == 0.2
    with pytest.raises(ConfigError, match=r"train\.sums starts the rows of a head"):
        build({**told, **changed})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("train", "lr", 0.5),
        ("train", "sampling_rate", 0.2),
        ("secure", "survivors", 3),
        ("privacy", "clip_norm", 0.5),
        ("task", "scale", 10.0),
    ],
)
def test_what_is_given_stays(section: str, key: str, value: float) -> None:
    told: dict[str, Any] = {"task": {"labels": ["a", "b"]}, "privacy": dict(PRIVATE), "stage": [{"rounds": 7}]}
    told[section] = {**told.get(section, {}), key: value}
    got = run(**told)
    assert got.train.method == "lockstep"
    assert getattr(getattr(got, section), key) == value
    assert got.stage[0].rounds == 7


ODD = st.none() | st.booleans() | st.integers(-2, 5) | st.text(max_size=3) | st.lists(st.integers(0, 2), max_size=2)
TREE = st.recursive(
    ODD, lambda inner: st.dictionaries(st.sampled_from(["count", "enabled", "kind", "x"]), inner), max_leaves=4
)


@given(st.dictionaries(st.sampled_from(["task", "train", "privacy", "sites", "stream", "stage", "secure"]), TREE))
def test_whatever_stands_in_a_file_is_left_to_who_says_what_is_wrong_with_it(told: dict[str, Any]) -> None:
    for key, value in with_usual(told).items():
        if key in told and not isinstance(told[key], Mapping | list):
            assert value == told[key]


def test_what_was_filled_in_is_written_down_and_read_again_as_it_is() -> None:
    got = run(privacy=PRIVATE, **NEW_LABELS)
    assert parse(got.model_dump()) == got
