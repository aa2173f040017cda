"""One hostile site among honest ones: the round goes on, and the sum is that of the honest ones alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from llmchain_fl.aggregation import RULES
from llmchain_fl.config.read import build
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.array_record import pack
from llmchain_fl.core.messages import HelloReply, TrainTask
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.score_task import ScoreTask, read_score_task
from llmchain_fl.core.wire import read_train_task, write_hello, write_refusal, write_scores, write_update
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.planning.work import work_from
from server.central import CentralPrivacy
from server.outcome import RoundOutcome
from server.roll_call import RollCall
from server.site_scores import ask_scores, read_scores
from server.state import RunState
from server.strategy import FederatedLora
from simulations.grid import InProcessGrid

SITES = ["a", "b", "hostile"]
NAME = "layer.0.query.lora_B"


Told = tuple[str, TrainTask | ScoreTask]


def honest(number: int) -> Arrays:
    return {NAME: np.full((4, 2), float(number), dtype=np.float32)}


CONFIG = ConfigRecord({"round": 1, "version": "x", "receipt": "of the hostile one"})


def raw(**arrays: np.ndarray) -> RecordDict:
    names = {NAME if key == "b" else key: value for key, value in arrays.items()}
    return RecordDict({"arrays": pack(names), "config": CONFIG})


GOOD = np.ones((4, 2), dtype=np.float32)
PAYLOADS: dict[str, tuple[Callable[[], RecordDict], str]] = {
    "NaN": (lambda: raw(b=GOOD * np.nan), "not-finite"),
    "infinity": (lambda: raw(b=GOOD * np.inf), "not-finite"),
    "another shape": (lambda: raw(b=GOOD[:, :1]), "wrong-shape"),
    "a shape that broadcasts": (lambda: raw(b=GOOD[:1, :1]), "wrong-shape"),
    "float64": (lambda: raw(b=GOOD.astype(np.float64)), "wrong-dtype"),
    "integers": (lambda: raw(b=GOOD.astype(np.int32)), "wrong-dtype"),
    "an extra array": (lambda: raw(b=GOOD, extra=GOOD), "extra-name"),
    "no array": (lambda: RecordDict({"arrays": pack({}), "config": CONFIG}), "missing-name"),
    "another name": (lambda: raw(other=GOOD), "missing-name"),
    "a huge norm": (lambda: raw(b=GOOD * 1e6), "norm"),
    "another round": (lambda: write_update(7, {NAME: GOOD}), "wrong-round"),
    "scores": (lambda: RecordDict({"scores": MetricRecord({"x": 1.0}), "config": CONFIG}), "wire"),
    "no config": (lambda: RecordDict({"arrays": pack({NAME: GOOD})}), "wire"),
    "a round that is text": (lambda: RecordDict({"config": ConfigRecord({"round": "1", "receipt": ""})}), "wire"),
    "no receipt": (
        lambda: RecordDict({"arrays": pack({NAME: GOOD}), "config": ConfigRecord({"round": 1})}),
        "wire",
    ),
    "a receipt as long as a book": (lambda: write_update(1, {NAME: GOOD}, "x" * 10_000), "wire"),
    "bytes that are no array": (
        lambda: RecordDict(
            {
                "arrays": ArrayRecord({"packed": Array("uint8", (4,), "safetensors", b"junk")}),
                "config": CONFIG,
            }
        ),
        "wire",
    ),
    "a weight of its own": (
        lambda: RecordDict(
            {
                "arrays": pack({NAME: GOOD}),
                "m": MetricRecord({"num-examples": 1e30}),
                "config": CONFIG,
            }
        ),
        "",
    ),
    "a refusal": (lambda: write_refusal("data"), "data"),
    "a refusal in its own words": (lambda: write_refusal("Jane Canary, born 1970"), "unknown"),
}


def setup(
    answer: Callable[[], RecordDict], position: int = 2, told: list[Told] | None = None
) -> tuple[FederatedLora, InProcessGrid]:
    """``told`` gets what each site was told, in order."""
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
        if told is not None:
            told.append((name, task))
        receipt = f"{name} {task.round}"
        content = answer() if name == "hostile" else write_update(task.round, honest({"a": 1, "b": 3}[name]), receipt)
        return Message(content, reply_to=message)

    @app.evaluate()
    def score(message: Message, context: Context) -> Message:
        name, task = str(context.node_config["site-name"]), read_score_task(message.content)
        if told is not None:
            told.append((name, task))
        content = {
            "a": write_scores(task.round, {"all": 0.5}, f"a {task.round} scores"),
            "b": write_scores(task.round, {"all": 0.25}),
            "hostile": write_refusal("privacy"),
        }[name]
        return Message(content, reply_to=message)

    grid = InProcessGrid(app, names)
    config = build(
        {
            "task": {"labels": ["x"]},
            "data": {"train": "x"},
            "sites": {"count": 3},
            "aggregation": {"max_update_norm": 100.0},
            "federation": "north",
        }
    )
    strategy = FederatedLora(config, work(config), RULES["ffa"], RunState("run"))
    strategy.state.nodes = RollCall(config.sites).first(grid)
    strategy.state.current = {
        NAME: np.zeros((4, 2), dtype=np.float32),
        "layer.0.query.lora_A": np.ones((2, 4), dtype=np.float32),
    }
    return strategy, grid


def work(config) -> WorkSpec:  # type: ignore[no-untyped-def]
    plan: PrivacyPlan | None = None
    return work_from(config, {"x": "x"}, ("lora_B",), plan)


def one_round(answer: Callable[[], RecordDict], position: int = 2) -> RoundOutcome:
    strategy, grid = setup(answer, position)
    planned = strategy.rounds[1]
    return strategy.collect(
        planned, grid.send_and_receive(strategy.ask(planned, strategy.cohort(1, strategy.state.nodes)))
    )


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
    planned = strategy.rounds[1]
    outcome = strategy.collect(
        planned, grid.send_and_receive(strategy.ask(planned, strategy.cohort(1, strategy.state.nodes)))
    )
    assert outcome.arrays is strategy.state.current


def test_sites_that_decline_by_a_code_are_told_apart_from_those_that_were_refused() -> None:
    assert one_round(PAYLOADS["a refusal"][0]).declined == {"hostile"}
    assert one_round(PAYLOADS["NaN"][0]).declined == set()


# -- receipts ---------------------------------------------------------------------------------------------------------


def rounds(strategy: FederatedLora, grid: InProcessGrid, *numbers: int) -> list[RoundOutcome]:
    found = []
    for number in numbers:
        planned = strategy.rounds[number]
        asked = strategy.ask(planned, strategy.cohort(number, strategy.state.nodes))
        found.append(strategy.collect(planned, grid.send_and_receive(asked)))
    return found


def test_each_site_gets_its_own_last_receipt_back_and_nobody_elses() -> None:
    told: list[Told] = []
    strategy, grid = setup(PAYLOADS["a refusal"][0], told=told)
    rounds(strategy, grid, 1, 2, 3)
    assert [(name, task.round, task.receipt) for name, task in told] == [
        ("a", 1, ""),
        ("b", 1, ""),
        ("hostile", 1, ""),
        ("a", 2, "a 1"),
        ("b", 2, "b 1"),
        ("hostile", 2, ""),
        ("a", 3, "a 2"),
        ("b", 3, "b 2"),
        ("hostile", 3, ""),
    ]
    assert {task.federation for _, task in told} == {"north"}


def test_the_receipt_of_a_site_that_declines_is_the_one_before() -> None:
    """A site that was set back gets the newer receipt again and again."""
    told: list[Told] = []
    strategy, grid = setup(PAYLOADS["a refusal"][0], told=told)
    strategy.state.receipts = {"hostile": "kept"}
    rounds(strategy, grid, 1, 2)
    assert [task.receipt for name, task in told if name == "hostile"] == ["kept", "kept"]


def test_a_receipt_comes_back_even_if_the_update_beside_it_was_not_admitted() -> None:
    """The site has sealed and paid for that round, whatever the server thinks of it."""
    told: list[Told] = []
    strategy, grid = setup(PAYLOADS["NaN"][0], told=told)
    rounds(strategy, grid, 1, 2)
    assert [task.receipt for name, task in told if name == "hostile"] == ["", "of the hostile one"]


def test_scores_are_asked_with_the_last_receipt_and_bring_a_newer_one() -> None:
    told: list[Told] = []
    strategy, grid = setup(PAYLOADS["a refusal"][0], told=told)
    rounds(strategy, grid, 1)
    asked = ask_scores(
        strategy.asker.score_task(1, ("all",), strategy.state.current), strategy.state.nodes, strategy.state.receipts
    )
    found, declined, receipts = read_scores(grid.send_and_receive(asked), strategy.state.nodes)
    assert (found, declined) == ({"a": {"all": 0.5}, "b": {"all": 0.25}}, {"hostile"})
    strategy.state.receipts |= receipts
    assert [(task.key, task.receipt) for _, task in told[3:]] == [
        ("run/1/scores", "a 1"),
        ("run/1/scores", "b 1"),
        ("run/1/scores", ""),
    ]
    assert strategy.state.receipts == {"a": "a 1 scores", "b": "b 1"}  # exact scores bring none


# -- the server's own noise -------------------------------------------------------------------------------------------


def central_setup(minimum: int, told: list[Told] | None = None) -> tuple[FederatedLora, InProcessGrid, CentralPrivacy]:
    """Two honest sites whose updates are longer than C = 1, one that declines."""
    strategy, grid = setup(PAYLOADS["a refusal"][0], told=told)
    sites = strategy._config.sites.model_copy(update={"minimum": minimum})
    strategy._config = strategy._config.model_copy(update={"sites": sites})
    plan = PrivacyPlan(1.0, 1e-6, 1.0, 1, float(minimum), 1e-5, unit="site")
    central = CentralPrivacy(plan, quantile=0.0)
    strategy._central = central
    return strategy, grid, central


def test_with_the_unit_site_each_update_is_clipped_again_at_the_server() -> None:
    """A sum to be noised takes no word for it."""
    told: list[Told] = []
    strategy, grid, _ = central_setup(2, told)
    (outcome,) = rounds(strategy, grid, 1)
    clipped = 1 / np.sqrt(8)  # of all 8 numbers of an update of norm 1
    np.testing.assert_allclose(outcome.arrays[NAME], clipped, atol=1e-4)
    assert {task.clip for _, task in told} == {1.0}


def test_only_what_sites_send_is_noised() -> None:
    strategy, grid, central = central_setup(2)
    names: list[str] = []
    plain = central.noised

    def spied(finish: Any) -> Any:
        return plain(lambda noise: finish(lambda name, mean: names.append(name) or noise(name, mean)))

    central.noised = spied  # type: ignore[method-assign]
    (outcome,) = rounds(strategy, grid, 1)
    assert names == [NAME]
    lora_a = NAME.replace("lora_B", "lora_A")
    assert outcome.arrays[lora_a].tobytes() == strategy.state.current[lora_a].tobytes()


def test_with_fewer_sites_than_the_minimum_nothing_is_noised_and_the_adapter_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strategy, grid, central = central_setup(3)
    monkeypatch.setattr(central, "noised", lambda *_: pytest.fail("a release that nobody pays for"))
    (outcome,) = rounds(strategy, grid, 1)
    assert outcome.arrays is strategy.state.current
    assert (strategy.clip, central._small) == (1.0, [])


def test_without_the_unit_site_no_clip_norm_is_told() -> None:
    told: list[Told] = []
    strategy, grid = setup(PAYLOADS["a refusal"][0], told=told)
    rounds(strategy, grid, 1)
    assert (strategy.clip, {task.clip for _, task in told}) == (0.0, {0.0})


def test_under_fedsvd_the_turned_a_travels_down_and_b_alone_comes_up() -> None:
    """A is new in every round, so a site that drew it from the seed would train in other coordinates."""
    config = build({"task": {"labels": ["a"]}, "data": {"train": "x"}, "aggregation": {"rule": "fedsvd"}})
    work = work_from(config, {"a": "a"}, RULES["fedsvd"].trained, None)
    strategy = FederatedLora(config, work, RULES["fedsvd"], RunState("run"))
    InProcessGrid(ClientApp(), ["north"])  # Flower's messages need to know in whose name they are written
    lora_a = NAME.replace("lora_B", "lora_A")
    strategy.state.nodes, strategy.state.current = (
        {"north": 2},
        {NAME: np.zeros((4, 2), "f4"), lora_a: np.eye(2, 4, dtype="f4")},
    )
    (message,) = strategy.ask(strategy.rounds[1], ["north"])
    assert set(read_train_task(message.content).arrays) == {NAME, lora_a}
    assert set(strategy.asker.score_task(1, ("all",), strategy.state.current).arrays) == {NAME, lora_a}
