"""Rounds of a site over its life: who takes part, what it costs, and what the server keeps for the site."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import client.rounds
from client.site import SiteLimits
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.receipt import CHARACTERS
from llmchain_fl.replies import Refusal, Scores, read_reply

STEPS = 3


def refused(content: Any) -> str:
    reply = read_reply(content)
    assert isinstance(reply, Refusal), reply
    return reply.code


def rounds_cost(rounds: int) -> float:
    return epsilon([Event("poisson-gaussian", 1.0, 3.0, STEPS * rounds)], 1e-5)


# -- persons and stages -----------------------------------------------------------------------------------------------


def test_with_shared_stages_a_person_may_be_in_all_of_them_and_the_rounds_add_up(hospital: Any) -> None:
    work = hospital.person_work()
    for number, (stage, records) in enumerate([("cards", 4), ("loans", 5), ("cards", 4)], start=1):
        hospital.play(work, number, stage)
        assert hospital.trained_on() == records
    assert hospital.reserved() == [("ward/training", "poisson-gaussian", STEPS)] * 3
    assert hospital.spent().epsilon == rounds_cost(3)


def test_with_disjoint_stages_a_person_of_the_first_is_left_out_of_the_second(hospital: Any) -> None:
    """ann has three of the five records of ``loans``."""
    work = hospital.person_work(stages="disjoint")
    hospital.play(work, 1, "cards")
    assert hospital.trained_on() == 4
    hospital.play(work, 2, "loans")
    assert hospital.trained_on() == 2
    hospital.restart()
    hospital.play(work, 3, "loans")
    assert hospital.trained_on() == 2
    hospital.play(work, 4, "cards")
    assert hospital.trained_on() == 4


def test_with_disjoint_stages_the_first_stage_that_meets_a_person_keeps_it_whatever_it_is_called(hospital: Any) -> None:
    work = hospital.person_work(stages="disjoint")
    hospital.play(work, 1, "loans")
    assert hospital.trained_on() == 5
    hospital.play(work, 2, "cards")
    assert hospital.trained_on() == 2


def test_with_disjoint_stages_the_largest_stage_is_what_was_spent(hospital: Any) -> None:
    work = hospital.person_work(stages="disjoint")
    course = [("cards", 1), ("loans", 1), ("loans", 2), ("cards", 2), ("cards", 3)]
    for number, (stage, most) in enumerate(course, start=1):
        hospital.play(work, number, stage)
        assert hospital.spent().epsilon == rounds_cost(most)
    assert [(group, [event.steps for event in events]) for group, events in hospital.spent().groups] == [
        ("ward/training:cards", [STEPS * 3]),
        ("ward/training:loans", [STEPS * 2]),
    ]


def test_a_limit_that_shared_stages_pass_is_kept_by_disjoint_ones(hospital: Any) -> None:
    hospital.limits = SiteLimits(epsilon=rounds_cost(1) * 1.01)
    disjoint = hospital.person_work(stages="disjoint")
    hospital.play(disjoint, 1, "cards")
    hospital.play(disjoint, 2, "loans")
    before = hospital.events()
    assert refused(hospital.train(disjoint, round=3, stage_name="loans")) == "budget"
    assert hospital.events() == before
    assert len(hospital.watched) == 2


@pytest.mark.parametrize("order", [("shared", "disjoint"), ("disjoint", "shared")])
def test_a_person_of_a_run_over_shared_stages_and_of_a_disjoint_one_pays_for_both(
    hospital: Any, order: tuple[str, str]
) -> None:
    """Counted as two groups of which the larger one counts, one would hide what the other one spent."""
    for number, stages in enumerate(order, start=1):
        hospital.play(hospital.person_work(stages=stages), number, "loans", run=stages)
        assert hospital.trained_on() == 5
        assert hospital.spent().epsilon == rounds_cost(number)
    hospital.play(hospital.person_work(stages="disjoint"), 3, "cards", run="disjoint")
    assert hospital.trained_on() == 2  # ann belongs to ``loans``
    assert hospital.spent().epsilon == rounds_cost(2)


def test_nobody_stands_in_the_state_folder_by_name(hospital: Any) -> None:
    hospital.write("cards.jsonl", hospital.people(hospital.canary, "bob", hospital.canary))
    hospital.play(hospital.person_work(stages="disjoint"), 1)
    kept = [file for file in (hospital.folder / "state").rglob("*") if file.is_file()]
    assert {"events.jsonl", "site.key"} < {file.name for file in kept}
    assert not any(hospital.canary.encode() in file.read_bytes() for file in kept)


@pytest.mark.parametrize("unit", ["record", "person", "site"])
def test_units_without_a_name_are_not_registered_and_are_everybody(ward: Any, unit: str) -> None:
    ward.data = {"one_record_per_person": True}
    work = ward.work(plan={"unit": unit} | ({"sampling_rate": 1.0, "steps_per_round": 1} if unit == "site" else {}))
    ward.play(work, 1)
    assert ward.booked() == ["reserve", "seal"]
    assert ward.reserved()[0][0] == "*"


def test_a_person_with_more_records_than_the_plan_allows_brings_so_many_to_each_step(hospital: Any) -> None:
    hospital.play(hospital.person_work(records_per_unit=2), 1, "loans")
    assert hospital.trained_on() == 4  # dan 2, ann 2 of 3


def test_the_round_is_paid_for_and_people_are_entered_by_one_line_before_anything_is_computed(
    hospital: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(client.rounds, "loop_of", lambda *_: seen.append(hospital.booked()) or 1 / 0)
    assert refused(hospital.train(hospital.person_work())) == "training"
    assert seen == [["reserve"]]
    assert list(hospital.events()[1]["members"]) == ["ward/training"]


def test_with_the_unit_site_the_whole_update_is_clipped_and_one_release_is_paid(ward: Any) -> None:
    plan = {"unit": "site", "sampling_rate": 1.0, "steps_per_round": 1, "clip_norm": 0.01, "noise_multiplier": 3.0}
    update = ward.play(ward.work(plan=plan), 1)
    norm = np.sqrt(sum(np.square(value, dtype=np.float64).sum() for value in update.arrays.values()))
    assert norm == pytest.approx(0.01, rel=1e-5)
    assert ward.site.open_ledger("site").spent().epsilon == epsilon([Event("gaussian", 1.0, 3.0, 1)], 1e-5)


# -- receipts ---------------------------------------------------------------------------------------------------------


def test_each_reply_brings_a_receipt_and_the_next_task_gives_it_back(hospital: Any) -> None:
    work, receipt = hospital.person_work(), ""
    for number in (1, 2, 3):
        receipt = hospital.play(work, number, receipt=receipt).receipt
        assert len(receipt) == CHARACTERS
    assert hospital.booked() == ["reserve", "seal", "ack", "reserve", "seal", "ack", "reserve", "seal"]


def test_an_older_receipt_than_the_last_is_taken_as_well(hospital: Any) -> None:
    """A server that went back to its last checkpoint has no newer one."""
    work = hospital.person_work()
    first = hospital.play(work, 1).receipt
    hospital.play(work, 2, receipt=first)
    hospital.play(work, 3, receipt=first)


@pytest.mark.parametrize("asked", ["train", "score"])
def test_a_site_whose_state_and_anchor_were_set_back_refuses_once_the_newer_receipt_comes_back(
    hospital: Any, asked: str
) -> None:
    work = hospital.person_work(score_noise=5.0)
    first = hospital.play(work, 1).receipt
    hospital.back_up()
    newer = hospital.play(work, 2, receipt=first).receipt
    hospital.set_back()
    assert hospital.site.open_ledger("person").spent().epsilon == rounds_cost(1)  # it looks consistent to itself
    before = hospital.events()
    for _ in range(2):
        content = (
            hospital.train(work, round=2, receipt=newer) if asked == "train" else hospital.score(work, receipt=newer)
        )
        assert refused(content) == "privacy"
    assert hospital.events() == before
    assert len(hospital.watched) == 2


def test_without_the_receipt_the_same_copy_is_believed(hospital: Any) -> None:
    """What the receipt is for: the check above fails without it."""
    work = hospital.person_work()
    first = hospital.play(work, 1).receipt
    hospital.back_up()
    hospital.play(work, 2, receipt=first)
    hospital.set_back()
    hospital.play(work, 2, receipt=first)


def test_the_receipt_of_scores_shows_a_set_back_ledger_too(hospital: Any) -> None:
    work = hospital.person_work(score_noise=5.0)
    first = hospital.play(work, 1).receipt
    hospital.back_up()
    reply = read_reply(hospital.score(work, receipt=first))
    assert isinstance(reply, Scores)
    hospital.set_back()
    assert refused(hospital.train(work, round=2, receipt=reply.receipt)) == "privacy"


def test_a_state_folder_that_was_thrown_away_is_found_out(hospital: Any) -> None:
    work = hospital.person_work()
    receipt = hospital.play(work, 1).receipt
    (hospital.folder / "state").rename(hospital.folder / "old")
    hospital.site.anchor_file.unlink()
    assert refused(hospital.train(work, round=2, receipt=receipt)) == "privacy"


def test_no_receipt_travels_where_nothing_is_recorded(hospital: Any) -> None:
    hospital.limits = SiteLimits(require_privacy=False, scores="exact")
    work = hospital.work(private=False)
    assert hospital.play(work, 1, receipt="of some other site").receipt == ""
    assert read_reply(hospital.score(work, receipt="of some other site")).receipt == ""
    assert hospital.events() == []
