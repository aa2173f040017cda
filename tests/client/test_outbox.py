from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from client import outbox, scores, whole_update
from client.site import Site, SiteData, SiteLimits
from llmchain_fl.core import errors
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.errors import CODES, LlmchainError, PrivacyError
from llmchain_fl.core.privacy.null_ledger import NullLedger
from llmchain_fl.core.privacy.receipt import CHARACTERS
from llmchain_fl.core.privacy.release import Ledger
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.replies import Refusal, Scores, Update, read_reply

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LlmchainError) and kind not in (LlmchainError, errors.ConfigError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_of_ours_has_its_own_code_word(kind: type[LlmchainError]) -> None:
    reply = read_reply(outbox.refuse(kind("what", remedy="remedy")))
    assert reply == Refusal(kind.code)
    assert kind.code in CODES
    assert kind.code.isalpha()
    assert {namer(other) for other in KINDS if other.code == kind.code} == {namer(kind)}


def namer(kind: type[LlmchainError]) -> type:
    """The class that gave it its code: kinds below one another share it."""
    return next(base for base in kind.__mro__ if "code" in vars(base))


@pytest.mark.parametrize(
    "error", [RuntimeError("secret"), KeyError("secret"), MemoryError("secret"), Exception("secret")]
)
def test_any_other_error_is_one_word(error: Exception) -> None:
    assert read_reply(outbox.refuse(error)) == Refusal("error")


def test_a_code_word_that_is_not_on_the_list_does_not_leave() -> None:
    class Chatty(LlmchainError):
        code = "a record"

    assert read_reply(outbox.refuse(Chatty("x", remedy="y"))) == Refusal("error")


def test_an_update_is_the_difference_in_float32(ward: Any) -> None:
    task = ward.task(ward.work(private=False))
    trained = {name: value + np.float32(0.5) for name, value in task.arrays.items()}
    reply = read_reply(outbox.release(NullLedger(), task, None, outbox.delta(task, trained)))
    assert isinstance(reply, Update)
    assert digest(reply.arrays) == digest({name: trained[name] - task.arrays[name] for name in trained})
    assert {value.dtype for value in reply.arrays.values()} == {np.dtype(np.float32)}
    assert reply.receipt == ""


def reserved(ward: Any, **plan: Any) -> tuple[Any, Any, Ledger]:
    """(task, plan, ledger) of a round that is paid for and not sealed."""
    work = ward.work(plan=plan)
    task, ledger = ward.task(work, federation="north"), ward.site.ledger(work)
    ledger.reserve(outbox.training_release(ward.site, task, work.plan))
    return task, work.plan, ledger


def test_with_a_plan_an_update_is_sealed_before_it_leaves(ward: Any) -> None:
    task, plan, ledger = reserved(ward)
    assert ledger.sealed(task.key) is None
    sent = outbox.release(ledger, task, plan, {name: value + 1 for name, value in task.arrays.items()})
    sealed = ledger.sealed(task.key)
    assert sealed is not None
    assert digest(read_reply(outbox.release_again(ledger, task, sealed)).arrays) == digest(read_reply(sent).arrays)


def test_a_receipt_travels_with_the_update_and_says_that_it_is_sealed(ward: Any) -> None:
    task, plan, ledger = reserved(ward)
    sent = read_reply(outbox.release(ledger, task, plan, ward.start(ward.work())))
    assert len(sent.receipt) == CHARACTERS
    ledger.acknowledge(sent.receipt)
    assert ward.events()[-1]["type"] == "ack"
    assert ward.events()[-1]["key"] == task.key


def test_what_is_paid_for_says_who_asked_for_what(ward: Any) -> None:
    task, plan, _ = reserved(ward)
    (entry,) = [event for event in ward.events() if event["type"] == "reserve"]
    assert (entry["key"], entry["purpose"], entry["federation"], entry["stage"], entry["plan"]) == (
        task.key,
        "training",
        "north",
        "cards",
        plan.digest(),
    )


def test_an_update_that_was_not_reserved_cannot_leave(ward: Any) -> None:
    work = ward.work()
    with pytest.raises(PrivacyError, match="never reserved"):
        outbox.release(ward.site.ledger(work), ward.task(work), work.plan, ward.start(work))


def test_a_disk_that_fails_keeps_the_update_in(ward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, plan, ledger = reserved(ward)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PrivacyError, match="errno 28"):
        outbox.release(ledger, task, plan, task.arrays)


@pytest.mark.parametrize(("unit", "stages"), [("record", "shared"), ("person", "shared"), ("person", "disjoint")])
def test_what_a_round_costs_names_the_data_set_and_everybody_where_units_have_no_names(
    ward: Any, unit: str, stages: str
) -> None:
    ward.data = {"name": "notes"}
    work = ward.work(plan={"unit": unit, "stages": stages})
    (charge,) = outbox.training_release(ward.site, ward.task(work), work.plan).charges
    named = "notes/training" if stages == "shared" else "notes/training:cards"
    assert charge.group == (named if unit == "person" else "*")


def test_a_refusal_of_a_paid_round_is_sealed_and_sent_again_as_it_was(ward: Any) -> None:
    task, _, ledger = reserved(ward)
    sent = outbox.release_refusal(ledger, task)
    again = outbox.release_again(ledger, task, ledger.sealed(task.key) or b"")
    assert read_reply(sent) == read_reply(again) == Refusal("training")
    with pytest.raises(PrivacyError, match="sealed with other bytes"):
        outbox.release(ledger, task, ward.work().plan, task.arrays)


# -- the whole update, with the privacy unit ``site`` ------------------------------------------------------------------


def norm(arrays: Any) -> float:
    return math.sqrt(sum(float(np.square(value, dtype=np.float64).sum()) for value in arrays.values()))


def of_norm(length: float) -> dict[str, np.ndarray]:
    """Two arrays with this norm over both."""
    draw = np.random.default_rng(1)
    parts = {"a": draw.normal(size=(7, 3)), "b": draw.normal(size=11)}
    return {name: (value * length / norm(parts)).astype(np.float32) for name, value in parts.items()}


@pytest.mark.parametrize("length", [0.0, 1e-30, 0.3, 0.499])
def test_an_update_within_the_clip_norm_is_itself(length: float) -> None:
    delta = of_norm(length)
    assert digest(whole_update.clipped(delta, 0.5)) == digest(delta)


@pytest.mark.parametrize("length", [0.51, 3.0, 1e20, 1e38])
def test_a_longer_update_is_scaled_down_to_the_clip_norm(length: float) -> None:
    delta = of_norm(length)
    found = whole_update.clipped(delta, 0.5)
    assert 0.5 * (1 - 1e-5) < norm(found) <= 0.5 * (1 + 1e-6)
    assert all(np.allclose(found[name] * (length / 0.5), delta[name], rtol=1e-4) for name in delta)
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_update_with_a_number_that_is_not_finite_is_zeros(value: float) -> None:
    delta = of_norm(1.0)
    delta["b"][3] = value
    found = whole_update.clipped(delta, 0.5)
    assert {name: array.shape for name, array in found.items()} == {name: array.shape for name, array in delta.items()}
    assert not any(array.any() for array in found.values())


def test_all_arrays_are_clipped_as_one_vector() -> None:
    """Each array at the clip norm would be sqrt(2) times too much in all."""
    found = whole_update.clipped({"a": np.float32([3.0]), "b": np.float32([4.0])}, 1.0)
    assert found["a"].tolist() == [pytest.approx(0.6)]
    assert found["b"].tolist() == [pytest.approx(0.8)]


@pytest.mark.parametrize(("told", "bound"), [(0.0, 0.25), (0.125, 0.125)])
def test_with_the_unit_site_the_update_is_clipped_to_the_rounds_clip_norm_or_the_plans(
    ward: Any, told: float, bound: float
) -> None:
    task, plan, ledger = reserved(ward, unit="site", sampling_rate=1.0, steps_per_round=1, clip_norm=0.25)
    trained = {name: value + 1 for name, value in task.arrays.items()}
    leaving = outbox.bounded(replace(task, clip=told), plan, outbox.delta(task, trained))
    assert norm(read_reply(outbox.release(ledger, task, plan, leaving)).arrays) == pytest.approx(bound, rel=1e-5)
    assert ward.reserved() == [("*", "gaussian", 1)]


def test_with_another_unit_the_update_is_not_clipped_again(ward: Any) -> None:
    """It is clipped and noised step by step; and a server cannot change it by a clip norm of its own."""
    task, plan, ledger = reserved(ward, clip_norm=0.25)
    trained = {name: value + 1 for name, value in task.arrays.items()}
    leaving = outbox.bounded(replace(task, clip=0.125), plan, outbox.delta(task, trained))
    reply = read_reply(outbox.release(ledger, task, plan, leaving))
    assert digest(reply.arrays) == digest({name: trained[name] - task.arrays[name] for name in trained})


# -- scores -----------------------------------------------------------------------------------------------------------


def site(kind: str) -> Site:
    return Site(name="a", data=SiteData(train="x"), limits=SiteLimits(scores=kind))


def test_exact_scores_leave_only_with_the_policys_consent() -> None:
    for kind in ("none", "noised"):
        with pytest.raises(PrivacyError, match="shares no exact scores"):
            outbox.scores(site(kind), 1, {"a": 0.5})
    assert read_reply(outbox.scores(site("exact"), 1, {"a": 0.5})) == Scores(1, {"a": 0.5})


@pytest.mark.parametrize(
    ("kind", "plan", "answer"),
    [
        ("none", {"unit": "person", "score_noise": 2.0}, "does not share scores"),
        ("none", None, "does not share scores"),
        ("noised", {"unit": "person", "score_noise": 2.0}, "noised"),
        ("noised", {"unit": "person"}, "noised scores only"),
        ("noised", {"unit": "record"}, "noised scores only"),
        ("noised", {"unit": "site", "sampling_rate": 1.0, "steps_per_round": 1}, "noised scores only"),
        ("noised", None, "noised scores only"),
        ("exact", {"unit": "person", "score_noise": 2.0}, "exact"),
        ("exact", None, "exact"),
    ],
)
def test_how_a_site_shares_scores(small: Any, kind: str, plan: dict[str, Any] | None, answer: str) -> None:
    made = None if plan is None else small.plan(**plan)
    if answer in ("noised", "exact"):
        assert scores.check_scores(site(kind), made) == answer
        return
    with pytest.raises(PrivacyError, match=answer):
        scores.check_scores(site(kind), made)


def test_noised_scores_are_sealed_with_a_receipt_and_sent_again_as_they_were(ward: Any) -> None:
    work = ward.work(plan={"unit": "person", "score_noise": 2.0})
    task, ledger = ScoreTask(4, ("b", "a"), work.to_json(), {}, run="r"), ward.site.ledger(work)
    with pytest.raises(PrivacyError, match="never reserved"):
        outbox.noised_scores(ledger, task, {"b": 0.25, "a": 0.5})
    ledger.reserve(scores.score_release(ward.site, task, work.plan))
    first = read_reply(outbox.noised_scores(ledger, task, {"b": 0.25, "a": 0.5}))
    assert (first.round, first.values, len(first.receipt)) == (4, {"a": 0.5, "b": 0.25}, CHARACTERS)
    again = read_reply(outbox.noised_scores_again(ledger, task, ledger.sealed(task.key)))
    assert (again.values, len(again.receipt)) == (first.values, CHARACTERS)
    assert ward.reserved() == [("ward/held-out", "gaussian", 2)]
