"""Hostile sites do what their table says, and honest ones beside them are not touched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.rule import SiteFactors, serving
from llmchain_fl.config.read import build
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.compression.update import decode, encode
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.messages import HelloReply, TrainTask
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.core.wire import read_train_task, write_hello, write_refusal, write_scores, write_update
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.planning.work import work_from
from llmchain_fl.replies import Refusal, Scores, Update, read_hello, read_reply
from llmchain_fl.requests import write_score_task, write_train_task
from simulations.grid import InProcessGrid
from simulations.hostile import ATTACKS, HostileApp, Threat, hostile_sites
from simulations.malformed import MALFORMED

A, B, HEAD = "q.lora_A", "q.lora_B", "head.weight"
NAMES = ["north", "south", "west"]


def work(codec: str = "none") -> WorkSpec:
    config = build({"task": {"labels": ["x"]}, "data": {"train": "x"}, "compression": {"up": codec}})
    return work_from(config, {"x": "x"}, ("lora_A", "lora_B"), None)


def arrays(seed: int, rank: int = 3, size: int = 1) -> Arrays:
    draw = np.random.default_rng(seed)
    shapes = {A: (rank, 5 * size), B: (7 * size, rank), HEAD: (4 * size, 2)}
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def attack(name: str, delta: Arrays, strength: float = 2.0, seed: int = 0, handed: Arrays | None = None) -> Arrays:
    return ATTACKS[name](delta, handed or arrays(99), strength, np.random.default_rng(seed))


def flat(values: Arrays) -> np.ndarray:
    return np.concatenate([values[name].ravel() for name in sorted(values)]).astype(np.float64)


# -- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_whatever_is_sent_has_the_names_shapes_and_dtype_of_the_honest_update_and_leaves_it_alone(name: str) -> None:
    delta, kept = arrays(1), arrays(1)
    sent = attack(name, delta)
    assert {n: (v.shape, v.dtype) for n, v in sent.items()} == {n: (v.shape, v.dtype) for n, v in delta.items()}
    assert all(delta[n].tobytes() == kept[n].tobytes() for n in delta)


@pytest.mark.parametrize(("name", "cosine"), [("sign-flip", -1.0), ("scale", 1.0), ("backdoor", 1.0)])
@pytest.mark.parametrize("strength", [0.25, 1.0, 10.0])
def test_a_scaled_update_points_where_it_should_and_is_as_long_as_it_should_be(
    name: str, cosine: float, strength: float
) -> None:
    honest, sent = flat(arrays(1)), flat(attack(name, arrays(1), strength))
    assert np.linalg.norm(sent) == pytest.approx(strength * np.linalg.norm(honest), rel=1e-6)
    assert honest @ sent / np.linalg.norm(honest) / np.linalg.norm(sent) == pytest.approx(cosine, abs=1e-6)


@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_noise_is_as_long_as_the_honest_update_times_its_strength_and_has_nothing_to_do_with_it(
    strength: float,
) -> None:
    delta = arrays(1, size=400)
    sent = [flat(attack("noise", delta, strength, 100 + seed)) for seed in range(20)]
    size, norm = len(sent[0]), strength * np.linalg.norm(flat(delta))
    squares = np.mean([x @ x for x in sent])
    assert squares == pytest.approx(norm**2, rel=5 * math.sqrt(2 / size / 20))
    cosines = [abs(x @ flat(delta)) / np.linalg.norm(x) / np.linalg.norm(flat(delta)) for x in sent]
    assert max(cosines) < 5 / math.sqrt(size)
    assert abs(sent[0] @ sent[1]) / np.linalg.norm(sent[0]) / np.linalg.norm(sent[1]) < 5 / math.sqrt(size)


def test_a_free_rider_sends_nothing_but_zeros() -> None:
    assert not flat(attack("free-rider", arrays(1))).any()


@given(st.integers(1, 6), st.integers(0, 1000))
def test_rotated_factors_differ_and_have_the_same_product(rank: int, seed: int) -> None:
    delta, handed = arrays(seed, rank), arrays(seed + 1, rank)
    sent = attack("rotate", delta, 1.0, seed, handed)
    honest, turned = ({n: handed[n].astype(np.float64) + part[n] for n in handed} for part in (delta, sent))
    product = honest[B] @ honest[A]
    assert np.linalg.norm(turned[B] @ turned[A] - product) <= 1e-5 * np.linalg.norm(product)
    np.testing.assert_allclose(np.linalg.norm(turned[A]), np.linalg.norm(honest[A]), rtol=1e-5)
    assert rank == 1 or np.linalg.norm(turned[B] - honest[B]) > 1e-3 * np.linalg.norm(honest[B])
    assert sent[HEAD].tobytes() == delta[HEAD].tobytes()


def product(rule: str, sites: list[Arrays]) -> np.ndarray:
    """Delta W after a round of these full factors."""
    current = RULES[rule].begin({n: v for n, v in arrays(99).items() if n != HEAD}, 2.0)
    total = RULES[rule].start(current, 2.0, 1)
    for site in sites:
        total.add(SiteFactors({name: current[name] + site[name] for name in (A, B)}, 2.0, 1.0))
    served = serving(total.finish(), 2.0)
    return served[B].astype(np.float64) @ served[A]


@pytest.mark.parametrize(("rule", "harmless"), [("fedex", True), ("flora", True), ("flexlora", True), ("fedit", False)])
def test_a_rotated_update_changes_nothing_where_products_are_summed(rule: str, harmless: bool) -> None:
    """And ruins the mean of factors."""
    start = RULES[rule].begin({n: v for n, v in arrays(99).items() if n != HEAD}, 2.0)
    honest = [{name: arrays(seed)[name] for name in (A, B)} for seed in (1, 2, 3)]
    rotated = [honest[0], attack("rotate", honest[1], 1.0, 100, dict(start)), honest[2]]
    wanted = product(rule, honest)
    off = np.linalg.norm(product(rule, rotated) - wanted) / np.linalg.norm(wanted)
    assert off < 1e-5 if harmless else off > 0.1


def test_a_rotation_is_drawn_from_all_of_them_reflections_too() -> None:
    """At rank 1 there are two: as it is, and both factors turned around."""
    zero = {name: np.zeros_like(value) for name, value in arrays(99, rank=1).items()}
    turned = [flat(attack("rotate", zero, 1.0, seed, arrays(99, rank=1))).any() for seed in range(100)]
    assert 30 < sum(turned) < 70


def test_one_factor_alone_cannot_be_rotated() -> None:
    delta = {name: value for name, value in arrays(1).items() if name != A}
    assert flat(attack("rotate", delta)).tobytes() == flat(delta).tobytes()


# -- who is hostile ---------------------------------------------------------------------------------------------------

TEN = [f"site-{i:02d}" for i in range(10)]


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.1, 1), (0.2, 2), (0.25, 3), (0.3, 3), (0.5, 5)])
def test_a_share_of_the_sites_is_hostile(share: float, count: int) -> None:
    found = hostile_sites(TEN, share, 1)
    assert len(found) == count
    assert found <= set(TEN)
    assert hostile_sites(TEN, 0.1, 1) <= found or not share


@given(st.permutations(TEN), st.integers(0, 50))
def test_who_is_hostile_is_a_function_of_seed_and_names(order: list[str], seed: int) -> None:
    assert hostile_sites(order, 0.3, seed) == hostile_sites(TEN, 0.3, seed)


def test_another_seed_makes_other_sites_hostile() -> None:
    counts = [sum(site in hostile_sites(TEN, 0.3, seed) for seed in range(300)) for site in TEN]
    assert all(50 < count < 130 for count in counts)


@pytest.mark.parametrize(("share", "match"), [(-0.1, "at least 0"), (0.6, "at most 0.5"), (0.04, "no site at all")])
def test_a_share_that_makes_no_sense_is_refused(share: float, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        hostile_sites(TEN, share, 1)


def test_an_unknown_attack_without_strength_is_refused_with_both_faults() -> None:
    with pytest.raises(ConfigError, match=r"no attack 'magic'; known are sign-flip.*malformed") as caught:
        Threat("magic", 0.0, frozenset(), 1)
    assert len(caught.value.faults) == 2


# -- the wrapper ------------------------------------------------------------------------------------------------------


def honest_app(sent: Mapping[str, np.ndarray] = MappingProxyType({})) -> ClientApp:
    """Answers with the update ``arrays(1)`` (or ``sent``); west declines to train."""
    app = ClientApp()

    @app.query()
    def hello(message: Message, context: Context) -> Message:
        return Message(write_hello(HelloReply(str(context.node_config["site-name"]))), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site, task = str(context.node_config["site-name"]), read_train_task(message.content)
        content = (
            write_refusal("budget") if site == "west" else write_update(task.round, sent or arrays(1), f"of {site}")
        )
        return Message(content, reply_to=message)

    @app.evaluate()
    def score(message: Message, context: Context) -> Message:
        return Message(write_scores(1, {"all": 0.5}), reply_to=message)

    return app


def replies(
    threat: Threat,
    number: int = 3,
    kind: str = MessageType.TRAIN,
    codec: str = "none",
    sent: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> dict[str, RecordDict | None]:
    """Site -> its reply; None for Flower's own word that the program failed."""
    grid = InProcessGrid(HostileApp(honest_app(sent), threat), NAMES)
    told = TrainTask("run", number, 0, "all", 0.1, work(codec).to_json(), arrays(99))
    contents = {
        MessageType.TRAIN: write_train_task(told),
        MessageType.EVALUATE: write_score_task(ScoreTask(number, ("all",), "{}", arrays(99))),
        MessageType.QUERY: RecordDict(),
    }
    asked = [Message(contents[kind], dst_node_id=node, message_type=kind) for node in grid.get_node_ids()]
    found = zip(NAMES, grid.send_and_receive(asked), strict=True)
    return {name: None if reply.has_error() else reply.content for name, reply in found}


def update(content: RecordDict | None) -> Update:
    assert content is not None
    answer = read_reply(content)
    assert isinstance(answer, Update)
    return answer


def test_hostile_sites_twist_their_updates_and_keep_round_and_receipt_and_the_others_are_honest() -> None:
    found = replies(Threat("sign-flip", 2.0, frozenset({"south", "west"}), 1))
    assert flat(update(found["north"]).arrays).tobytes() == flat(arrays(1)).tobytes()
    south = update(found["south"])
    np.testing.assert_allclose(flat(south.arrays), -2.0 * flat(arrays(1)), rtol=1e-6)
    assert (south.round, south.receipt) == (3, "of south")
    assert found["west"] is not None
    assert read_reply(found["west"]) == Refusal("budget")


def test_with_no_hostile_site_nothing_is_changed() -> None:
    found = replies(Threat("sign-flip", 2.0, frozenset(), 1))
    assert all(flat(update(found[n]).arrays).tobytes() == flat(arrays(1)).tobytes() for n in ("north", "south"))


def test_a_hostile_site_answers_other_questions_like_everybody() -> None:
    threat = Threat("malformed", 1.0, frozenset(NAMES), 1)
    assert [
        read_hello(content).site for content in replies(threat, kind=MessageType.QUERY).values() if content
    ] == NAMES
    scores = replies(threat, kind=MessageType.EVALUATE).values()
    assert [read_reply(content) for content in scores if content] == [Scores(1, {"all": 0.5})] * 3


def test_noise_is_the_same_in_the_same_run_and_another_one_at_each_site_and_in_each_round() -> None:
    def sent(site: str, number: int, seed: int) -> bytes:
        threat = Threat("noise", 1.0, frozenset({"north", "south"}), seed)
        return flat(update(replies(threat, number)[site]).arrays).tobytes()

    different = [sent("north", 1, 1), sent("south", 1, 1), sent("north", 2, 1), sent("north", 1, 2)]
    assert len(set(different)) == 4
    assert sent("north", 1, 1) == different[0]


@pytest.mark.parametrize("codec", ["bf16", "int8", "int4"])
def test_what_travels_in_small_is_unpacked_twisted_and_packed_again(codec: str) -> None:
    """Up to what the rounding of the second packing can do."""
    spec, draw = work(codec).codec, np.random.default_rng(0).random
    blobs = encode(arrays(1), spec, draw)
    found = update(replies(Threat("sign-flip", 2.0, frozenset({"south"}), 1), codec=codec, sent=blobs)["south"])
    shapes = {name: value.shape for name, value in arrays(1).items()}
    sent, honest = flat(decode(found.arrays, shapes, spec)), flat(decode(blobs, shapes, spec))
    assert honest @ sent / np.linalg.norm(honest) / np.linalg.norm(sent) < -0.98
    assert np.linalg.norm(sent) == pytest.approx(2 * np.linalg.norm(honest), rel=0.1)


def test_a_number_that_cannot_be_packed_is_left_out_and_does_not_stop_the_run() -> None:
    spec, draw = work("int8").codec, np.random.default_rng(0).random
    blobs = encode(arrays(1), spec, draw)
    found = update(replies(Threat("scale", 1e38, frozenset({"south"}), 1), codec="int8", sent=blobs)["south"])
    sent = flat(decode(found.arrays, {name: value.shape for name, value in arrays(1).items()}, spec))
    assert 0 < np.abs(sent).max() <= 2.0**127


def test_malformed_sites_go_through_all_kinds_and_not_all_send_the_same_one() -> None:
    threat = Threat("malformed", 1.0, frozenset({"north", "south"}), 1)
    rounds = range(1, len(MALFORMED) + 1)
    north, south = ([threat.kind(site, number) for number in rounds] for site in ("north", "south"))
    assert set(north) == set(south) == set(MALFORMED)
    assert all(a != b for a, b in zip(north, south, strict=True))
    failing = 1 + north.index("a program that fails")
    assert replies(threat, failing)["north"] is None
    refusing = 1 + north.index("a refusal in its own words")
    assert read_reply(replies(threat, refusing)["north"] or RecordDict()) == Refusal("unknown")
