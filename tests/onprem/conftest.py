"""Stand-ins for Flower's runtime API, for processes and for the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from llmchain_fl.onprem.task import Pulled

NOW = 1_000_000.0


class FakeTask:
    """One task: what is pulled, what was pushed; ``pushes``: the faults of the first pushes."""

    def __init__(self, pulled: Pulled | Exception, kind: str = "client", pushes: Sequence[Exception] = ()) -> None:
        self.kind, self._pulled, self._faults = kind, pulled, list(pushes)
        self.pushed: list[Message] = []
        self.finished: list[bool] = []
        self.closed = False
        self.beats: Callable[[], bool] = lambda: True

    def pull(self) -> Pulled:
        if isinstance(self._pulled, Exception):
            raise self._pulled
        return self._pulled

    def beat(self) -> bool:
        return self.beats()

    def push(self, reply: Message) -> None:
        if self._faults:
            raise self._faults.pop(0)
        self.pushed.append(reply)

    def finish(self, done: bool) -> None:
        self.finished.append(done)

    def close(self) -> None:
        self.closed = True


class FakeProcess:
    """Ends when it is told to, with that code."""

    def __init__(self, lines: Sequence[str] = (), stubborn: bool = False) -> None:
        self.code: int | None = None
        self.lines, self.stubborn, self.killed = lines, stubborn, False

    def ended(self) -> int | None:
        return self.code

    def tail(self) -> Sequence[str]:
        return self.lines

    def terminate(self) -> None:
        if not self.stubborn:
            self.code = -15

    def kill(self) -> None:
        self.code, self.killed = -9, True

    def gone(self) -> bool:
        return self.code is not None


class Clock:
    """A clock that only ``sleep`` moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    """Flower's messages ask in which process they are made."""
    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 3, 1
    yield
    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


@pytest.fixture
def pulled() -> Callable[..., Pulled]:
    """A train message of round 4 and its bundle."""

    def make(bundle: bytes = b"bundle", age: float = 0.0, ttl: float = 60.0) -> Pulled:
        message = Message(
            RecordDict({"c": ConfigRecord({"secret": "x"})}), dst_node_id=3, message_type="train", group_id="4", ttl=ttl
        )
        message.metadata.__dict__["_created_at"] = NOW - age
        context = Context(run_id=7, node_id=3, node_config={}, state=RecordDict(), run_config={})
        return Pulled(message, context, bundle)

    return make


@pytest.fixture
def task() -> Callable[..., FakeTask]:
    return FakeTask


@pytest.fixture
def process() -> Callable[..., Any]:
    return FakeProcess
