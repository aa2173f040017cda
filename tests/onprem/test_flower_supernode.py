"""Where a run is stopped, or an executor killed, in the middle of a message's objects: Flower's own loop, mended."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supernode import start_client_internal as inside
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState
from flwr.supernode.servicer.runtime import runtime_handlers as handlers

from llmchain_fl.onprem import flower_supernode
from llmchain_fl.onprem.flower_supernode import PATIENCE, PatientStore, ReplyIncomplete, mend


class Node:
    """A SuperNode's state, and one message of run 7 that its SuperLink has for it."""

    def __init__(self) -> None:
        self.store: Any = InMemoryObjectStore()
        self.state: Any = InMemoryNodeState(self.store)
        self.state.set_node_id(3)
        fab = Fab(hashlib.sha256(b"bundle").hexdigest(), b"bundle", {})
        run = Run.create_empty(7)
        run.fab_hash, run.series_id = fab.hash_str, 7
        self.state.store_run(run)
        self.state.store_fab(fab)
        self.message = Message(RecordDict({"c": ConfigRecord({"x": 1})}), dst_node_id=3, message_type="train")
        self.message.metadata.__dict__["_run_id"] = 7
        self.message.metadata.__dict__["_message_id"] = self.message.object_id
        self.objects = {number: one.deflate() for number, one in get_all_nested_objects(self.message).items()}

    def takes(self, pull: Callable[[int, str], bytes], confirm: Callable[[int, str], None]) -> int | None:
        found: int | None = inside._pull_and_store_message(
            state=self.state, object_store=self.store, node_config={}, get_run=no_call, get_fab=no_call,
            receive=lambda: (self.message, get_object_tree(self.message)),
            pull_object=pull, confirm_message_received=confirm, trusted_entities=None,
        )  # fmt: skip
        return found

    def waits(self) -> bool:
        """Whether an executor is given a task."""
        request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        return bool(handlers.acquire_task(request, self.state).token)


def no_call(*_: Any) -> Any:
    raise AssertionError


def stopped(*_: Any) -> Any:
    raise RunNotRunningException


@pytest.fixture
def mended(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (flower_supernode.TAKES, flower_supernode.SENDS, flower_supernode.CLOCK):
        monkeypatch.setattr(inside, name, getattr(inside, name))  # put back afterwards
    mend()


@pytest.mark.parametrize("last", [False, True])
def test_a_message_whose_run_is_stopped_while_it_is_fetched_leaves_no_task_and_no_message(
    mended: None, last: bool
) -> None:
    node = Node()
    pull = (lambda _, number: node.objects[number]) if last else stopped
    assert node.takes(pull, stopped) is None
    assert not node.waits()
    assert node.state.get_messages_legacy() == []


def test_flower_alone_leaves_a_task_whose_objects_never_come() -> None:
    """Why it is mended; where this fails, Flower has done it."""
    node = Node()
    assert node.takes(stopped, stopped) is None
    assert node.waits()


def test_a_whole_message_is_taken_as_ever(mended: None) -> None:
    node = Node()
    assert node.takes(lambda _, number: node.objects[number], lambda *_: None) == 7
    assert node.waits()
    assert [one.metadata.message_id for one in node.state.get_messages_legacy()] == [node.message.object_id]


def test_an_object_of_a_reply_that_does_not_come_is_told_after_a_minute_and_not_before() -> None:
    contents, now = {"a": b"", "b": b""}, [0.0]
    store = PatientStore(contents, lambda: now[0])
    assert (store.get("a"), store.get("c")) == (b"", None)
    now[0] = PATIENCE
    assert (store.get("a"), store.get("b")) == (b"", b"")
    now[0] += 1
    assert store.get("b") == b""
    with pytest.raises(ReplyIncomplete):
        store.get("a")
    contents["a"] = b"x"
    assert store.get("a") == b"x"


def test_a_reply_without_all_its_objects_is_dropped_and_the_node_goes_on(
    mended: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower_supernode, "PATIENCE", 0.2)
    node, sent = Node(), list[str]()
    node.takes(lambda _, number: node.objects[number], lambda *_: None)
    reply = Message(RecordDict({"d": ConfigRecord({"y": 2})}), reply_to=node.message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    node.state.store_message(reply)
    node.store.preregister(7, get_object_tree(reply))  # and no object is ever put

    def send(message: Message, tree: Any, _: float) -> tuple[set[str], str]:
        sent.append(message.metadata.message_id)
        return set(get_all_nested_objects(message)), "session"

    inside._push_messages(state=node.state, object_store=node.store, send=send, push_object=no_call)
    assert sent == [reply.object_id]
    assert node.state.get_messages_legacy(is_reply=True) == []


def test_no_look_for_a_message_waits_longer_than_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    watch = flower_supernode.Watch()
    watch.sleep(3)
    watch.sleep(0.5)
    assert slept == [flower_supernode.LOOK, 0.5]
    assert watch.monotonic() > 0


def test_flower_sleeps_by_its_own_name_for_the_clock() -> None:
    """Else ``mend`` would shorten nothing."""
    source = inspect.getsource(inside.start_client_internal)
    assert "time.sleep(3)" in source
