from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from client import outbox
from client.site import Site, SiteData, SiteLimits
from llmchain_fl import errors
from llmchain_fl.adapter.value import digest
from llmchain_fl.errors import CODES, LlmchainError, PrivacyError
from llmchain_fl.privacy.ledger import NullLedger
from llmchain_fl.wire import Refusal, Scores, Update, read_reply

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
    assert [other.code for other in KINDS].count(kind.code) == 1


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
    reply = read_reply(outbox.release(NullLedger(), task, ward.work(private=False), trained))
    assert isinstance(reply, Update)
    assert digest(reply.arrays) == digest({name: trained[name] - task.arrays[name] for name in trained})


def test_with_a_plan_an_update_is_sealed_before_it_leaves(ward: Any) -> None:
    work = ward.work()
    task, ledger = ward.task(work), ward.site.ledger(work)
    assert outbox.sealed(ledger, task, work) is None
    outbox.reserve(ledger, task, work)
    sent = outbox.release(ledger, task, work, {name: value + 1 for name, value in task.arrays.items()})
    sealed = outbox.sealed(ledger, task, work)
    assert sealed is not None
    assert digest(read_reply(outbox.release_again(task, sealed)).arrays) == digest(read_reply(sent).arrays)


def test_an_update_that_was_not_reserved_cannot_leave(ward: Any) -> None:
    work = ward.work()
    with pytest.raises(PrivacyError, match="never reserved"):
        outbox.release(ward.site.ledger(work), ward.task(work), work, ward.start(work))


def test_a_disk_that_fails_keeps_the_update_in(ward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    work = ward.work()
    task, ledger = ward.task(work), ward.site.ledger(work)
    outbox.reserve(ledger, task, work)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PrivacyError, match="errno 28"):
        outbox.release(ledger, task, work, ward.start(work))


def test_without_a_plan_nothing_is_asked_of_the_ledger(ward: Any) -> None:
    work = ward.work(private=False)
    assert outbox.sealed(NullLedger(), ward.task(work), work) is None
    outbox.reserve(NullLedger(), ward.task(work), work)


def test_scores_leave_only_with_the_policys_consent() -> None:
    def site(share: bool) -> Site:
        return Site(name="a", data=SiteData(train="x"), limits=SiteLimits(share_scores=share))

    with pytest.raises(PrivacyError, match="does not share scores"):
        outbox.scores(site(False), 1, {"a": 0.5})
    assert read_reply(outbox.scores(site(True), 1, {"a": 0.5})) == Scores(1, {"a": 0.5})
