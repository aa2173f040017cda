"""Sites come late, leave, restart and come back under another number: each row of the tables in ``roll_call.py``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo

from llmchain_fl.config.schema import SitesConfig
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.messages import PROTOCOL, HelloReply
from llmchain_fl.core.wire import write_hello
from llmchain_fl.run_ends import RunPaused
from server.nameless import FIRST_WAIT, LONGEST_WAIT
from server.roll_call import AWAY, RollCall, connected
from simulations.grid import InProcessGrid


class Coming(InProcessGrid):
    """Nodes "name/number": site names that may be there twice; who is connected at each look is given."""

    def __init__(self, *nodes: str) -> None:
        super().__init__(hello(), nodes)
        self._ids = dict(zip(nodes, super().get_node_ids(), strict=True))
        self.registered: dict[str, str] = {}
        self.looks: Iterator[Iterable[str]] = iter(())
        self.here: Iterable[str] = nodes
        self.questions = 0

    def id(self, node: str) -> int:
        return self._ids[node]

    def get_node_ids(self) -> list[int]:
        self.here = next(self.looks, self.here)
        return [self._ids[node] for node in self.here]

    def get_nodes(self) -> list[NodeInfo]:
        there = self.get_node_ids()
        names = {self._ids[node]: name for node, name in self.registered.items()}
        return [NodeInfo(node_id=node, name=names.get(node, "")) for node in there]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        asked = list(messages)
        self.questions += len(asked)
        return super().send_and_receive(asked, timeout=timeout)


def hello() -> ClientApp:
    app = ClientApp()

    @app.query()
    def name(message: Message, context: Context) -> Message:
        name = str(context.node_config["site-name"]).partition("/")[0]
        if name == "old":
            return Message(write_hello(HelloReply("west", protocol=PROTOCOL - 1)), reply_to=message)
        if name == "mute":
            raise ValueError("no name")
        return Message(write_hello(HelloReply(name)), reply_to=message)

    return app


def settings(count: int, **more: Any) -> SitesConfig:
    return SitesConfig(count=count, wait_seconds=0.2, **more)


def test_every_site_is_found_by_its_name() -> None:
    grid = Coming("b", "a")
    assert RollCall(settings(2)).first(grid) == {"a": grid.id("a"), "b": grid.id("b")}


def test_the_server_waits_for_a_site_that_is_slow() -> None:
    grid = Coming("a", "b")
    grid.looks = iter([[], ["a"], ["a"], ["a", "b"]])
    assert connected(RollCall(settings(2)).first(grid)) == {"a", "b"}
    assert grid.questions == 2


def test_waiting_for_sites_ends_with_a_clear_error() -> None:
    grid = Coming("a", "b")
    grid.here = ["a"]
    with pytest.raises(RunError, match=r"1 of 2 sites connected within 0\.2 s"):
        RollCall(settings(2)).first(grid)


@pytest.mark.parametrize("here", [["a", "b"], ["a", "b", "late"]])
def test_a_site_that_comes_later_need_not_be_there_and_may_be(here: list[str]) -> None:
    grid = Coming("a", "b", "late")
    grid.here = here
    nodes = RollCall(settings(3), later=["late"]).first(grid)
    assert list(nodes) == ["a", "b", "late"]
    assert connected(nodes) == set(here)


def test_a_site_that_comes_later_does_not_stand_in_for_one_that_must_be_there() -> None:
    grid = Coming("a", "b", "late")
    grid.here = ["a", "late"]
    with pytest.raises(RunError, match="2 of 3 sites connected"):
        RollCall(settings(3), later=["late"]).first(grid)


def test_a_later_site_that_nobody_knows_makes_one_name_too_many() -> None:
    with pytest.raises(RunError, match=r"4 names for 3 sites: a, b, late, typo"):
        RollCall(settings(3), later=["typo", "late"]).first(Coming("a", "b"))


def test_where_all_places_are_taken_a_later_site_is_none_of_the_run() -> None:
    assert list(RollCall(settings(2), later=["typo"]).first(Coming("a", "b"))) == ["a", "b"]


def test_two_sites_of_one_name_are_refused() -> None:
    with pytest.raises(RunError, match="two sites call themselves a"):
        RollCall(settings(2)).first(Coming("a/1", "a/2"))


@pytest.mark.parametrize("odd", ["mute", "\x1b[31mepsilon 0.00\n", "", "..", "x" * 65, "a b"])
def test_a_node_without_a_name_that_a_site_can_have_is_no_site_and_stops_nobody(
    odd: str, caplog: pytest.LogCaptureFixture
) -> None:
    grid = Coming("a", odd, "b")
    assert connected(RollCall(settings(2)).first(grid)) == {"a", "b"}
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_where_a_site_is_missing_it_is_said_that_a_node_gave_no_name() -> None:
    with pytest.raises(
        RunError, match=r"1 of 2 sites connected within 0\.2 s; connected, and no site: node 3: its program"
    ):
        RollCall(settings(2)).first(Coming("a", "mute"))


def test_a_node_of_another_protocol_is_named_by_its_key_and_its_protocol_and_holds_up_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    grid = Coming("a", "old", "b")
    grid.registered = {"old": "west"}
    assert connected(RollCall(settings(2)).first(grid)) == {"a", "b"}
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f'node 3 (registered as "west") is no site: it speaks protocol {PROTOCOL - 1}, the server')


class Silent(Coming):
    """A node of this name is asked and never answers: ``waited`` seconds pass, by a clock of its own."""

    def __init__(self, clock: Clock, *nodes: str) -> None:
        super().__init__(*nodes)
        self._clock, self.waited = clock, list[float]()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        asked = list(messages)
        yield from super().send_and_receive([one for one in asked if one.metadata.dst_node_id != 3], timeout=timeout)
        if any(one.metadata.dst_node_id == 3 for one in asked):
            self.waited.append(timeout or 0.0)
            self._clock.now += timeout or 0.0


class Clock:
    """For ``time`` in the files that wait."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in ("roll_call", "nameless"):
        monkeypatch.setattr(f"server.{module}.time", made)
    return made


def test_a_node_that_never_answers_costs_a_run_of_a_day_three_quarters_of_an_hour_at_most(clock: Clock) -> None:
    grid = Silent(clock, "a", "silent", "b")
    roll = RollCall(SitesConfig(count=2, wait_seconds=120.0))
    assert connected(roll.first(grid)) == {"a", "b"}
    assert clock.now == FIRST_WAIT
    rounds = 0
    while clock.now < 86_400:
        roll.again(grid, ["a", "b"])
        clock.now += 10
        rounds += 1
    assert sum(grid.waited) < 2700 < 60 * rounds  # as it was when each round waited a minute
    late = grid.waited[len(grid.waited) // 2 :]
    assert len(late) < 20
    assert set(late) == {LONGEST_WAIT}


def test_a_node_that_goes_and_comes_back_is_asked_at_once(clock: Clock) -> None:
    grid = Silent(clock, "a", "silent")
    roll = RollCall(SitesConfig(count=1, wait_seconds=120.0))
    roll.first(grid)
    for _ in range(5):
        clock.now += 200
        roll.again(grid, ["a"])
    asked = len(grid.waited)
    roll.again(grid, ["a"])
    assert len(grid.waited) == asked
    for there in (["a"], ["a", "silent"]):
        grid.here = there
        roll.again(grid, ["a"])
    assert len(grid.waited) == asked + 1


def test_a_name_under_which_a_key_is_registered_is_printed_without_escape_codes() -> None:
    grid = Coming("a", "b")
    grid.registered = {"b": "\x1b[2Jc"}
    with pytest.raises(RunError, match=r"registered as \"\\x1b\[2Jc\" calls itself"):
        RollCall(settings(2)).first(grid)


def test_a_site_must_have_the_name_that_its_key_is_registered_by() -> None:
    grid = Coming("a", "b")
    grid.registered = {"a": "a", "b": "c"}
    with pytest.raises(RunError, match=r'registered as "c" calls itself "b"'):
        RollCall(settings(2)).first(grid)
    grid.registered = {"a": "a"}
    assert connected(RollCall(settings(2)).first(grid)) == {"a", "b"}


def test_nobody_takes_the_place_of_a_site_that_is_away_with_a_key_of_another_name() -> None:
    grid = Coming("a/1", "a/2", "b")
    grid.registered = {"a/1": "a", "a/2": "mallory", "b": "b"}
    grid.here = ["a/1", "b"]
    roll = RollCall(settings(2))
    roll.first(grid)
    grid.here = ["a/2", "b"]
    assert roll.again(grid, ["a", "b"])["a"] == AWAY
    grid.here = ["a/1", "b"]
    assert roll.again(grid, ["a", "b"])["a"] == grid.id("a/1")


def test_a_run_that_goes_on_does_so_without_a_site_that_is_off_if_enough_are_there() -> None:
    grid = Coming("a", "b", "c")
    grid.here = ["a", "c"]
    nodes = RollCall(settings(3, minimum=2), known=["a", "b", "c"]).first(grid)
    assert nodes == {"a": grid.id("a"), "b": AWAY, "c": grid.id("c")}
    grid.here = ["a"]
    with pytest.raises(RunError, match="1 of 3 sites connected"):
        RollCall(settings(3, minimum=2), known=["a", "b", "c"]).first(grid)


def test_a_stranger_does_not_make_up_the_number_of_a_run_that_goes_on() -> None:
    grid = Coming("a", "b", "new")
    grid.here = ["a", "new"]
    with pytest.raises(RunError, match="sites connected within"):
        RollCall(settings(2, minimum=2), known=["a", "b"]).first(grid)


def test_a_run_that_goes_on_takes_no_site_that_it_does_not_know() -> None:
    nodes = RollCall(settings(2), known=["a", "b"]).first(Coming("a", "b", "new"))
    assert list(nodes) == ["a", "b"]


def test_where_nobody_has_moved_nobody_is_asked_again() -> None:
    grid = Coming("a", "b")
    roll = RollCall(settings(2))
    first = roll.first(grid)
    assert roll.again(grid, ["a", "b"]) == first
    assert grid.questions == 2


def test_a_site_that_has_gone_is_away_and_comes_back_under_any_number() -> None:
    grid = Coming("a/1", "a/2", "b")
    grid.here = ["a/1", "b"]
    roll = RollCall(settings(2))
    roll.first(grid)
    grid.here = ["b"]
    assert roll.again(grid, ["a", "b"]) == {"a": AWAY, "b": grid.id("b")}
    grid.here = ["a/2", "b"]
    assert roll.again(grid, ["a", "b"])["a"] == grid.id("a/2")
    grid.here = ["a/1", "b"]
    assert roll.again(grid, ["a", "b"])["a"] == grid.id("a/1")


def test_a_name_that_is_taken_is_not_given_to_a_second_node_until_the_first_has_gone() -> None:
    grid = Coming("a/1", "a/2", "b")
    grid.here = ["a/1", "b"]
    roll = RollCall(settings(2))
    roll.first(grid)
    grid.here = ["a/1", "a/2", "b"]
    assert roll.again(grid, ["a", "b"])["a"] == grid.id("a/1")
    grid.here = ["a/2", "b"]
    assert roll.again(grid, ["a", "b"])["a"] == grid.id("a/2")


def test_a_stranger_is_asked_once_and_never_taken_in() -> None:
    grid = Coming("a", "b", "stranger")
    grid.here = ["a", "b"]
    roll = RollCall(settings(2))
    roll.first(grid)
    grid.here = ["a", "b", "stranger"]
    for _ in range(3):
        assert list(roll.again(grid, ["a", "b"])) == ["a", "b"]
    assert grid.questions == 3


def test_a_node_that_gives_no_name_during_the_run_is_left_out_and_asked_again(clock: Clock) -> None:
    grid = Coming("a", "mute")
    grid.here = ["a"]
    roll = RollCall(settings(1))
    roll.first(grid)
    grid.here = ["a", "mute"]
    for _ in range(2):
        assert connected(roll.again(grid, ["a"])) == {"a"}
        clock.now += 100
    assert grid.questions == 3


def test_with_too_few_connected_the_server_waits_and_then_says_how_to_go_on() -> None:
    grid = Coming("a", "b")
    roll = RollCall(settings(2, minimum=2))
    roll.first(grid)
    grid.looks = iter([["a"], ["a"], ["a", "b"]])
    assert connected(roll.again(grid, ["a", "b"])) == {"a", "b"}
    grid.here = ["a"]
    with pytest.raises(RunPaused, match="1 of 2 sites are connected, a round needs 2"):
        roll.again(grid, ["a", "b"])


def test_a_round_in_which_nobody_is_due_waits_for_nobody() -> None:
    grid = Coming("a")
    roll = RollCall(settings(1))
    roll.first(grid)
    grid.here = []
    assert roll.again(grid, []) == {"a": AWAY}
