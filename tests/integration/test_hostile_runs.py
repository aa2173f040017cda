"""Whole runs with sites that fail: the honest ones end with the same adapter, and who fails is set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp

from client.app import make_app
from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import RunError
from llmchain_fl.progress import RoundReport, Silent
from llmchain_fl.run_dir import RunDir
from server.app import run_all
from simulations.grid import InProcessGrid
from simulations.hostile import HostileApp, Threat
from simulations.malformed import MALFORMED
from simulations.prepare import prepare_sites

HONEST, HOSTILE = ["site-b", "site-d"], ["site-a", "site-c", "site-e"]
FAILS = Mapping[str, range]


class Failing(ClientApp):
    """Some sites' program crashes in some rounds. ``asked``: (round, site) of every train message."""

    def __init__(self, honest: ClientApp, fails: FAILS) -> None:
        super().__init__()
        self._honest, self._fails, self.asked = honest, fails, list[tuple[int, str]]()
        self.scored: list[tuple[int, str]] = []

    def __call__(self, message: Message, context: Context) -> Message:
        if message.metadata.message_type == MessageType.TRAIN:
            site, number = str(context.node_config["site-name"]), int(message.content["config"]["round"])
            self.asked.append((number, site))
            if number in self._fails.get(site, ()):
                raise RuntimeError("a program that fails")
        if message.metadata.message_type == MessageType.EVALUATE:
            number = int(message.content["config"]["round"])
            self.scored.append((number, str(context.node_config["site-name"])))
        return self._honest(message, context)

    def rounds(self, site: str) -> list[int]:
        return [number for number, name in self.asked if name == site]


class StopAfter(Silent):
    """Pulls the plug after a round."""

    def __init__(self, number: int) -> None:
        self._number = number

    def round_finished(self, report: RoundReport) -> None:
        if report.round == self._number:
            raise KeyboardInterrupt


class Game:
    """A run over sites with records of their own, one after the other half of the tiny federation's."""

    def __init__(self, tiny: Any, folder: Path, names: Sequence[str], rounds: int, **sections: Any) -> None:
        (folder / "records").mkdir(parents=True)
        lines = tiny.train.read_text().splitlines()
        for name in names:
            own = lines[ord(name[-1]) % 5 :: 5]
            (folder / "records" / f"{name}.jsonl").write_text("\n".join(own) + "\n")
        self.config = tiny.config(
            data={"train": f"{folder}/records/{{site}}.jsonl"},
            sites={"count": len(names), "held_out": 0.0, "quarantine_after": 0, **sections.pop("sites", {})},
            continual={"guards": []},
            train={"steps": 1},
            stage=[{"name": "all", "rounds": rounds}],
            **sections,
        )
        self.run = RunDir.create(folder / "run", to_toml(self.config))

    def play(self, fails: FAILS | None = None, threat: Threat | None = None, progress: Silent | None = None) -> Failing:
        sites = {site.name: site for site in prepare_sites(self.config, self.run.sites)}
        app = make_app(lambda context: sites[str(context.node_config["site-name"])])
        failing = Failing(HostileApp(app, threat) if threat else app, fails or {})
        run_all(self.config, self.run, InProcessGrid(failing, sites), progress or Silent())
        return failing

    @property
    def adapter(self) -> Arrays:
        return read_adapter(self.run.adapter)[1]

    def rows(self, metric: str) -> list[dict[str, Any]]:
        return [row for row in self.run.rows() if row["metric"] == metric]


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_a_run_with_hostile_sites_between_the_honest_ones_ends_with_the_very_adapter_of_these(
    tiny: Any, tmp_path: Path
) -> None:
    """Every kind at every position, three at a time."""
    alone = Game(tiny, tmp_path / "honest", HONEST, len(MALFORMED))
    among = Game(tiny, tmp_path / "hostile", [*HONEST, *HOSTILE], len(MALFORMED))
    alone.play()
    among.play(threat=Threat("malformed", 1.0, frozenset(HOSTILE), 1))
    assert same(among.adapter, alone.adapter)
    scores = [[row["value"] for row in game.rows("accuracy")] for game in (alone, among)]
    assert scores[0] == scores[1]
    refused = [(row["site"], row["reason"]) for row in among.rows("refused")]
    assert len(refused) == len(MALFORMED) * len(HOSTILE)
    assert set(refused) == {(site, kind.reason) for kind in MALFORMED.values() for site in HOSTILE}


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.part(1)
def test_in_a_private_run_honest_updates_are_within_the_bound_and_one_that_is_a_million_times_as_long_is_not(
    tiny: Any, tmp_path: Path, optimizer: str
) -> None:
    """Without a word of the operator: ``aggregation.max_update_norm`` is 0."""
    private = {"enabled": True, "noise_multiplier": 3.0, "unit": "record"}
    game = Game(tiny, tmp_path / "run", [*HONEST, "site-c"], 4, privacy=private)
    game.config = game.config.model_copy(
        update={"train": game.config.train.model_copy(update={"optimizer": optimizer, "steps": 4})}
    )
    game.play(threat=Threat("scale", 1e6, frozenset(["site-c"]), 1))
    assert {(row["site"], row["reason"]) for row in game.rows("refused")} == {("site-c", "norm")}
    assert len(game.rows("update_norm")) == 8


# -- quarantine -------------------------------------------------------------------------------------------------------

ASIDE = {"quarantine_after": 2, "quarantine_rounds": 2}


@pytest.mark.thorough
def test_a_site_that_always_fails_is_asked_less_and_less_and_the_others_do_not_notice(
    tiny: Any, tmp_path: Path
) -> None:
    alone = Game(tiny, tmp_path / "honest", HONEST, 12)
    among = Game(tiny, tmp_path / "failing", [*HONEST, "site-c"], 12, sites=ASIDE)
    alone.play()
    asked = among.play({"site-c": range(1, 99)})
    assert asked.rounds("site-c") == [1, 2, 5, 10]
    assert asked.rounds("site-b") == list(range(1, 13))
    assert same(among.adapter, alone.adapter)
    told = [(row["round"], row["site"], row["value"], row["until"], row["times"]) for row in among.rows("quarantine")]
    assert told == [(2, "site-c", 2.0, 4, 1), (5, "site-c", 4.0, 9, 2), (10, "site-c", 8.0, 18, 3)]


def test_a_site_that_was_repaired_comes_back_and_is_summed_again(tiny: Any, tmp_path: Path) -> None:
    game = Game(tiny, tmp_path / "run", [*HONEST, "site-c"], 8, sites=ASIDE)
    asked = game.play({"site-c": range(1, 4)})
    assert asked.rounds("site-c") == [1, 2, 5, 6, 7, 8]
    assert [row["round"] for row in game.rows("update_norm") if row["site"] == "site-c"] == [5, 6, 7, 8]
    assert [(row["round"], row["value"]) for row in game.rows("quarantine")] == [(2, 2.0), (5, 0.0)]


@pytest.mark.parametrize("stop", [1, 2, 4, 5])
@pytest.mark.part(1)
def test_a_run_that_was_stopped_goes_on_with_the_same_sites_set_aside(tiny: Any, tmp_path: Path, stop: int) -> None:
    whole = Game(tiny, tmp_path / "whole", [*HONEST, "site-c"], 6, sites=ASIDE)
    wanted = whole.play({"site-c": range(1, 6)}).asked
    game = Game(tiny, tmp_path / "stopped", [*HONEST, "site-c"], 6, sites=ASIDE)
    with pytest.raises(KeyboardInterrupt):
        game.play({"site-c": range(1, 6)}, progress=StopAfter(stop))
    rest = game.play({"site-c": range(1, 6)}).asked
    assert rest == [(number, site) for number, site in wanted if number > stop]
    assert same(game.adapter, whole.adapter)
    assert game.rows("quarantine") == whole.rows("quarantine")


def test_a_site_that_is_set_aside_pays_for_nothing(tiny: Any, tmp_path: Path) -> None:
    private = {"enabled": True, "noise_multiplier": 1.0, "unit": "record"}
    game = Game(tiny, tmp_path / "run", [*HONEST, "site-c"], 6, sites=ASIDE, privacy=private)
    asked = game.play({"site-c": range(1, 99)})
    spent = game.run.read_privacy()["sites"]
    assert asked.rounds("site-c") == [1, 2, 5]
    assert {site: spent[site]["rounds"] for site in spent} == {"site-b": 6, "site-c": 3, "site-d": 6}


def test_a_site_that_is_set_aside_or_excluded_is_not_sent_the_adapter_for_its_score_either(
    tiny: Any, tmp_path: Path
) -> None:
    sites = {**ASIDE, "held_out": 0.3, "excluded": ["site-a"]}
    game = Game(tiny, tmp_path / "run", [*HONEST, "site-a", "site-c"], 4, sites=sites)
    asked = game.play({"site-c": range(1, 99)})
    assert asked.rounds("site-c") == [1, 2]
    assert sorted(asked.scored) == [(4, "site-b"), (4, "site-d")]


def test_where_a_round_would_be_of_too_few_the_least_guilty_is_asked_all_the_same(tiny: Any, tmp_path: Path) -> None:
    names = [*HONEST, "site-a", "site-c"]
    game = Game(tiny, tmp_path / "run", names, 6, sites={**ASIDE, "quarantine_after": 1, "minimum": 3})
    asked = game.play({"site-a": range(2, 4), "site-c": range(1, 99)})
    others = ["".join(s[-1] for n, s in asked.asked if n == number and s not in HONEST) for number in range(1, 7)]
    assert others == ["ac", "a", "c", "a", "a", "a"]  # c's time ends first in round 3, a's is the shorter in round 4
    assert all(asked.rounds(site) == list(range(1, 7)) for site in HONEST)


def test_without_quarantine_a_failing_site_is_asked_in_every_round(tiny: Any, tmp_path: Path) -> None:
    game = Game(tiny, tmp_path / "run", [*HONEST, "site-c"], 4)
    assert game.play({"site-c": range(1, 99)}).rounds("site-c") == [1, 2, 3, 4]
    assert game.rows("quarantine") == []


def test_a_round_in_which_everybody_fails_still_ends_the_run_with_a_word(tiny: Any, tmp_path: Path) -> None:
    game = Game(tiny, tmp_path / "run", HONEST, 3, sites=ASIDE)
    with pytest.raises(RunError, match="round 2: none of 2 sites gave an update"):
        game.play(dict.fromkeys(HONEST, range(2, 3)))
