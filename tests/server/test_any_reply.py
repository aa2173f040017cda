"""Whatever one node sends, the others' round, scores and roll call are what they would be without it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.admission import REASONS
from llmchain_fl.config.read import build
from llmchain_fl.config.schema import SitesConfig
from llmchain_fl.core.array_record import pack
from llmchain_fl.core.errors import CODES, LlmchainError, WireError
from llmchain_fl.core.messages import HelloReply
from llmchain_fl.core.section import NAME as NAME_OF_A_SITE
from llmchain_fl.core.wire import read_train_task, write_hello, write_refusal, write_scores, write_update
from llmchain_fl.planning.work import work_from
from llmchain_fl.replies import read_hello, read_reply
from server.handled import handled
from server.outcome import RoundOutcome
from server.roll_call import RollCall
from server.site_scores import Asked, read_scores
from server.state import RunState
from server.strategy import FederatedLora
from simulations.grid import InProcessGrid

NAME = "layer.0.query.lora_B"
LORA_A = "layer.0.query.lora_A"
SHAPE = (4, 2)
CODES_OF_A_REFUSAL = {*REASONS, *CODES, "unknown", "other", "wire", "no-answer"}

# -- any record that Flower can carry ---------------------------------------------------------------------------------

TEXT = st.text(max_size=12) | st.sampled_from(["", "data", "\x1b[2J", "all", "x" * 2000])
NUMBER = st.sampled_from([0, 1, -1, 2**62, 10**5000, True]) | st.integers(-(2**63), 2**63 - 1)
REAL = st.floats() | st.sampled_from([0.5, float("nan"), float("inf"), 3e38])
SCALAR = TEXT | NUMBER | REAL | st.binary(max_size=8)
LIST = st.one_of(
    *(st.lists(kind, max_size=3) for kind in (TEXT, REAL, st.binary(max_size=4), st.booleans(), st.integers(0, 9)))
)
TOLD = st.dictionaries(
    st.sampled_from(["refused", "round", "receipt", "version", "site", "protocol", "weight", "\x1b"]), SCALAR | LIST
)
HONEST = st.fixed_dictionaries({"round": st.sampled_from([1, 1, 1, 2]), "receipt": st.sampled_from(["", "r"])})
CONFIGS = st.builds(lambda one, other: ConfigRecord(one | other), TOLD, HONEST) | st.builds(ConfigRecord, TOLD)
METRIC = REAL | st.integers(-(2**63), 2**63 - 1) | st.lists(st.floats(), max_size=2)
METRICS = st.builds(MetricRecord, st.dictionaries(TEXT | st.just("all"), METRIC, max_size=4)) | st.just(
    MetricRecord({f"t{number}": 1.0 for number in range(5_000)})
)


FILLS = [0.0, 1.0, 0.5, 1e4, 1e7, 1e20, 3e38, np.inf, np.nan, -3e38]


def _arrays() -> st.SearchStrategy[Array]:
    kinds = st.sampled_from(["<f4", "<f2", "<f8", "<i8", "?", "<c8", "uint8"])
    shapes = st.sampled_from([SHAPE, (4, 1), (), (0,), (1, 1), (8,)])
    return st.builds(_array, kinds, shapes, st.sampled_from(FILLS))


def _array(kind: str, shape: tuple[int, ...], fill: float) -> NDArray[np.generic]:
    with np.errstate(all="ignore"):
        return np.full(shape, fill).astype(kind)


def _filled(value: float) -> dict[str, NDArray[np.generic]]:
    shapes = {NAME: SHAPE, LORA_A: (2, 4)}
    return {name: np.full(shape, value, "f4") for name, shape in shapes.items()}


def _spoilt(record: ArrayRecord, cut: int | None, flip: int, name: str, stype: str) -> ArrayRecord:
    data = bytearray(next(iter(record.values())).data)[:cut]
    if flip < min(len(data), 200):
        data[flip] ^= 0xFF
    return ArrayRecord({name: Array("uint8", (len(data),), stype, bytes(data))})


NAMED = st.dictionaries(st.just(NAME) | TEXT, _arrays(), max_size=3) | st.builds(lambda a: {NAME: a}, _arrays())
PACKED = st.builds(pack, NAMED)
SPOILT = st.builds(
    _spoilt,
    PACKED,
    st.none() | st.integers(0, 200),
    st.integers(0, 400),
    st.sampled_from(["packed", "packed", "x"]),
    st.sampled_from(["safetensors", "safetensors", "numpy.ndarray"]),
)
RECORDS = PACKED | SPOILT | st.just(ArrayRecord({NAME: Array(np.ones(SHAPE, "f4"))})) | st.just(ArrayRecord())
WILD = st.builds(
    lambda parts: RecordDict({name: record for name, record in parts.items() if record is not None}),
    st.fixed_dictionaries(
        {
            "config": st.none() | CONFIGS | CONFIGS | CONFIGS,
            "arrays": st.none() | RECORDS | RECORDS | METRICS,
            "scores": st.none() | st.none() | METRICS,
            "more": st.none() | st.none() | RECORDS | CONFIGS,
        }
    ),
)
NEARLY = st.builds(
    lambda fill, odd, told: RecordDict({"arrays": pack(_filled(fill) | odd), "config": ConfigRecord(told)}),
    st.sampled_from(FILLS),
    st.just({}) | st.builds(lambda array: {NAME: array}, _arrays()) | NAMED,
    HONEST,
)
"""What asked-for arrays an honest site would send, with other numbers in them, or one array of another kind."""
ANY = st.integers(0, 2).flatmap(lambda turn: NEARLY if turn else WILD)


def words(error: LlmchainError) -> str:
    """What is said, on one line."""
    return str(error).replace("\n  -> ", " ")


@settings(max_examples=400)
@given(ANY)
def test_a_reply_is_read_or_refused_in_our_own_words(content: RecordDict) -> None:
    for read in (read_reply, read_hello):
        said = ""
        try:
            read(content)
        except LlmchainError as error:
            said = words(error)
        assert said.isprintable()


# -- a round ----------------------------------------------------------------------------------------------------------


class Round:
    """Three honest sites and one that sends what it is given; built once for all examples."""

    def __init__(self, rule: str) -> None:
        self._rule, self._content = rule, RecordDict()
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            site, task = str(context.node_config["site-name"]), read_train_task(message.content)
            if site == "d":
                return Message(self._content, reply_to=message)
            value = {"a": 1.0, "b": 2.0, "c": 6.0}[site]
            arrays = {name: np.full(array.shape, value, "f4") for name, array in self._sent.items()}
            return Message(write_update(task.round, arrays, f"of {site}"), reply_to=message)

        self._sent = {NAME: np.zeros(SHAPE, "f4")}
        if rule != "ffa":
            self._sent[LORA_A] = np.zeros((2, 4), "f4")
        self._grid = InProcessGrid(app, "abcd")
        config = build(
            {"task": {"labels": ["x"]}, "data": {"train": "x"}, "sites": {"count": 4}, "aggregation": {"rule": rule}}
        )
        self._strategy = FederatedLora(
            config, work_from(config, {"x": "x"}, RULES[rule].trained, None), RULES[rule], RunState("run")
        )
        self._strategy.state.nodes = {site: number + 2 for number, site in enumerate("abcd")}
        self.without = self.play(write_refusal("data")).arrays

    def play(self, content: RecordDict) -> RoundOutcome:
        self._content, strategy = content, self._strategy
        strategy.state.current = {NAME: np.zeros(SHAPE, "f4"), LORA_A: np.ones((2, 4), "f4")}
        planned = strategy.rounds[1]
        return strategy.collect(planned, self._grid.send_and_receive(strategy.ask(planned, list("dabc"))))


@pytest.fixture(scope="module", params=["fedit", "flora"])
def one_round(request: pytest.FixtureRequest) -> Round:
    return Round(request.param)


@settings(max_examples=150)
@given(content=ANY)
def test_a_round_is_that_of_the_others_or_of_all_and_always_sound(one_round: Round, content: RecordDict) -> None:
    outcome = one_round.play(content)
    assert {"a", "b", "c"} <= set(outcome.admitted)
    assert outcome.summed
    assert all(np.isfinite(array).all() for array in outcome.arrays.values())
    if "d" in outcome.admitted:
        assert not outcome.refused
    else:
        assert set(outcome.refused) == {"d"}
        assert outcome.refused["d"] in CODES_OF_A_REFUSAL
        assert outcome.arrays.keys() == one_round.without.keys()
        assert all(np.array_equal(outcome.arrays[name], one_round.without[name]) for name in outcome.arrays)


def test_a_guard_around_one_reply_tells_the_type_of_an_error_and_nothing_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails() -> None:
        raise MemoryError("Jane Canary, born 1970")

    with pytest.raises(WireError) as caught:
        handled("\x1b[31mnorth", fails)
    (record,) = caplog.records
    assert "MemoryError" in record.getMessage()
    assert "Jane" not in record.getMessage() + words(caught.value)
    assert record.getMessage().isprintable()
    assert caught.value.__cause__ is None


# -- scores and names -------------------------------------------------------------------------------------------------

STAGES = ("all", "cards")


def reply_of(node: int, content: RecordDict) -> Any:
    """As a grid hands it on."""
    return SimpleNamespace(content=content, metadata=SimpleNamespace(src_node_id=node), has_error=lambda: False)


def scored(values: dict[str, Any], number: int = 1, receipt: str = "") -> RecordDict:
    return RecordDict({"scores": MetricRecord(values), "config": ConfigRecord({"round": number, "receipt": receipt})})


VALUES = st.dictionaries(st.sampled_from(["all", "cards", "loans", "\x1b[2J", ""]), REAL | st.floats(0, 1), max_size=3)


@settings(max_examples=200)
@given(ANY | st.builds(scored, VALUES, st.sampled_from([1, 1, 2])))
def test_what_is_taken_of_scores_was_asked_for_and_is_within_bounds_and_the_other_sites_are_heard(
    content: RecordDict,
) -> None:
    replies = [reply_of(2, content), reply_of(3, write_scores(1, {"all": 0.5}))]
    found, declined, receipts = read_scores(replies, {"north": 2, "south": 3}, Asked(1, STAGES, 1.0))
    assert found["south"] == {"all": 0.5}
    assert set(receipts) <= {"north"}
    assert not (declined & set(found))
    for name, value in found.get("north", {}).items():
        assert name in STAGES
        assert 0 <= value <= 1


def taken(values: dict[str, Any], asked: Asked | None, number: int = 1) -> dict[str, float] | None:
    found, _, _ = read_scores([reply_of(2, scored(values, number))], {"north": 2}, asked)
    return found.get("north")


ASKED = Asked(1, STAGES, 1.0)


@pytest.mark.parametrize(
    ("values", "number", "asked", "whole"),
    [
        ({"all": 0.5}, 1, ASKED, True),
        ({"all": 0.0, "cards": 1.0}, 1, ASKED, True),
        ({}, 1, ASKED, True),
        ({"all": 0.5}, 2, ASKED, False),
        ({"all": 0.5, "loans": 0.5}, 1, ASKED, False),
        ({"all": float("nan")}, 1, ASKED, False),
        ({"all": float("inf"), "cards": 0.5}, 1, ASKED, False),
        ({"all": -1e-9}, 1, ASKED, False),
        ({"all": 7.0}, 1, ASKED, False),
        ({"all": 7.0}, 1, Asked(1, STAGES, 10.0), True),
        ({"\x1b[31mFAKE\nline": 1.0}, 1, None, False),
        ({f"t{number}": 1.0 for number in range(5_000)}, 1, None, False),
        ({"all": float("nan")}, 1, None, False),
        ({"loans": 7.0}, 5, None, True),
    ],
)
def test_scores_are_taken_whole_or_not_at_all(
    values: dict[str, float], number: int, asked: Asked | None, whole: bool
) -> None:
    assert taken(values, asked, number) == (values if whole else None)


def test_a_site_whose_scoring_failed_has_paid_and_one_that_does_not_share_has_not() -> None:
    replies = [reply_of(2, write_refusal("error")), reply_of(3, write_refusal("privacy"))]
    assert read_scores(replies, {"north": 2, "south": 3}) == ({}, {"south"}, {})


def test_the_first_of_two_answers_counts() -> None:
    replies = [reply_of(2, write_scores(1, {"all": 0.5}, "r")), reply_of(2, write_refusal("privacy"))]
    assert read_scores(replies, {"north": 2}) == ({"north": {"all": 0.5}}, set(), {"north": "r"})


class Odd(InProcessGrid):
    """Two sites and a node that says what it is given."""

    def __init__(self) -> None:
        app = ClientApp()
        self.content = RecordDict()

        @app.query()
        def hello(message: Message, context: Context) -> Message:
            name = str(context.node_config["site-name"])
            return Message(self.content if name == "odd" else write_hello(HelloReply(name)), reply_to=message)

        super().__init__(app, ["a", "odd", "b"])


@settings(max_examples=100, deadline=None)
@given(
    ANY | st.builds(lambda told: RecordDict({"config": ConfigRecord({"version": "1", "protocol": 3, **told})}), TOLD)
)
def test_whatever_a_node_answers_the_sites_are_found(content: RecordDict) -> None:
    grid = Odd()
    grid.content = content
    nodes = RollCall(SitesConfig(count=2, wait_seconds=0.01)).first(grid)
    assert {"a": 2, "b": 4}.items() <= nodes.items()
    assert all(re.fullmatch(NAME_OF_A_SITE, name) for name in nodes)
