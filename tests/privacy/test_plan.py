from __future__ import annotations

import hashlib
import json
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.plan import MIN_CLIP_NORM, MOST_RECORDS, PrivacyPlan
from llmchain_fl.privacy.plan_file import saved_plan

PLAN = PrivacyPlan(
    sampling_rate=0.05, noise_multiplier=1.5, clip_norm=0.5, steps_per_round=20, divisor=16.0, delta=1e-5
)

KINDS = [
    {"unit": "person", "stages": "disjoint", "records_per_unit": 7, "score_noise": 2.5},
    {"unit": "person", "stages": "shared", "records_per_unit": MOST_RECORDS},
    {"unit": "record"},
    {"unit": "site", "sampling_rate": 1.0, "steps_per_round": 1},
]


@st.composite
def some_plans(draw: st.DrawFn) -> PrivacyPlan:
    numbers = {
        "sampling_rate": draw(st.floats(min_value=0, max_value=1, exclude_min=True)),
        "noise_multiplier": draw(st.floats(min_value=0, max_value=1e6)),
        "clip_norm": draw(st.floats(min_value=MIN_CLIP_NORM, max_value=1e6)),
        "steps_per_round": draw(st.integers(min_value=1, max_value=10**9)),
        "divisor": draw(st.floats(min_value=1e-3, max_value=1e9)),
        "delta": draw(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True)),
    }
    return PrivacyPlan(**{**numbers, **draw(st.sampled_from(KINDS))})


plans = some_plans()


def test_the_noise_is_stated_for_the_sum_before_the_division() -> None:
    assert PLAN.noise_std == 1.5 * 0.5
    assert replace(PLAN, divisor=1000.0).noise_std == PLAN.noise_std


def test_a_plan_without_noise_is_allowed_but_not_private() -> None:
    assert PLAN.is_private
    assert not replace(PLAN, noise_multiplier=0).is_private


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        PLAN.noise_multiplier = 0.0  # type: ignore[misc]


@given(plans)
def test_a_plan_survives_a_message_and_keeps_its_digest(plan: PrivacyPlan) -> None:
    sent = json.loads(json.dumps(plan.to_dict()))
    assert saved_plan(sent) == plan
    assert saved_plan(sent).digest() == plan.digest()


def test_only_scalars_travel() -> None:
    assert {type(value) for value in PLAN.to_dict().values()} == {str, int, float}


def test_the_digest_is_sha256_of_sorted_json_without_spaces() -> None:
    text = (
        '{"adjacency":"add-or-remove-one","clip_norm":0.5,"delta":1e-05,"divisor":16.0,"grid":0,"members":1,'
        '"noise_multiplier":1.5,"records_per_unit":1,"rehearsal":"none","sampling_rate":0.05,"score_noise":0.0,"shares":1,"stages":"shared",'
        '"steps_per_round":20,"unit":"person"}'
    )
    assert PLAN.digest() == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling_rate", 0.06),
        ("noise_multiplier", 1.6),
        ("clip_norm", 0.6),
        ("steps_per_round", 21),
        ("divisor", 17.0),
        ("delta", 1e-6),
        ("unit", "record"),
        ("records_per_unit", 2),
        ("stages", "disjoint"),
        ("score_noise", 1.0),
    ],
)
def test_every_field_is_in_the_digest(field: str, value: object) -> None:
    assert replace(PLAN, **{field: value}).digest() != PLAN.digest()  # type: ignore[arg-type]


def test_whole_numbers_and_numpy_scalars_give_the_same_digest_as_plain_floats() -> None:
    plain = replace(PLAN, noise_multiplier=2.0)
    assert replace(PLAN, noise_multiplier=2).digest() == plain.digest()
    same = replace(PLAN, noise_multiplier=np.float64(2), steps_per_round=np.int64(20))  # type: ignore[arg-type]
    assert same.digest() == plain.digest()
    assert {type(value) for value in same.to_dict().values()} == {str, int, float}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling_rate", 0.0),
        ("sampling_rate", 1.0001),
        ("sampling_rate", math.nan),
        ("sampling_rate", True),
        ("noise_multiplier", -0.1),
        ("noise_multiplier", math.inf),
        ("noise_multiplier", "1.0"),
        ("clip_norm", 0.0),
        ("clip_norm", math.inf),
        ("steps_per_round", 0),
        ("steps_per_round", 2.5),
        ("steps_per_round", True),
        ("divisor", 0.0),
        ("divisor", math.nan),
        ("delta", 0.0),
        ("delta", 1.0),
        ("unit", "household"),
        ("unit", "Person"),
        ("unit", 3),
        ("unit", None),
        ("adjacency", "replace-one"),
        ("stages", "some"),
        ("stages", True),
        ("records_per_unit", 0),
        ("records_per_unit", 1.0),
        ("records_per_unit", MOST_RECORDS + 1),
        ("records_per_unit", True),
        ("score_noise", -1.0),
        ("score_noise", math.inf),
        ("score_noise", "2"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(PrivacyError, match=f"1 fault:\n  \\* {field} is "):
        replace(PLAN, **{field: value})  # type: ignore[arg-type]


def test_all_faults_are_listed_at_once() -> None:
    with pytest.raises(PrivacyError) as caught:
        replace(PLAN, sampling_rate=2.0, clip_norm=-1.0, steps_per_round=0, unit="household")
    for name in (
        "4 faults",
        "sampling_rate is 2.0",
        "clip_norm is -1.0",
        "steps_per_round is 0",
        "unit is 'household'",
    ):
        assert name in str(caught.value)


def test_missing_and_foreign_fields_of_a_message_are_refused() -> None:
    values: dict[str, object] = {**PLAN.to_dict(), "number_of_records": 17}
    del values["delta"]
    with pytest.raises(PrivacyError, match="2 faults") as caught:
        saved_plan(values)
    assert "delta is missing" in str(caught.value)
    assert "number_of_records is not a field" in str(caught.value)


@pytest.mark.parametrize("unit", ["person", "record", "site"])
def test_each_unit_has_a_plan(unit: str) -> None:
    changes = {"sampling_rate": 1, "steps_per_round": 1} if unit == "site" else {}
    assert replace(PLAN, unit=unit, **changes).unit == unit  # type: ignore[arg-type]


def test_without_a_word_the_unit_is_a_person_and_all_stages_add_up() -> None:
    assert (PLAN.unit, PLAN.stages, PLAN.records_per_unit, PLAN.score_noise) == ("person", "shared", 1, 0.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unit": "record", "records_per_unit": 2}, "records_per_unit is 2, must be 1 for the unit record"),
        ({"unit": "record", "stages": "disjoint"}, "need the unit person: only persons can be told apart"),
        ({"unit": "record", "score_noise": 1.0}, "need the unit person"),
        ({"unit": "site", "steps_per_round": 1, "sampling_rate": 1.0, "stages": "disjoint"}, "need the unit person"),
        ({"unit": "site", "steps_per_round": 1, "sampling_rate": 1.0, "score_noise": 1.0}, "need the unit person"),
        ({"unit": "site", "steps_per_round": 1}, "must be 1 for the unit site: one round, one release"),
        ({"unit": "site", "sampling_rate": 1.0}, "must be 1 for the unit site: one round, one release"),
    ],
)
def test_fields_that_are_right_one_by_one_and_wrong_together_are_one_fault(
    changes: dict[str, object], words: str
) -> None:
    with pytest.raises(PrivacyError, match="1 fault:") as caught:
        replace(PLAN, **changes)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_faults_of_single_fields_and_of_fields_together_are_listed_at_once() -> None:
    with pytest.raises(PrivacyError, match="4 faults") as caught:
        replace(PLAN, unit="record", records_per_unit=2, stages="disjoint", delta=2.0, score_noise=-1.0)
    for words in ("delta is 2.0", "score_noise is -1.0", "records_per_unit is 2", "only persons can be told apart"):
        assert words in str(caught.value)


def test_a_message_without_the_new_fields_is_refused() -> None:
    """A plan of an older server says nothing about units of several records: it is not filled in by guessing."""
    old = {k: v for k, v in PLAN.to_dict().items() if k not in ("records_per_unit", "stages", "score_noise")}
    with pytest.raises(PrivacyError, match="3 faults"):
        saved_plan(old)


@pytest.mark.parametrize(
    ("trusted", "listed", "counted"),
    [
        (9, 10, 7),  # all others: m - 1
        (20, 10, 7),
        (5, 10, 3),  # two of the five may have dropped out
        (2, 10, 0),
        (0, 10, 0),
        (9, 20, 0),  # ten more may be in a sum, and none of the nine
        (19, 20, 7),
        (4, 5, 7),  # five sites never are a sum of eight
    ],
)
def test_counted_shares_are_those_that_every_choice_of_members_leaves(trusted: int, listed: int, counted: int) -> None:
    """By trying every sum of m out of the listed sites, this one among them; the worst one counts."""
    plan = replace(PLAN, steps_per_round=1, shares=8, members=10, grid=12)
    if listed >= plan.shares:
        others = listed - 1
        untold = min(trusted, others)
        worst = max(0, (plan.shares - 1) - (others - untold))
        assert counted == worst
    assert plan.counted(trusted, listed) == counted
