"""The gate lets no worse adapter through, and hardly ever keeps an equal one out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from llmchain_fl.hub.manifest import Manifest
from llmchain_fl.promote.answers import Answers, Probed, answers_of
from llmchain_fl.promote.bootstrap import fall, miscalibration, paired_bound
from llmchain_fl.promote.edits import edited, speakers
from llmchain_fl.promote.gate import Verdict, compared, promised, related
from llmchain_fl.promote.policy import Policy

LABELS, RECORDS = 10, 1000
POLICY = Policy.model_validate(
    {"draws": 200, "probe": [{"name": "new", "data": "x"}, {"name": "old", "data": "x", "old": True}]}
)


def logits_of(draw: np.random.Generator, targets: Any) -> Any:
    """A classifier that is right for about nine of ten."""
    found = draw.normal(size=(len(targets), LABELS))
    found[np.arange(len(targets)), targets] += draw.normal(3.6, 1.5, len(targets))
    return found


def chances(logits: Any) -> Any:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def pair(seed: int, *, rotated: bool) -> tuple[Probed, Probed]:
    """(candidate, current). Both see each record nearly alike; of a worse one, a class of ten is mistaken."""
    draw = np.random.default_rng(seed)
    sets: tuple[dict[str, Answers], dict[str, Answers]] = ({}, {})
    edits: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    flips: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name in ("new", "old"):
        targets = draw.integers(0, LABELS, RECORDS)
        plain = logits_of(draw, targets)
        for place in (0, 1):
            found = chances(plain + draw.normal(0, 0.25, plain.shape))
            changed = chances(plain + draw.normal(0, 0.6, plain.shape))
            if rotated and place == 0:
                found, changed = _rotated(found), _rotated(changed)
            sets[place][name] = answers_of(found, targets)
            edits[place][name] = answers_of(changed, targets).scores
            flips[place][name] = (draw.random(RECORDS) < 0.04).astype(float)
    return Probed(sets[0], edits[0], flips[0]), Probed(sets[1], edits[1], flips[1])


def _rotated(chances: Any) -> Any:
    """Whoever answered the first of ten labels answers the second."""
    mixed = chances.copy()
    hit = chances.argmax(axis=1) == 0
    mixed[hit, 0], mixed[hit, 1] = chances[hit, 1], chances[hit, 0]
    return mixed


def test_a_planted_worse_adapter_never_passes_and_an_equal_one_passes_in_eighteen_of_twenty() -> None:
    worse = [all(check.passed for check in compared(*pair(seed, rotated=True), POLICY)) for seed in range(20)]
    equal = [all(check.passed for check in compared(*pair(seed, rotated=False), POLICY)) for seed in range(20)]
    assert sum(worse) == 0
    assert sum(equal) >= 18


def test_forgetting_one_old_stage_is_enough_to_fail() -> None:
    candidate, current = pair(1, rotated=False)
    forgot, _ = pair(1, rotated=True)
    mixed = Probed({**candidate.sets, "old": forgot.sets["old"]}, candidate.edited, candidate.flips)
    failed = [check.name for check in compared(mixed, current, POLICY) if not check.passed]
    assert "score old" in failed
    assert "score new" not in failed


def test_an_adapter_against_itself_passes_with_nothing_to_spare() -> None:
    _, current = pair(2, rotated=False)
    strict = POLICY.model_copy(
        update={"worse": 0.0, "worse_old": 0.0, "calibration": 0.0, "robustness": 0.0, "bias": 0.0}
    )
    found = compared(current, current, strict)
    assert all(check.passed for check in found)
    assert {check.name for check in found} == {
        "records", "score new", "score old", "calibration", "robustness", "bias"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["calibration", "robustness", "bias"])
def test_each_kind_of_harm_is_found_by_its_own_check(name: str) -> None:
    candidate, current = pair(3, rotated=False)
    sets, edits, flips = dict(candidate.sets), dict(candidate.edited), dict(candidate.flips)
    if name == "calibration":
        sets = {key: Answers(one.scores, np.ones_like(one.sure), one.right * 0) for key, one in sets.items()}
        sets = {key: Answers(candidate.sets[key].scores, one.sure, one.right) for key, one in sets.items()}
    if name == "robustness":
        edits = {key: value * 0.5 for key, value in edits.items()}
    if name == "bias":
        flips = {key: np.maximum(value, np.arange(RECORDS) % 8 == 0) for key, value in flips.items()}
    assert [c.name for c in compared(Probed(sets, edits, flips), current, POLICY) if not c.passed] == [name]


def test_too_few_records_show_nothing() -> None:
    few = {"new": Answers(np.ones(50), np.ones(50), np.ones(50))}
    found = compared(Probed(few, {}, {}), Probed(few, {}, {}), POLICY)
    assert [check.name for check in found if not check.passed] == ["records"]
    assert not Verdict("a", "b", ()).passed, "a verdict without a check is none"


def test_two_adapters_that_were_asked_other_things_are_not_compared() -> None:
    one, other = Answers(np.ones(300), np.ones(0), np.ones(0)), Answers(np.ones(299), np.ones(0), np.ones(0))
    with pytest.raises(ValueError, match="other things"):
        compared(Probed({"new": one}, {}, {}), Probed({"new": other}, {}, {}), POLICY)


def test_the_bound_is_the_one_of_scipys_bootstrap() -> None:
    draw = np.random.default_rng(5)
    new, old = (draw.random(300) < 0.8).astype(float), (draw.random(300) < 0.82).astype(float)
    found = paired_bound(fall(new, old), 300, level=0.95, draws=2000, seed=1)
    theirs = bootstrap(
        (old - new,), np.mean, method="percentile", alternative="less", confidence_level=0.95, n_resamples=2000, rng=2
    )
    assert found.worse == pytest.approx(float(np.mean(old - new)))
    assert found.at_most == pytest.approx(theirs.confidence_interval.high, abs=0.008)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40), st.integers(0, 99))
def test_the_bound_is_never_below_what_was_measured(values: list[float], seed: int) -> None:
    scores = np.array(values)
    found = paired_bound(fall(scores, scores[::-1].copy()), len(scores), level=0.9, draws=200, seed=seed)
    assert found.at_most >= found.worse
    same = paired_bound(fall(scores, scores), len(scores), level=0.9, draws=200, seed=seed)
    assert (same.worse, same.at_most) == (0.0, 0.0)


def test_no_record_and_a_statistic_without_a_value_pass_no_bound() -> None:
    assert paired_bound(lambda index: np.zeros(len(index)), 0, level=0.9, draws=200, seed=1).at_most == math.inf
    lost = np.full(5, math.nan)
    assert paired_bound(lambda index: lost[index].mean(axis=-1), 5, level=0.9, draws=200, seed=1).at_most == math.inf


@pytest.mark.parametrize(
    ("sure", "right", "expected"),
    [
        ([1.0] * 30, [1.0] * 30, 0.0),
        ([1.0] * 30, [0.0] * 30, 1.0),
        ([0.5] * 60, [0.0, 1.0] * 30, 0.0),
        ([0.7], [1.0], 0.3),
    ],
)
def test_each_row_of_the_table_of_miscalibration(sure: list[float], right: list[float], expected: float) -> None:
    assert miscalibration(np.array(sure), np.array(right)) == pytest.approx(expected)


def card(epsilon: float | None = 8.0, delta: float = 1e-5, unit: str = "person") -> dict[str, Any]:
    if epsilon is None:
        return {"privacy": {"private": False, "promise": "none", "epsilon": None, "delta": None, "unit": ""}}
    told = {"private": True, "promise": "told", "unit": unit}
    return {"privacy": {**told, "epsilon": {"value": epsilon}, "delta": {"value": delta}}}


@pytest.mark.parametrize(
    ("told", "passes"),
    [(card(7.9), True), (card(8.1), False), (card(1.0, delta=1e-3), False), (card(1.0, unit="record"), False),
     (card(1.0, unit="site"), True), (card(None), False)],
)  # fmt: skip
def test_a_promise_is_within_the_policy_with_its_delta_and_its_unit(told: Any, passes: bool) -> None:
    policy = POLICY.model_copy(update={"epsilon": 8.0})
    assert [check.passed for check in promised(told, {}, policy)] == [passes]


@pytest.mark.parametrize(
    ("gate", "passes"),
    [
        ({}, False),
        ({"findings": []}, False),
        ({"findings": [{"name": "noise", "passed": True}]}, False),
        ({"findings": [{"name": "noise", "passed": True}], "membership": {"broken": False}}, True),
        ({"findings": [{"name": "noise", "passed": True}], "membership": {"broken": True}}, False),
        ({"findings": [{"name": "noise", "passed": False}], "membership": {"broken": False}}, False),
    ],
)
def test_membership_asks_for_the_gate_and_for_the_attack(gate: Any, passes: bool) -> None:
    policy = POLICY.model_copy(update={"membership": True})
    assert [check.passed for check in promised(card(), gate, policy)] == [passes]


def manifest(**changes: Any) -> Manifest:
    told = {"name": "bank", "version": 1, "publisher": "p", "issued": "", "made_by": "", "base_name": "b"}
    return Manifest(**{**told, "base_digest": "d", "content": "c", "parent": "", "files": {}, **changes})


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, []),
        ({"parent": "0" * 64}, ["lineage"]),
        ({"publisher": "q"}, ["publisher"]),
        ({"base_digest": "e"}, ["base"]),
    ],
)
def test_a_candidate_is_a_child_of_the_same_publisher_on_the_same_base(changes: Any, failed: list[str]) -> None:
    current = manifest()
    child = manifest(**{"version": 2, "parent": current.address, **changes})
    assert [check.name for check in related(child, current) if not check.passed] == failed
    assert all(check.passed for check in related(child, None))


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(max_size=30), max_size=6), st.integers(0, 9))
def test_edits_and_speakers_are_the_same_on_every_machine_and_do_not_depend_on_neighbours(
    texts: list[str], seed: int
) -> None:
    assert edited(texts, seed) == edited(texts, seed)
    assert edited(texts[:1], seed) == edited(texts, seed)[:1]
    first, second = speakers(texts, seed)
    assert all(
        one.endswith(text) and other.endswith(text) and one != other
        for one, other, text in zip(first, second, texts, strict=True)
    )
    assert all(
        abs(len(new) - len(old)) <= max(12, len(old)) for new, old in zip(edited(texts, seed), texts, strict=True)
    )
