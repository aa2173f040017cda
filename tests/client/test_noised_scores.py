"""Scores that a site sends: with noise, sealed, paid for by persons who are never trained on; or exact, by consent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import client.scores
from client.site import SiteLimits
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.work import open_work
from llmchain_fl.replies import Refusal, Scores, read_reply


def refused(content: Any) -> str:
    reply = read_reply(content)
    assert isinstance(reply, Refusal), reply
    return reply.code


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[float]]:
    """No noise on scores; the list gets the unit means behind each of them."""
    seen: list[Sequence[float]] = []
    plain = client.scores.noised_mean

    def spied(values: Any, z: float, noise: Any) -> float:
        seen.append(values.tolist())
        return plain(values, z, noise)

    monkeypatch.setattr(client.scores, "noised_mean", spied)
    monkeypatch.setattr(SecureNoise, "added", lambda self, values, std: values.float())
    return seen


@pytest.fixture
def crowd(hospital: Any) -> Any:
    """So many held-out persons that a score is never cut to 0 or 1: two equal ones are one release."""
    for stage in ("cards", "loans"):
        hospital.write(f"{stage}.held_out.jsonl", hospital.people(*(f"held out {i}" for i in range(300))))
    return hospital


def scores(content: Any) -> Scores:
    reply = read_reply(content)
    assert isinstance(reply, Scores), reply
    return reply


def test_without_the_noise_a_score_is_the_mean_over_persons_of_the_mean_over_records(
    hospital: Any, silent: list[Sequence[float]]
) -> None:
    work = hospital.person_work(score_noise=5.0)
    arrays = {
        name: np.random.default_rng(2).normal(size=a.shape).astype(a.dtype) for name, a in hospital.start(work).items()
    }
    found = scores(hospital.score(work, arrays=arrays)).values["cards"]
    resident, task = open_work(work.resident, work.task)
    resident.reset()
    resident.load(arrays)
    right = task.record_scores(task.encode(hospital.people("kim", "lea", "kim")))
    assert silent == [[(right[0] + right[2]) / 2, right[1]]]
    assert found == pytest.approx((((right[0] + right[2]) / 2) + right[1]) / 2)


def test_a_loss_is_scaled_by_its_public_bound_and_cut_there(ward: Any, silent: list[Sequence[float]]) -> None:
    rows = [{**row, "person": str(i)} for i, row in enumerate(ward.small.rows(5, "causal-lm"))]
    ward.write("cards.held_out.jsonl", rows)
    ward.limits = SiteLimits(epsilon=60.0, scores="noised")
    work = ward.work(kind="causal-lm", plan={"unit": "person", "score_noise": 5.0})
    found = scores(ward.score(work)).values["cards"]
    resident, task = open_work(work.resident, work.task)
    resident.reset()
    losses = task.record_scores(task.encode(rows))
    assert silent == [pytest.approx(losses / 10.0)]
    assert found == pytest.approx(np.clip(losses, 0, 10).mean())


def test_asked_again_the_same_scores_are_sent_and_paid_once(crowd: Any) -> None:
    work, asked = crowd.person_work(score_noise=5.0), ("cards", "loans")
    first = scores(crowd.score(work, asked)).values
    assert scores(crowd.score(work, asked)).values == first
    crowd.restart()
    assert scores(crowd.score(work, asked)).values == first
    assert crowd.reserved() == [("ward/held-out", "gaussian", 2)]
    assert crowd.booked() == ["reserve", "seal"]


def test_another_question_under_the_same_round_gets_the_same_scores(crowd: Any) -> None:
    """Another adapter, another stage: a server cannot have two releases for the price of one."""
    work = crowd.person_work(score_noise=5.0)
    first = scores(crowd.score(work, ("cards",))).values
    other = {name: value + 1 for name, value in crowd.start(work).items()}
    assert scores(crowd.score(work, ("loans", "cards"), arrays=other)).values == first


def test_each_round_is_a_new_release_and_each_stage_asked_is_paid(crowd: Any) -> None:
    work = crowd.person_work(score_noise=5.0)
    found = [scores(crowd.score(work, ("cards", "loans"), round=number)).values for number in (1, 2)]
    assert found[0] != found[1]
    assert crowd.reserved() == [("ward/held-out", "gaussian", 2)] * 2
    assert crowd.spent().epsilon == epsilon([Event("gaussian", 1.0, 5.0, 4)], 1e-5)


@pytest.mark.parametrize("missing", ["no file", "no source in the site file"])
def test_a_stage_without_records_gets_a_score_of_noise_alone_and_is_paid_alike(
    hospital: Any, missing: str, silent: list[Sequence[float]]
) -> None:
    """So a server learns nothing about which stages a site knows."""
    if missing == "no file":
        (hospital.folder / "loans.held_out.jsonl").unlink()
    else:
        hospital.data = {"held_out": ""}
    found = scores(hospital.score(hospital.person_work(score_noise=5.0), ("loans",)))
    assert found.values == {"loans": 0.5}
    assert silent == [[]]
    assert hospital.reserved() == [("ward/held-out", "gaussian", 1)]


def test_a_score_is_noised(hospital: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[float], float]] = []

    def spied(self: SecureNoise, values: torch.Tensor, std: float) -> torch.Tensor:
        seen.append((values.tolist(), std))
        return values.clone()

    monkeypatch.setattr(SecureNoise, "added", spied)
    hospital.score(hospital.person_work(score_noise=5.0), ("cards", "loans"))
    assert [std for _, std in seen] == [pytest.approx(5.0 * 0.5**0.5)] * 2
    assert [values[1] for values, _ in seen] == [1.0, 0.5]  # half of two persons, half of one


def test_scores_count_against_the_limit_before_anything_is_computed(
    hospital: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.limits = SiteLimits(epsilon=epsilon([Event("gaussian", 1.0, 5.0, 2)], 1e-5) * 1.001, scores="noised")
    work = hospital.person_work(score_noise=5.0)
    scores(hospital.score(work, ("cards", "loans")))
    before = hospital.events()
    monkeypatch.setattr(client.scores, "unit_means", lambda *_: pytest.fail("records were scored"))
    assert refused(hospital.score(work, ("cards",), round=9)) == "budget"
    assert hospital.events() == before


def test_training_and_scores_are_paid_by_different_persons(hospital: Any) -> None:
    """The larger one counts, not the sum."""
    work = hospital.person_work(score_noise=5.0)
    hospital.play(work, 1)
    hospital.score(work, ("cards",))
    events = [Event("poisson-gaussian", 1.0, 3.0, 3), Event("gaussian", 1.0, 5.0, 1)]
    assert hospital.spent().epsilon == max(epsilon([event], 1e-5) for event in events)


def test_a_person_that_was_held_out_is_never_trained_on(hospital: Any) -> None:
    hospital.write("cards.jsonl", hospital.people("ann", "kim", "kim", "lea"))
    work = hospital.person_work(score_noise=5.0)
    hospital.score(work, ("cards",))
    hospital.play(work, 1)
    assert hospital.trained_on() == 1
    hospital.restart()
    hospital.play(work, 2)
    assert hospital.trained_on() == 1


def test_a_person_that_was_trained_on_is_never_scored(hospital: Any, silent: list[Sequence[float]]) -> None:
    hospital.write("cards.held_out.jsonl", hospital.people("ann", "kim", "ann"))
    work = hospital.person_work(score_noise=5.0)
    hospital.play(work, 1)
    hospital.score(work, ("cards",))
    assert [len(values) for values in silent] == [1]


def test_a_held_out_person_may_be_scored_in_several_stages(hospital: Any, silent: list[Sequence[float]]) -> None:
    """They are one group; each score is paid for."""
    hospital.write("loans.held_out.jsonl", hospital.people("kim", "mia"))
    hospital.score(hospital.person_work(score_noise=5.0, stages="disjoint"), ("cards", "loans"))
    assert [len(values) for values in silent] == [2, 2]


def test_held_out_records_without_persons_are_left_out_and_the_score_is_of_noise_alone(
    hospital: Any, silent: list[Sequence[float]]
) -> None:
    hospital.write("cards.held_out.jsonl", hospital.small.rows(3))
    assert scores(hospital.score(hospital.person_work(score_noise=5.0))).values == {"cards": 0.5}
    assert silent == [[]]
    assert hospital.booked() == ["reserve", "seal"]


def test_exact_scores_are_sent_where_the_policy_says_so_even_with_a_plan_that_pays_for_noise(
    hospital: Any, silent: list[Sequence[float]]
) -> None:
    hospital.limits = SiteLimits(scores="exact")
    assert scores(hospital.score(hospital.person_work(score_noise=5.0))).receipt == ""
    assert silent == []
    assert hospital.booked() == []
