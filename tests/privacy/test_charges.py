"""What each release costs, and whom; and that the forecast of a run books the very same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmchain_fl.config.read import build
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.charges import (
    at_site,
    score_charge,
    score_event,
    training_charges,
    training_event,
    training_group,
)
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.groups import EVERYBODY, HELD_OUT
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.release import Charge
from llmchain_fl.planning.forecast import calibrated_noise, forecast
from llmchain_fl.planning.work import plan_from

PERSON = PrivacyPlan(0.05, 1.5, 1.0, 20, 16.0, 1e-5, records_per_unit=8, score_noise=4.0)
DISJOINT = replace(PERSON, stages="disjoint")
RECORD = replace(PERSON, unit="record", records_per_unit=1, score_noise=0.0)
REHEARSED = replace(PERSON, stages="disjoint", rehearsal="earlier")
SITE = replace(RECORD, unit="site", sampling_rate=1.0, steps_per_round=1, divisor=3.0)


@pytest.mark.parametrize(
    ("plan", "group"),
    [(PERSON, "training"), (RECORD, "training"), (DISJOINT, "training:cards"), (SITE, "site")],
    ids=["person", "record", "disjoint", "site"],
)
def test_who_pays_for_a_training_round(plan: PrivacyPlan, group: str) -> None:
    assert training_group(plan, "cards") == group
    assert training_charges(plan, "cards")[0].group == group


@pytest.mark.parametrize("plan", [PERSON, RECORD, DISJOINT], ids=["person", "record", "disjoint"])
def test_a_training_round_at_the_site_is_its_steps_of_the_sampled_gaussian(plan: PrivacyPlan) -> None:
    """However many records a person has: the cap bounds work, not privacy."""
    assert training_event(plan) == Event("poisson-gaussian", 0.05, 1.5, 20)
    assert training_event(plan, 7) == Event("poisson-gaussian", 0.05, 1.5, 140)
    assert training_charges(plan, "cards")[0].event == training_event(replace(plan, score_noise=0.0, clip_norm=9.0))


def test_a_training_round_of_the_unit_site_is_one_release_that_nobody_hides_in() -> None:
    assert training_charges(SITE, "cards")[0] == Charge("site", Event("gaussian", 1.0, 1.5, 1))
    assert training_event(SITE, 7) == Event("gaussian", 1.0, 1.5, 7)


@pytest.mark.parametrize("plan", [PERSON, DISJOINT], ids=["shared", "disjoint"])
def test_each_noised_score_is_a_release_of_the_held_out_units(plan: PrivacyPlan) -> None:
    assert score_charge(plan, 3) == Charge(HELD_OUT, Event("gaussian", 1.0, 4.0, 3))
    assert HELD_OUT not in {training_group(plan, "a"), training_group(plan, HELD_OUT)}


@pytest.mark.parametrize("plan", [RECORD, SITE, replace(PERSON, score_noise=0.0)])
def test_a_plan_without_noise_for_scores_pays_for_none(plan: PrivacyPlan) -> None:
    with pytest.raises(PrivacyError, match="pays for no scores"):
        score_event(plan, 1)


@pytest.mark.parametrize("values", [0, -1])
def test_no_scores_cannot_be_charged(values: int) -> None:
    with pytest.raises(PrivacyError):
        score_charge(PERSON, values)


def test_no_stage_may_be_called_as_another_group_is() -> None:
    """Groups are told apart by their names alone."""
    names = [
        HELD_OUT,
        "site",
        "training",
        *(training_group(DISJOINT, stage) for stage in (HELD_OUT, "site", "training")),
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("plan", "named", "groups"),
    [
        (PERSON, True, ["notes/training"]),
        (PERSON, False, [EVERYBODY]),
        (RECORD, False, [EVERYBODY]),
        (SITE, False, [EVERYBODY]),
        (SITE, True, [EVERYBODY]),
        (REHEARSED, True, ["notes/training:c", "notes/training:a", "notes/training:b"]),
        (REHEARSED, False, [EVERYBODY]),
    ],
)
def test_a_site_books_a_round_for_the_groups_of_its_data_set_or_for_everybody_once(
    plan: PrivacyPlan, named: bool, groups: list[str]
) -> None:
    booked = at_site(training_charges(plan, "c", ["a", "b", "a"]), "notes", named)
    assert booked == tuple(Charge(group, training_event(plan)) for group in groups)


def test_charges_that_differ_stay_apart_also_where_they_come_to_one_group() -> None:
    one, two = (
        Charge("training:a", Event("gaussian", 1.0, 2.0, 1)),
        Charge("training:b", Event("gaussian", 1.0, 2.0, 2)),
    )
    assert at_site((one, two, one), "notes", named=False) == tuple(Charge(EVERYBODY, each.event) for each in (one, two))
    assert at_site((score_charge(PERSON, 3),), "notes", named=True)[0].group == "notes/held-out"


@pytest.mark.parametrize("data_set", ["", "a/b", "a b", "a\n"])
def test_a_data_set_whose_name_would_make_another_group_is_refused(data_set: str) -> None:
    with pytest.raises(PrivacyError):
        at_site(training_charges(PERSON, "c"), data_set, named=True)


@pytest.mark.parametrize(
    "privacy",
    [
        {"unit": "person"},
        {"unit": "person", "stages": "disjoint"},
        {"unit": "record"},
        {"unit": "site"},
        {"unit": "site", "clip_quantile": 0.5},
    ],
)
def test_the_forecast_books_what_the_sites_will_book(privacy: dict[str, object]) -> None:
    config = build(
        {
            "task": {"labels": ["a"]},
            "data": {"train": "x"},
            "sites": {"count": 4, "minimum": 3},
            "train": {"sampling_rate": 0.05, "steps": 6},
            "privacy": {"enabled": True, "noise_multiplier": 1.25, **privacy},
            "stage": [{"name": "a", "rounds": 2}, {"name": "b", "rounds": 3}],
        }
    )
    plan, expected = plan_from(config, calibrated_noise(config), 0.0), forecast(config)
    assert plan is not None
    assert expected is not None
    assert expected.round_event == training_event(plan)
    groups = [training_group(plan, stage) for stage, rounds in (("a", 2), ("b", 3)) for _ in range(rounds)]
    for after in range(1, 6):
        most = max(groups[:after].count(group) for group in set(groups))
        assert expected.events(after) == (training_event(plan, most),)
