"""The grid around Flower's own: order of replies, time limit, an end on demand."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from flwr.app import Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from llmchain_fl.core.errors import RunError
from llmchain_fl.progress import Silent
from simulations.grid import InProcessGrid
from simulations.ordered_grid import OrderedGrid, Stop


class SlowFirst(InProcessGrid):
    """Sites answer in reverse, one at each look; those in ``silent`` never do."""

    def __init__(self, silent: Iterable[int] = ()) -> None:
        app = ClientApp()

        @app.train()
        def train(message: Message, _context: object) -> Message:
            return Message(RecordDict(), reply_to=message)

        super().__init__(app, ["a", "b", "c"])
        self._silent, self.looks = set(silent), 0

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.looks += 1
        wanted = set(message_ids)
        there = [n for n, m in self._waiting.items() if n in wanted and m.metadata.dst_node_id not in self._silent]
        return super().pull_messages(there[-1:])


class Counter(Silent):
    """Counts sites that are done."""

    def __init__(self) -> None:
        self.done = 0

    def site_finished(self, site: str, tokens: int, seconds: float) -> None:
        self.done += 1


def ask(grid: OrderedGrid) -> list[Message]:
    return [grid.create_message(RecordDict(), MessageType.TRAIN, node, "1") for node in grid.get_node_ids()]


def test_replies_come_in_the_order_asked_whoever_is_first() -> None:
    progress = Counter()
    grid = OrderedGrid(SlowFirst(), Stop(), progress)
    assert [reply.metadata.src_node_id for reply in grid.send_and_receive(ask(grid))] == [2, 3, 4]
    assert progress.done == 3


def test_a_site_that_never_answers_is_left_out_after_the_time_limit_and_nobody_else_is() -> None:
    grid = OrderedGrid(SlowFirst(silent=[2]), Stop(), Silent())
    begun = time.monotonic()
    replies = list(grid.send_and_receive(ask(grid), timeout=0.4))
    assert [reply.metadata.src_node_id for reply in replies] == [3, 4]
    assert 0.4 <= time.monotonic() - begun < 5


def test_a_site_that_is_asked_its_name_is_waited_for_however_long_it_takes_to_start() -> None:
    inner = SlowFirst()
    grid = OrderedGrid(inner, Stop(), Silent())
    asked = [grid.create_message(RecordDict(), MessageType.QUERY, node, "1") for node in grid.get_node_ids()]
    assert len(list(grid.send_and_receive(asked, timeout=1e-9))) == 3


def test_a_wait_ends_when_the_run_is_to_stop() -> None:
    stop = Stop()
    grid = OrderedGrid(SlowFirst(silent=[4]), stop, Silent())
    replies = iter(grid.send_and_receive(ask(grid)))
    assert next(replies).metadata.src_node_id == 2
    stop.wanted = True
    assert next(replies).metadata.src_node_id == 3
    with pytest.raises(RunError, match="stopped"):
        next(replies)
    for look in (grid.get_node_ids, grid.get_nodes):
        with pytest.raises(RunError, match="stopped"):
            look()


def test_nothing_asked_needs_no_look() -> None:
    inner = SlowFirst()
    assert list(OrderedGrid(inner, Stop(), Silent()).send_and_receive([])) == []
    assert inner.looks == 0


def test_it_hands_run_and_messages_to_the_grid_inside() -> None:
    inner = SlowFirst()
    grid = OrderedGrid(inner, Stop(), Silent())
    grid.set_run(inner.run)
    assert grid.run is inner.run
    numbers = list(grid.push_messages(ask(grid)))
    assert [reply.metadata.src_node_id for reply in grid.pull_messages(numbers)] == [4]
