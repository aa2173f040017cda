"""The site's executor: each row of its table, over a stand-in for Flower's runtime API."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.common.constant import ErrorCode

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.onprem.site_executor import Approval, SiteExecutor
from llmchain_fl.onprem.task import NotWanted

NOW = 1_000_000.0
APPROVED = Approval((f"sha256:{hashlib.sha256(b'bundle').hexdigest()}",))


class App:
    """Counts its messages and answers them; ``fault``: raises it."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.asked, self._fault = 0, fault

    def __call__(self, message: Message, context: Context) -> Message:
        self.asked += 1
        if self._fault:
            raise self._fault
        return Message(RecordDict(), reply_to=message)


def executor(app: App, approval: Callable[[], Approval] = lambda: APPROVED) -> SiteExecutor:
    return SiteExecutor(app, approval, "client", lambda *told: None, now=lambda: NOW, sleep=lambda seconds: None)


def test_the_installed_app_answers_a_message_of_an_approved_bundle(task: Any, pulled: Any) -> None:
    app, one = App(), task(pulled())
    executor(app).answer(one)
    assert app.asked == 1
    assert one.pushed[0].has_content()
    assert (one.finished, one.closed) == ([True], True)


def raising() -> Approval:
    raise ConfigError(["limits.epsilon: no number"])


@pytest.mark.parametrize(
    ("approval", "bundle", "said"),
    [
        (lambda: APPROVED, b"bundlf", "not approved"),
        (lambda: Approval(), b"bundle", "not approved"),
        (lambda: Approval((APPROVED.bundles[0] + "0",)), b"bundle", "not approved"),
        (lambda: Approval((APPROVED.bundles[0][:-1],)), b"bundle", "not approved"),
        (raising, b"bundle", "cannot be read"),
    ],
)
def test_a_bundle_that_is_not_listed_in_whole_is_refused_and_no_app_is_called(
    task: Any, pulled: Any, approval: Any, bundle: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, one = App(), task(pulled(bundle))
    with caplog.at_level(logging.ERROR):
        executor(app, approval).answer(one)
    assert app.asked == 0
    assert one.pushed[0].error.code == ErrorCode.INVALID_FAB
    assert one.finished == [False]
    assert said in caplog.text


def test_the_log_of_a_refusal_gives_the_digest_that_would_have_to_be_approved(
    task: Any, pulled: Any, caplog: pytest.LogCaptureFixture
) -> None:
    executor(App(), Approval).answer(task(pulled()))
    assert APPROVED.bundles[0] in caplog.text


def test_any_bundle_is_taken_where_the_site_says_so(task: Any, pulled: Any) -> None:
    app = App()
    executor(app, lambda: Approval(any=True)).answer(task(pulled(b"whatever")))
    assert app.asked == 1


def test_an_approval_that_is_taken_back_counts_for_the_next_message(task: Any, pulled: Any) -> None:
    app, now = App(), [APPROVED]
    site = executor(app, lambda: now[0])
    site.answer(task(pulled()))
    now[0] = Approval()
    site.answer(task(pulled()))
    assert app.asked == 1


def test_a_task_of_another_kind_is_refused(task: Any, pulled: Any) -> None:
    app, one = App(), task(pulled(), kind="agent")
    executor(app, lambda: Approval(any=True)).answer(one)
    assert app.asked == 0
    assert one.pushed[0].has_error()


@pytest.mark.parametrize(("age", "asked"), [(59.0, 1), (61.0, 0), (11 * 3600.0, 0)])
def test_a_message_whose_time_is_over_is_not_trained_on(task: Any, pulled: Any, age: float, asked: int) -> None:
    app, one = App(), task(pulled(age=age))
    executor(app).answer(one)
    assert app.asked == asked
    assert len(one.pushed) == 1


def test_what_the_app_raises_is_answered_without_a_word_of_it(
    task: Any, pulled: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one = task(pulled())
    executor(App(ValueError("Mrs. Miller, 12 March"))).answer(one)
    assert one.pushed[0].error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert "Miller" not in one.pushed[0].error.reason + caplog.text
    assert one.finished == [False]


def test_a_reply_that_is_too_odd_to_be_pushed_gives_way_to_an_error(task: Any, pulled: Any) -> None:
    one = task(pulled(), pushes=[ValueError("Mrs. Miller")])
    executor(App()).answer(one)
    assert one.pushed[0].has_error()
    assert "Miller" not in one.pushed[0].error.reason


@pytest.mark.parametrize(("fault", "finished"), [(NotWanted(), [True]), (OSError(), [])])
def test_a_message_never_gets_a_second_reply_after_one_that_may_have_come_through(
    task: Any, pulled: Any, fault: Exception, finished: list[bool]
) -> None:
    """The SuperNode would take it for the answer to the next message, and be one behind from then on."""
    one = task(pulled(), pushes=[fault])
    executor(App()).answer(one)
    assert (one.pushed, one.finished, one.closed) == ([], finished, True)


def test_a_message_that_cannot_be_pulled_is_left_open(task: Any) -> None:
    one = task(OSError())
    executor(App()).answer(one)
    assert (one.pushed, one.finished, one.closed) == ([], [], True)


def test_a_reply_to_a_task_that_flower_has_given_up_is_not_pushed(task: Any, pulled: Any) -> None:
    one = task(pulled())
    one.beats = lambda: False

    class Slow(App):
        def __call__(self, message: Message, context: Context) -> Message:
            import time

            time.sleep(0.05)
            return super().__call__(message, context)

    app = Slow()
    executor(app).answer(one)
    assert app.asked == 1
    assert one.pushed == []


def test_a_supernode_that_is_not_there_is_asked_again_and_named_once(
    task: Any, pulled: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app, one = App(), task(pulled())
    answers: list[Any] = [OSError("a"), OSError("b"), None, one]

    class Some:
        def acquire(self) -> Any:
            found = answers.pop(0)
            if isinstance(found, Exception):
                raise found
            return found

    with caplog.at_level(logging.INFO, "llmchain_fl.site"):
        executor(app).serve(Some(), going=lambda: bool(answers))
    assert app.asked == 1
    assert caplog.text.count("no work from the SuperNode") == 1


def test_the_log_says_what_each_message_cost(task: Any, pulled: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llmchain_fl.site"):
        executor(App()).answer(task(pulled()))
    assert "train, round 4: 0.0" in caplog.text
    assert "CPU s, 0 modules imported" in caplog.text
