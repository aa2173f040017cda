from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.config.read import build
from llmchain_fl.errors import LlmchainError, WireError
from llmchain_fl.tasks.spec import TaskSpec
from llmchain_fl.work import GuardSpec, WorkSpec, inference, plan_from, work_from

TREE = {"task": {"labels": ["a", "b"]}, "data": {"train": "x"}, "model": {"path": "m"}}


def full(small: Any) -> WorkSpec:
    """A work description with every part in it."""
    return small.work(guards=[GuardSpec("distill", (("temperature", 2.0), ("weight", 1.0)))], plan=small.plan())


def test_a_work_description_survives_json(small: Any) -> None:
    for work in (full(small), small.work(), small.work("causal-lm")):
        assert WorkSpec.from_json(work.to_json()) == work


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3), st.floats(0.1, 100))
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
        ("plan.unit", None),
        ("task.labels", {"a": "b"}),
        ("guards", "ema"),
        ("more", 1),
    ],
)
def test_a_missing_unknown_or_mistyped_field_is_refused(small: Any, path: str, value: object) -> None:
    text = _changed(small, path, value)
    if path == "plan.unit":
        assert WorkSpec.from_json(text) == full(small)  # it has a default
        return
    with pytest.raises(WireError, match="fault"):
        WorkSpec.from_json(text)


@pytest.mark.parametrize(
    ("path", "value"), [("plan.noise_multiplier", -1.0), ("plan.sampling_rate", 2.0), ("plan.unit", "nobody")]
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
    assert work.guards == (
        GuardSpec("distill", (("temperature", 2.0), ("weight", 1.0))),
        GuardSpec("ema", (("decay", 0.7),)),
    )
    assert WorkSpec.from_json(work.to_json()) == work


def test_the_plan_and_the_loop_are_made_of_the_same_numbers() -> None:
    config = build(
        {
            **TREE,
            "privacy": {"enabled": True, "epsilon": 3.0, "clip_norm": 0.5},
            "train": {"sampling_rate": 0.2, "steps": 4},
        }
    )
    plan, work = plan_from(config, 1.25), work_from(config, {}, (), None)
    assert plan is not None
    assert (plan.sampling_rate, plan.steps_per_round, plan.divisor) == (
        work.train.sampling_rate,
        work.train.steps,
        work.train.batch_size,
    )
    assert (plan.noise_multiplier, plan.clip_norm, plan.delta) == (1.25, 0.5, 1e-5)


def test_no_privacy_no_plan() -> None:
    assert plan_from(build(TREE), 1.0) is None
