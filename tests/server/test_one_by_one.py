"""One reply that cannot be unpacked: the others are handed on, and that site gave no answer."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import httpx
import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from server.one_by_one import SLACK, OneByOne
from simulations.grid import InProcessGrid


class Slow(InProcessGrid):
    """Replies come at the second look; some cannot be unpacked."""

    def __init__(self, *broken: int, error: Exception | None = None) -> None:
        app = ClientApp()

        @app.query()
        def hello(message: Message, context: Context) -> Message:
            return Message(RecordDict({"config": ConfigRecord({"site": str(context.node_id)})}), reply_to=message)

        super().__init__(app, "abc")
        self._broken, self._error = broken, error or ValueError("Jane Canary")
        self._numbers: dict[str, int] = {}
        self._looked: set[str] = set()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        asked = list(messages)
        numbers = list(super().push_messages(asked))
        self._numbers = {n: m.metadata.dst_node_id for n, m in zip(numbers, asked, strict=True)}
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        (number,) = message_ids
        if number not in self._looked:
            self._looked.add(number)
            return []
        if self._numbers[number] in self._broken:
            raise self._error
        return super().pull_messages([number])


def answers(grid: Slow, **more: Any) -> list[int]:
    questions = [Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in (2, 3, 4)]
    return [reply.metadata.src_node_id for reply in OneByOne(grid, pause=0.01).send_and_receive(questions, **more)]


@pytest.mark.parametrize("broken", [(), (2,), (3,), (4,), (2, 3, 4)])
def test_replies_that_can_be_unpacked_are_handed_on_in_the_order_asked(broken: tuple[int, ...]) -> None:
    assert answers(Slow(*broken)) == [node for node in (2, 3, 4) if node not in broken]


@pytest.mark.parametrize(("more", "longest"), [({"timeout": 60.0}, 60.0 + SLACK), ({}, 12 * 3600.0)])
def test_a_question_lives_no_longer_than_somebody_waits_for_its_answer(more: dict[str, float], longest: float) -> None:
    asked: list[Message] = []

    class Seen(Slow):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            asked.extend(messages)
            return super().push_messages(asked)

    assert len(answers(Seen(), **more)) == 3
    assert [message.metadata.ttl for message in asked] == [longest] * 3


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), RecursionError(), TypeError("x")])
def test_whatever_unpacking_raises_is_told_by_its_type_alone(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert answers(Slow(3, error=error)) == [2, 4]
    (record,) = caplog.records
    assert record.getMessage() == f"a reply cannot be unpacked and is left out: {type(error).__name__}"


@pytest.mark.parametrize("error", [httpx.ConnectError("gone"), ConnectionResetError()])
def test_a_network_that_fails_is_nobodys_reply(error: Exception) -> None:
    with pytest.raises(type(error)):
        answers(Slow(3, error=error))


def test_the_wait_ends_with_its_time() -> None:
    assert answers(Slow(), timeout=0.0) == []


def test_everything_else_is_the_grid_of_flower() -> None:
    inner = Slow()
    grid = OneByOne(inner)
    assert (list(grid.get_node_ids()), grid.run) == ([2, 3, 4], inner.run)
    assert [node.node_id for node in grid.get_nodes()] == [2, 3, 4]
    assert grid.create_message(RecordDict(), MessageType.QUERY, 2, "1").metadata.dst_node_id == 2
