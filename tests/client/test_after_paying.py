"""After a reservation there are three outcomes: a sealed update, a sealed refusal, or the process dies."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from client.site import SiteLimits
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.errors import DataError, PrivacyError, RunError, TrainingError
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.replies import Refusal, Scores, Update, read_reply

STEPS = [
    "client.rounds.mixed",
    "client.trial.load",
    "llmchain_fl.core.privacy.units.poisson_batches",
    "client.rounds.SiteGuards",
    "client.rounds.loop_of",
    "client.local.gradient_of",
    "client.gradients.clipped_sum",
    "client.rounds._tell",
    "client.rounds.stays",
    "client.outbox.delta",
    "client.outbox.packed",
    "llmchain_fl.core.compression.error_feedback.encode_with_memory",
    "client.outbox.payload",
    "client.memory.make_folder",
    "client.memory.replace",
]
"""Everything that runs between the reservation and the seal."""
ERRORS = [RuntimeError, MemoryError, KeyError, RecursionError, OSError, TrainingError, RunError, PrivacyError]


def made(error: type[BaseException], text: str) -> BaseException:
    ours = issubclass(error, TrainingError | RunError | PrivacyError | DataError)
    return error("one of ours", remedy="none") if ours else error(text)


def paid_work(ward: Any) -> Any:
    """A round that uses everything: a factor that stays, a codec that remembers what it leaves out."""
    ward.limits = SiteLimits(epsilon=60.0, units=["record"])
    work = ward.work(trained=("lora_A", "lora_B"), train={"sampling_rate": 1.0})
    return replace(work, codec=CodecSpec("top-k", share=0.1, feedback=True))


def fail_once_paid(patch: pytest.MonkeyPatch, step: str, error: BaseException) -> list[int]:
    """From the next reservation on ``step`` raises; the list counts how often it did."""
    paid: list[int] = []
    raised: list[int] = []
    reserve = FileLedger.reserve
    patch.setattr(FileLedger, "reserve", lambda self, *told: (reserve(self, *told), paid.append(1))[0])
    module, _, name = step.rpartition(".")
    plain = getattr(__import__(module, fromlist=[name]), name)

    def fail(*told: Any, **named: Any) -> Any:
        if paid:
            raised.append(1)
            raise error
        return plain(*told, **named)

    patch.setattr(step, fail)
    return raised


@pytest.mark.parametrize("step", STEPS)
def test_whatever_fails_after_the_reservation_is_sealed_as_one_refusal(
    ward: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    work = paid_work(ward)
    with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG):
        raised = fail_once_paid(patch, step, RuntimeError(f"token {ward.canary}"))
        assert read_reply(ward.train(work, keeps=("lora_A",))) == Refusal("training")
    assert raised
    assert ward.booked() == ["reserve", "seal"]
    assert "was paid for and gives no update: RuntimeError at " in caplog.text
    assert ward.canary not in caplog.text.replace(str(ward.folder), "")
    monkeypatch.setattr("client.rounds.loop_of", lambda *_: pytest.fail("records were used again"))
    for _ in range(2):
        assert read_reply(ward.train(work, keeps=("lora_A",))) == Refusal("training")
        ward.restart()
    assert ward.booked() == ["reserve", "seal"]


@pytest.mark.parametrize("error", ERRORS)
def test_the_word_is_the_same_whatever_the_error_is(
    ward: Any, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    assert fail_once_paid(monkeypatch, "client.rounds.loop_of", made(error, "x")) == []
    assert read_reply(ward.train(paid_work(ward))) == Refusal("training")
    assert ward.booked() == ["reserve", "seal"]


@pytest.mark.parametrize("step", ["client.rounds.loop_of", "client.memory.replace", "client.outbox.payload"])
def test_a_process_that_dies_computes_the_round_again_for_the_same_money(
    ward: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    work = paid_work(ward)
    with monkeypatch.context() as patch:
        fail_once_paid(patch, step, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            ward.train(work, keeps=("lora_A",))
    assert ward.booked() == ["reserve"]
    ward.restart()
    assert isinstance(read_reply(ward.train(work, keeps=("lora_A",))), Update)
    assert ward.booked() == ["reserve", "seal"]


def test_a_disk_that_takes_no_seal_lets_nothing_out(ward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    work = paid_work(ward)
    with monkeypatch.context() as patch:
        patch.setattr(FileLedger, "seal", lambda *_: (_ for _ in ()).throw(PrivacyError("full", remedy="x")))
        assert read_reply(ward.train(work)) == Refusal("privacy")
    assert ward.booked() == ["reserve"]
    assert isinstance(read_reply(ward.train(work)), Update)
    assert ward.booked() == ["reserve", "seal"]


def test_what_fails_after_the_seal_is_sent_when_it_is_asked_for_again(
    ward: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = paid_work(ward)
    with monkeypatch.context() as patch:
        patch.setattr(FileLedger, "receipt", lambda _: 1 / 0)
        assert read_reply(ward.train(work)) == Refusal("error")
    monkeypatch.setattr("client.rounds.loop_of", lambda *_: pytest.fail("records were used again"))
    assert isinstance(read_reply(ward.train(work)), Update)
    assert ward.booked() == ["reserve", "seal"]


SCORE_STEPS = [
    "client.scores.unit_means",
    "client.scores.noised_mean",
    "llmchain_fl.core.tasks.classification.each_record",
]


@pytest.mark.parametrize("step", SCORE_STEPS)
def test_scores_that_fail_after_they_were_paid_are_sealed_as_the_same_refusal(
    hospital: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    work = hospital.person_work(score_noise=5.0)
    with monkeypatch.context() as patch:
        assert fail_once_paid(patch, step, ValueError("x")) == []
        assert read_reply(hospital.score(work)) == Refusal("training")
    assert hospital.booked() == ["reserve", "seal"]
    monkeypatch.setattr("client.scores.unit_means", lambda *_: pytest.fail("records were scored again"))
    assert read_reply(hospital.score(work)) == Refusal("training")
    monkeypatch.undo()
    assert isinstance(read_reply(hospital.score(work, round=9)), Scores)
