from __future__ import annotations

import hashlib
import json
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.errors import PrivacyError
from llmchain_fl.privacy.plan import MIN_CLIP_NORM, PrivacyPlan

PLAN = PrivacyPlan(
    sampling_rate=0.05, noise_multiplier=1.5, clip_norm=0.5, steps_per_round=20, divisor=16.0, delta=1e-5
)

plans = st.builds(
    PrivacyPlan,
    sampling_rate=st.floats(min_value=0, max_value=1, exclude_min=True),
    noise_multiplier=st.floats(min_value=0, max_value=1e6),
    clip_norm=st.floats(min_value=MIN_CLIP_NORM, max_value=1e6),
    steps_per_round=st.integers(min_value=1, max_value=10**9),
    divisor=st.floats(min_value=1e-3, max_value=1e9),
    delta=st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True),
)


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
    assert PrivacyPlan.from_dict(sent) == plan
    assert PrivacyPlan.from_dict(sent).digest() == plan.digest()


def test_only_scalars_travel() -> None:
    assert {type(value) for value in PLAN.to_dict().values()} == {str, int, float}


def test_the_digest_is_sha256_of_sorted_json_without_spaces() -> None:
    text = (
        '{"adjacency":"add-or-remove-one","clip_norm":0.5,"delta":1e-05,"divisor":16.0,'
        '"noise_multiplier":1.5,"sampling_rate":0.05,"steps_per_round":20,"unit":"record"}'
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
    ],
)
def test_every_field_is_in_the_digest(field: str, value: float) -> None:
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
        ("unit", "person"),
        ("unit", 3),
        ("adjacency", "replace-one"),
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
        PrivacyPlan.from_dict(values)
    assert "delta is missing" in str(caught.value)
    assert "number_of_records is not a field" in str(caught.value)
