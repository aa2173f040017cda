"""One hostile site among honest ones: the round goes on, and the sum is that of the honest ones alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from llmchain_fl.adapter.value import Arrays
from llmchain_fl.config.read import build
from llmchain_fl.privacy.plan import PrivacyPlan
from llmchain_fl.wire import HelloReply, read_train_task, write_hello, write_refusal, write_update
from llmchain_fl.work import WorkSpec, work_from
from server.aggregation import RULES
from server.cohort import meet
from server.strategy import FederatedLora, RoundOutcome
from simulations.grid import InProcessGrid

SITES = ["a", "b", "hostile"]
NAME = "layer.0.query.lora_B"


def honest(number: int) -> Arrays:
    return {NAME: np.full((4, 2), float(number), dtype=np.float32)}


def raw(**arrays: np.ndarray) -> RecordDict:
    names = {NAME if key == "b" else key: Array(value) for key, value in arrays.items()}
    return RecordDict({"arrays": ArrayRecord(names), "config": ConfigRecord({"round": 1, "version": "x"})})


GOOD = np.ones((4, 2), dtype=np.float32)
PAYLOADS: dict[str, tuple[Callable[[], RecordDict], str]] = {
    "NaN": (lambda: raw(b=GOOD * np.nan), "not-finite"),
    "infinity": (lambda: raw(b=GOOD * np.inf), "not-finite"),
    "another shape": (lambda: raw(b=GOOD[:, :1]), "wrong-shape"),
    "a shape that broadcasts": (lambda: raw(b=GOOD[:1, :1]), "wrong-shape"),
    "float64": (lambda: raw(b=GOOD.astype(np.float64)), "wrong-dtype"),
    "integers": (lambda: raw(b=GOOD.astype(np.int32)), "wrong-dtype"),
    "an extra array": (lambda: raw(b=GOOD, extra=GOOD), "extra-name"),
    "no array": (lambda: RecordDict({"arrays": ArrayRecord({}), "config": ConfigRecord({"round": 1})}), "missing-name"),
    "another name": (lambda: raw(other=GOOD), "missing-name"),
    "a huge norm": (lambda: raw(b=GOOD * 1e6), "norm"),
    "another round": (lambda: write_update(7, {NAME: GOOD}), "wrong-round"),
    "scores": (lambda: RecordDict({"scores": MetricRecord({"x": 1.0}), "config": ConfigRecord({"round": 1})}), "wire"),
    "no config": (lambda: RecordDict({"arrays": ArrayRecord({NAME: Array(GOOD)})}), "wire"),
    "a round that is text": (lambda: RecordDict({"config": ConfigRecord({"round": "1"})}), "wire"),
    "bytes that are no array": (
        lambda: RecordDict(
            {
                "arrays": ArrayRecord(
                    {NAME: Array(dtype="float32", shape=(4, 2), stype="numpy.ndarray", data=b"junk")}
                ),
                "config": ConfigRecord({"round": 1}),
            }
        ),
        "wire",
    ),
    "a weight of its own": (
        lambda: RecordDict(
            {
                "arrays": ArrayRecord({NAME: Array(GOOD)}),
                "m": MetricRecord({"num-examples": 1e30}),
                "config": ConfigRecord({"round": 1}),
            }
        ),
        "",
    ),
    "a refusal": (lambda: write_refusal("data"), "data"),
    "a refusal in its own words": (lambda: write_refusal("Jane Canary, born 1970"), "unknown"),
}


def setup(answer: Callable[[], RecordDict], position: int = 2) -> tuple[FederatedLora, InProcessGrid]:
    names = [name for name in SITES if name != "hostile"]
    names.insert(position, "hostile")
    app = ClientApp()

    @app.query()
    def hello(message: Message, context: Context) -> Message:
        return Message(write_hello(HelloReply(str(context.node_config["site-name"]))), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        name = str(context.node_config["site-name"])
        task = read_train_task(message.content)
        content = answer() if name == "hostile" else write_update(task.round, honest({"a": 1, "b": 3}[name]))
        return Message(content, reply_to=message)

    grid = InProcessGrid(app, names)
    config = build(
        {
            "task": {"labels": ["x"]},
            "data": {"train": "x"},
            "sites": {"count": 3},
            "aggregation": {"max_update_norm": 100.0},
        }
    )
    strategy = FederatedLora(config, work(config), RULES["ffa"], "run")
    strategy.nodes = meet(grid, config.sites)
    strategy.current = {
        NAME: np.zeros((4, 2), dtype=np.float32),
        "layer.0.query.lora_A": np.ones((2, 4), dtype=np.float32),
    }
    return strategy, grid


def work(config) -> WorkSpec:  # type: ignore[no-untyped-def]
    plan: PrivacyPlan | None = None
    return work_from(config, {"x": "x"}, ("lora_B",), plan)


def one_round(answer: Callable[[], RecordDict], position: int = 2) -> RoundOutcome:
    strategy, grid = setup(answer, position)
    slot = strategy.slots[1]
    return strategy.collect(slot, grid.send_and_receive(strategy.ask(slot, strategy.cohort(1, strategy.nodes))))


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("name", [name for name, (_, reason) in PAYLOADS.items() if reason])
def test_a_hostile_reply_is_refused_and_the_sum_is_that_of_the_honest_sites(name: str, position: int) -> None:
    answer, reason = PAYLOADS[name]
    outcome = one_round(answer, position)
    assert set(outcome.admitted) == {"a", "b"}
    assert set(outcome.refused) == {"hostile"}
    assert outcome.refused["hostile"] == reason
    np.testing.assert_allclose(outcome.arrays[NAME], 2.0, rtol=1e-6)


def test_a_weight_that_a_site_claims_is_not_read() -> None:
    outcome = one_round(PAYLOADS["a weight of its own"][0])
    assert set(outcome.admitted) == {"a", "b", "hostile"}
    np.testing.assert_allclose(outcome.arrays[NAME], (1 + 3 + 1) / 3, rtol=1e-6)


def test_a_program_that_crashes_is_a_refusal_too() -> None:
    def crash() -> RecordDict:
        raise RuntimeError("secret")

    outcome = one_round(crash)
    assert outcome.refused == {"hostile": "wire"}
    np.testing.assert_allclose(outcome.arrays[NAME], 2.0, rtol=1e-6)


def test_too_few_replies_leave_the_adapter_as_it_was() -> None:
    strategy, grid = setup(PAYLOADS["NaN"][0])
    strategy._config = strategy._config.model_copy(
        update={"sites": strategy._config.sites.model_copy(update={"minimum": 3})}
    )
    slot = strategy.slots[1]
    outcome = strategy.collect(slot, grid.send_and_receive(strategy.ask(slot, strategy.cohort(1, strategy.nodes))))
    assert outcome.arrays is strategy.current


def test_sites_that_decline_by_a_code_are_told_apart_from_those_that_were_refused() -> None:
    assert one_round(PAYLOADS["a refusal"][0]).declined == {"hostile"}
    assert one_round(PAYLOADS["NaN"][0]).declined == set()
