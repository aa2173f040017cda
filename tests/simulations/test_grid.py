"""The in-process grid keeps what Flower's grids promise: Flower's own strategies and ours run on it unchanged."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from simulations.grid import SERVER_NODE, InProcessGrid

SITES = ["north", "south", "west"]


def toy(trained: list[int] | None = None) -> ClientApp:
    """A stock ClientApp: adds its partition number to every array; node 3 fails on request."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if trained is not None:
            trained.append(context.node_id)
        if message.content["config"].get("fail") and context.node_id == 3:
            raise ValueError("no records today")
        step = float(context.node_config["partition-id"])
        arrays = ArrayRecord({k: Array(v.numpy() + step) for k, v in message.content.pop("arrays").items()})
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    return app


def ask(grid: Grid, **config: bool) -> list[Message]:
    """One train message a node, all with the very same content, as Flower's strategies send them."""
    content = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(2))}), "config": ConfigRecord(dict(config))})
    return [Message(content, dst_node_id=node, message_type=MessageType.TRAIN) for node in grid.get_node_ids()]


def test_it_is_a_flower_grid_with_nothing_left_abstract() -> None:
    grid = InProcessGrid(toy(), SITES, run_id=7)
    assert isinstance(grid, Grid)
    assert not InProcessGrid.__abstractmethods__
    assert grid.run.run_id == 7
    assert list(grid.get_node_ids()) == [2, 3, 4]
    assert [node.node_id for node in grid.get_nodes()] == [2, 3, 4]


def test_a_reply_names_its_question_and_goes_from_the_site_to_the_server() -> None:
    grid = InProcessGrid(toy(), SITES)
    asked = ask(grid)
    for question, reply in zip(asked, grid.send_and_receive(asked), strict=True):
        assert reply.metadata.reply_to_message_id == question.metadata.message_id != ""
        assert reply.metadata.src_node_id == question.metadata.dst_node_id
        assert reply.metadata.dst_node_id == SERVER_NODE
        assert reply.metadata.message_type == MessageType.TRAIN
        assert reply.metadata.message_id not in ("", question.metadata.message_id)


def test_a_site_works_when_its_reply_is_taken_and_not_before() -> None:
    worked: list[int] = []
    grid = InProcessGrid(toy(worked), SITES)
    replies = iter(grid.send_and_receive(ask(grid)))
    assert worked == []
    next(replies)
    assert worked == [2]
    assert len(list(replies)) == 2
    assert worked == [2, 3, 4]


def test_pushed_messages_wait_until_they_are_pulled_and_are_answered_once() -> None:
    worked: list[int] = []
    grid = InProcessGrid(toy(worked), SITES)
    numbers = list(grid.push_messages(ask(grid)))
    assert len(set(numbers)) == 3
    assert worked == []
    pulled = list(grid.pull_messages(numbers[1:]))
    assert [reply.metadata.reply_to_message_id for reply in pulled] == numbers[1:]
    assert list(grid.pull_messages([*numbers[1:], "unknown"])) == []
    assert worked == [3, 4]


def test_nothing_asked_is_nothing_answered() -> None:
    assert list(InProcessGrid(toy(), SITES).send_and_receive([])) == []


def test_a_client_that_takes_records_out_of_its_message_takes_them_from_nobody_else() -> None:
    grid = InProcessGrid(toy(), SITES)
    asked = ask(grid)
    replies = list(grid.send_and_receive(asked))
    assert all("arrays" in message.content.array_records for message in asked)
    assert [reply.content["arrays"]["w"].numpy()[0] for reply in replies] == [0.0, 1.0, 2.0]


def test_a_client_that_raises_and_a_node_that_is_not_there_give_error_replies_and_the_others_go_on() -> None:
    grid = InProcessGrid(toy(), SITES)
    stray = grid.create_message(RecordDict(), MessageType.TRAIN, dst_node_id=99, group_id="1")
    well, failed, fine, lost = grid.send_and_receive([*ask(grid, fail=True), stray])
    assert not well.has_error()
    assert not fine.has_error()
    assert (failed.error.code, failed.metadata.src_node_id) == (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, 3)
    assert "no records today" in str(failed.error.reason)
    assert lost.error.code == ErrorCode.NODE_UNAVAILABLE


def test_a_sites_context_is_kept_between_rounds() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        before = context.state.metric_records.get("seen", MetricRecord({"rounds": 0}))["rounds"]
        context.state["seen"] = MetricRecord({"rounds": before + 1})
        return Message(RecordDict({"seen": context.state["seen"]}), reply_to=message)

    grid = InProcessGrid(app, SITES)
    for number in (1, 2):
        assert [r.content["seen"]["rounds"] for r in grid.send_and_receive(ask(grid))] == [number] * 3


def test_flowers_own_fedavg_runs_on_it_as_it_comes() -> None:
    start = ArrayRecord({"w": Array(np.array([10.0, 20.0], dtype=np.float32))})
    stock = FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    result = stock.start(grid=InProcessGrid(toy(), SITES), initial_arrays=start, num_rounds=2)
    np.testing.assert_allclose(result.arrays["w"].numpy(), [12.0, 22.0])  # each round adds the mean of 0, 1, 2


def test_a_node_whose_app_keeps_nothing_is_not_kept() -> None:
    grid = InProcessGrid(toy(), [f"s{number}" for number in range(500)])
    assert len(list(grid.send_and_receive(ask(grid)))) == 500
    assert grid._contexts == {}
