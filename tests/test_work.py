from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.config.read import build
from llmchain_fl.core.errors import LlmchainError, WireError
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import GuardSpec, WorkSpec, inference, open_work
from llmchain_fl.planning.work import guard_specs, plan_from, work_from

DISTILL = (("batch", 16.0), ("data", "batch"), ("temperature", 2.0), ("weight", 1.0))
TREE = {"task": {"labels": ["a", "b"]}, "data": {"train": "x"}, "model": {"path": "m"}}


def full(small: Any) -> WorkSpec:
    """A work description with every part in it."""
    return small.work(guards=[GuardSpec("distill", DISTILL)], plan=small.plan())


def test_a_work_description_survives_json(small: Any) -> None:
    for work in (full(small), small.work(), small.work("causal-lm")):
        assert WorkSpec.from_json(work.to_json()) == work


WORDS = st.text(min_size=1, max_size=5)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3, unique_by=lambda pair: pair[0]), st.floats(0.1, 100))
def test_any_label_survives_json(small: Any, labels: list[tuple[str, str]], scale: float) -> None:
    work = replace(small.work(), task=TaskSpec("classification", "label-text", tuple(labels), scale))
    assert WorkSpec.from_json(work.to_json()) == work


def test_the_digest_follows_the_content(small: Any) -> None:
    assert full(small).digest() == full(small).digest()
    assert len({full(small).digest(), small.work().digest(), small.work(rank=4).digest()}) == 3


def _changed(small: Any, path: str, value: object) -> str:
    tree = json.loads(full(small).to_json())
    node = tree
    *parents, last = path.split(".")
    for part in parents:
        node = node[part]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.steps", "3"),
        ("train.steps", 1.5),
        ("train.steps", True),
        ("train.steps", None),
        ("train.more", 1),
        ("base.path", 7),
        ("base.code", "x"),
        ("adapter.targets", "query"),
        ("plan.noise_multiplier", "0"),
        ("plan.more", 1),
        ("plan.records_per_unit", 1.0),
        ("plan.score_noise", "0"),
        ("plan.unit", None),
        ("task.labels", {"a": "b"}),
        ("guards", "ema"),
        ("more", 1),
    ],
)
def test_a_missing_unknown_or_mistyped_field_is_refused(small: Any, path: str, value: object) -> None:
    text = _changed(small, path, value)
    if path == "plan.unit":
        found = WorkSpec.from_json(text)  # it has a default, the strictest one
        assert found == replace(full(small), plan=replace(full(small).plan, unit="person"))
        return
    with pytest.raises(WireError, match="fault"):
        WorkSpec.from_json(text)


@pytest.mark.parametrize(
    ("path", "value"),
    [("plan.noise_multiplier", -1.0), ("plan.sampling_rate", 2.0), ("plan.unit", "nobody"), ("plan.stages", "some")],
)
def test_a_plan_out_of_its_bounds_is_refused(small: Any, path: str, value: object) -> None:
    with pytest.raises(LlmchainError):
        WorkSpec.from_json(_changed(small, path, value))


@given(st.text(max_size=20))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        WorkSpec.from_json(text)


def test_a_refusal_does_not_quote_what_it_refuses(small: Any) -> None:
    with pytest.raises(WireError) as caught:
        WorkSpec.from_json(_changed(small, "base.path", ["canary"]))
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_inference_has_no_guard_and_no_plan_and_the_same_resident(small: Any) -> None:
    work = full(small)
    assert (inference(work).guards, inference(work).plan) == ((), None)
    assert inference(work).resident == work.resident


def test_a_configuration_becomes_work(small: Any) -> None:
    config = build(
        {
            **TREE,
            "seed": 9,
            "adapter": {"targets": ["query"], "rank": 4},
            "train": {"steps": 5, "batch_size": 7},
            "continual": {"guards": ["distill", "ema"]},
        }
    )
    work = work_from(config, {"a": "x", "b": "y"}, ("lora_B",), None)
    assert work.task.labels == (("a", "x"), ("b", "y"))
    assert (work.adapter.targets, work.adapter.trained, work.adapter.seed) == (("query",), ("lora_B",), 9)
    assert work.guards == (GuardSpec("distill", DISTILL),)  # ema has no half at a site: nothing of it travels
    assert guard_specs(config) == (GuardSpec("distill", DISTILL), GuardSpec("ema", (("decay", 0.7),)))
    assert WorkSpec.from_json(work.to_json()) == work


def test_the_plan_and_the_loop_are_made_of_the_same_numbers() -> None:
    config = build(
        {
            **TREE,
            "privacy": {"enabled": True, "epsilon": 3.0, "clip_norm": 0.5},
            "train": {"sampling_rate": 0.2, "steps": 4},
        }
    )
    plan, work = plan_from(config, 1.25, 3.5), work_from(config, {}, (), None)
    assert plan is not None
    assert (plan.sampling_rate, plan.steps_per_round, plan.divisor) == (
        work.train.sampling_rate,
        work.train.steps,
        work.train.batch_size,
    )
    assert (plan.noise_multiplier, plan.clip_norm, plan.delta) == (1.25, 0.5, 1e-5)
    assert (plan.unit, plan.records_per_unit, plan.stages, plan.score_noise) == ("person", 8, "shared", 3.5)


@pytest.mark.parametrize(
    ("privacy", "found"),
    [
        ({"unit": "person", "records_per_person": 3}, ("person", 3, "shared")),
        ({"unit": "person", "stages": "disjoint"}, ("person", 8, "disjoint")),
        ({"unit": "record", "records_per_person": 3}, ("record", 1, "shared")),
    ],
)
def test_the_unit_and_how_stages_add_up_are_those_of_the_configuration(
    privacy: dict[str, Any], found: tuple[str, int, str]
) -> None:
    plan = plan_from(build({**TREE, "privacy": {"enabled": True, "epsilon": 3.0, **privacy}}), 1.0, 0.0)
    assert plan is not None
    assert (plan.unit, plan.records_per_unit, plan.stages) == found


def test_with_the_unit_site_a_round_is_one_release_of_at_least_the_minimum_of_sites() -> None:
    sites, loop = {"count": 5, "minimum": 3}, {"sampling_rate": 0.2, "steps": 4}
    privacy = {"enabled": True, "epsilon": 3.0, "unit": "site", "clip_norm": 0.5}
    plan = plan_from(build({**TREE, "privacy": privacy, "sites": sites, "train": loop}), 1.25, 0.0)
    assert plan is not None
    assert (plan.sampling_rate, plan.steps_per_round, plan.divisor, plan.records_per_unit) == (1.0, 1, 3.0, 1)
    assert (plan.noise_multiplier, plan.clip_norm) == (1.25, 0.5)


def test_no_privacy_no_plan() -> None:
    assert plan_from(build(TREE), 1.0, 2.0) is None


def test_a_task_that_is_opened_again_has_its_own_start_of_the_head(small: Any) -> None:
    """Two label lists of one size share the model in memory."""
    first = small.work(head="trained")
    other = replace(first, task=replace(first.task, labels=tuple((name, "fee why") for name, _ in first.task.labels)))
    starts = []
    for work in (first, other, first):
        resident, _ = open_work(work.resident, work.task)
        resident.reset()
        starts.append(resident.arrays()["head.weight"])
    assert np.array_equal(starts[0], starts[2])
    assert not np.array_equal(starts[0], starts[1])
