"""Every way in which a run ends: a round that was asked moves it on or ends it, and what ended it is said first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import LlmchainError, RunError
from llmchain_fl.core.messages import HelloReply
from llmchain_fl.core.wire import read_train_task, write_hello, write_refusal, write_update
from llmchain_fl.guards.protocol import View
from llmchain_fl.guards.server_guards import ServerGuards
from llmchain_fl.progress import Silent
from llmchain_fl.report.verdict import verdict
from llmchain_fl.run_dir import RunDir
from llmchain_fl.run_ends import RunPaused, RunStopped
from server.app import app as server_app
from server.app import run_all
from server.scoring import Scorer
from server.state import last_state
from simulations.grid import InProcessGrid

Says = Callable[[str, int], RecordDict | None]


class Scripted(ClientApp):
    """Sites that train nothing: each answers as ``says`` tells for (site, round); None: a small update."""

    def __init__(self, says: Says) -> None:
        super().__init__()
        self.asked: list[tuple[int, str]] = []

        @self.query()
        def hello(message: Message, context: Context) -> Message:
            return Message(write_hello(HelloReply(str(context.node_config["site-name"]))), reply_to=message)

        @self.train()
        def train(message: Message, context: Context) -> Message:
            site, task = str(context.node_config["site-name"]), read_train_task(message.content)
            self.asked.append((task.round, site))
            said = says(site, task.round)
            small = {name: np.full_like(v, 0.001) for name, v in task.arrays.items() if name.endswith("lora_B")}
            return Message(said or write_update(task.round, small), reply_to=message)


def config_of(tiny: Any, rounds: int = 4, **sections: Any) -> RunConfig:
    sites = {"count": 2, "held_out": 0.0, **sections.pop("sites", {})}
    stages = sections.pop("stage", [{"name": "all", "rounds": rounds}])
    made: RunConfig = tiny.config(sites=sites, continual={"guards": []}, stage=stages, **sections)
    return made


def play(
    config: RunConfig, run: RunDir, says: Says = lambda _site, _round: None
) -> tuple[Scripted, LlmchainError | None]:
    """What was asked, and how it ended."""
    app, ended = Scripted(says), None
    try:
        run_all(config, run, InProcessGrid(app, ["a", "b"][: config.sites.count]), Silent())
    except LlmchainError as error:
        ended = error
    return app, ended


def fresh(config: RunConfig, path: Path) -> RunDir:
    return RunDir.create(path, to_toml(config))


def budget(_site: str, _round: int) -> RecordDict:
    return write_refusal("budget")


def first_words(run: RunDir) -> str:
    return verdict(run.rows(), run.read_privacy())[0]


# -- budgets of which the server knows nothing ------------------------------------------------------------------------


def test_a_round_for_which_no_site_can_pay_is_asked_once_and_a_run_that_trained_nothing_is_an_error(
    tiny: Any, tmp_path: Path
) -> None:
    config = config_of(tiny)
    run = fresh(config, tmp_path / "run")
    app, ended = play(config, run, budget)
    assert app.asked == [(1, "a"), (1, "b")]
    assert type(ended) is RunError
    assert "nothing was trained in 0 of 4 rounds" in str(ended)
    assert not run.adapter.exists()
    assert not (run.path / "stages").exists()
    assert first_words(run).startswith("STOPPED after 0 of 4 rounds: nothing was trained")
    assert play(config, run, budget)[0].asked == []


def test_a_run_whose_budget_ends_in_the_middle_keeps_what_it_learned_and_says_so_first(
    tiny: Any, tmp_path: Path
) -> None:
    config = config_of(tiny)
    run = fresh(config, tmp_path / "run")
    app, ended = play(config, run, lambda site, number: budget(site, number) if number > 2 else None)
    assert [number for number, _ in app.asked] == [1, 1, 2, 2, 3, 3]
    assert type(ended) is RunStopped
    assert "stopped after 2 of 4 rounds: every site has used up its budget" in str(ended)
    assert next(iter(read_adapter(run.adapter)[1].values())).size
    assert first_words(run) == "STOPPED after 2 of 4 rounds: every site has used up its budget."
    assert run.read_privacy()["stopped"] == "every site has used up its budget"
    (row,) = [row for row in run.rows() if row["metric"] == "stopped"]
    assert (row["value"], row["planned"], row["reason"]) == (2.0, 4, "every site has used up its budget")
    page = run.report.read_text()
    assert page.index("STOPPED after 2 of 4 rounds") < page.index("<ul>")


def test_a_run_that_was_stopped_says_so_when_it_is_asked_to_go_on_and_asks_nobody(tiny: Any, tmp_path: Path) -> None:
    config = config_of(tiny)
    run = fresh(config, tmp_path / "run")
    play(config, run, lambda site, number: budget(site, number) if number > 2 else None)
    rows = run.rows()
    app, ended = play(config, run)
    assert app.asked == []
    assert type(ended) is RunStopped
    assert "nothing to go on with" in str(ended)
    assert run.rows() == rows


def test_what_a_site_cannot_pay_in_one_stage_it_is_still_asked_for_in_another(tiny: Any, tmp_path: Path) -> None:
    """With disjoint stages each stage is paid by persons of its own."""
    private = {"enabled": True, "noise_multiplier": 2.0, "stages": "disjoint"}
    stages = [{"name": "one", "rounds": 3}, {"name": "two", "rounds": 2}]
    config = config_of(tiny, privacy=private, stage=stages)
    run = fresh(config, tmp_path / "run")
    app, ended = play(config, run, lambda site, number: budget(site, number) if number in (2, 3) else None)
    assert ended is None
    assert sorted({number for number, _ in app.asked}) == [1, 2, 4, 5]
    assert [(row["round"], row["reason"]) for row in run.rows() if row["metric"] == "skipped"] == [
        (2, "nobody can pay"),
        (3, "nobody can pay"),
    ]
    told = verdict(run.rows(), run.read_privacy())
    assert told[0].startswith("After 3 rounds")
    assert "Rounds without training: nobody can pay in round 2, 3." in told


def test_where_one_site_can_pay_the_other_is_asked_again_for_it_may_have_been_given_more(
    tiny: Any, tmp_path: Path
) -> None:
    config = config_of(tiny)
    run = fresh(config, tmp_path / "run")
    app, ended = play(config, run, lambda site, number: budget(site, number) if site == "a" else None)
    assert ended is None
    assert app.asked == [(number, site) for number in range(1, 5) for site in "ab"]


def test_a_plan_whose_first_round_is_dearer_than_the_target_is_an_error_and_writes_no_adapter(
    tiny: Any, tmp_path: Path
) -> None:
    private = {"enabled": True, "noise_multiplier": 0.4, "epsilon": 0.5, "unit": "record"}
    config = config_of(tiny, privacy=private)
    run = fresh(config, tmp_path / "run")
    app, ended = play(config, run)
    assert app.asked == []
    assert type(ended) is RunError
    assert "the first round costs epsilon" in str(ended)
    assert "delta 1e-5, per record, PLD accountant, noise added at each site" in str(ended)
    assert "more than the target of 0.5" in str(ended)
    assert not run.adapter.exists()
    assert "every site is within the target" not in first_words(run)
    assert "nothing was trained" in first_words(run)


def test_rounds_of_fewer_than_the_minimum_train_nothing_and_a_run_of_these_is_an_error(
    tiny: Any, tmp_path: Path
) -> None:
    config = config_of(tiny, sites={"minimum": 2})
    run = fresh(config, tmp_path / "run")
    _, ended = play(config, run, lambda site, _: write_refusal("data") if site == "a" else None)
    assert type(ended) is RunError
    assert "nothing was trained in 4 of 4 rounds" in str(ended)
    assert not run.adapter.exists()
    assert not (run.path / "stages").exists()


ANSWERS = ["budget", "data", "privacy", "error", "update"]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(ANSWERS), min_size=6, max_size=6), st.sampled_from([1, 2]), st.sampled_from([0, 1]))
def test_whatever_sites_answer_no_round_is_asked_twice_and_a_run_ends(
    tiny: Any, tmp_path_factory: pytest.TempPathFactory, answers: list[str], minimum: int, cohort: int
) -> None:
    config = config_of(tiny, 3, sites={"minimum": min(minimum, cohort or 2), "cohort": cohort})
    run = fresh(config, tmp_path_factory.mktemp("any") / "run")
    given_ = {(number, site): answers[2 * number - 2 + (site == "b")] for number in (1, 2, 3) for site in "ab"}

    def says(site: str, number: int) -> RecordDict | None:
        code = given_[number, site]
        return None if code == "update" else write_refusal(code)

    app, ended = play(config, run, says)
    assert len(app.asked) == len(set(app.asked))
    state = last_state(run.state)
    assert state is not None
    assert state.round == 3 or ended is not None
    assert run.adapter.exists() == (state.summed > 0)
    assert (ended is None) <= (state.summed > 0)
    if isinstance(ended, RunStopped):
        assert first_words(run).startswith("STOPPED")


def test_for_flower_a_run_that_was_stopped_is_one_that_failed_with_that_reason(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flower takes what a ServerApp raises for the status and its details."""
    sites, stages = {"count": 2, "held_out": 0.0}, [{"name": "all", "rounds": 4}]
    scenario = tiny.scenario(tmp_path / "run.toml", sites=sites, continual={"guards": []}, stage=stages)
    given_ = {"scenario": str(scenario), "out": str(tmp_path / "run")}
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=given_)  # type: ignore[arg-type]
    says = Scripted(lambda site, number: budget(site, number) if number > 1 else None)
    with pytest.raises(RunStopped, match="stopped after 1 of 4 rounds"):
        server_app(InProcessGrid(says, ["a", "b"]), context)
    assert "the run was stopped after 1 of 4 rounds: every site has used up its budget" in capsys.readouterr().out
    assert RunDir.open(tmp_path / "run").report.exists()


def test_for_flower_a_run_that_can_be_gone_on_with_says_how_and_goes_on(tiny: Any, tmp_path: Path) -> None:
    sites, stages = {"count": 2, "held_out": 0.0}, [{"name": "all", "rounds": 2}]
    scenario = tiny.scenario(tmp_path / "run.toml", sites=sites, continual={"guards": []}, stage=stages)
    out = str(tmp_path / "run")

    def play_again(says: Says, **given_: Any) -> None:
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={"out": out, **given_})
        server_app(InProcessGrid(Scripted(says), ["a", "b"]), context)

    with pytest.raises(RunPaused, match=r"resume=true out="):
        play_again(lambda _, number: write_refusal("error") if number > 1 else None, scenario=str(scenario))
    play_again(lambda *_: None, resume=True, set="title=again")
    run = RunDir.open(tmp_path / "run")
    assert max(row["round"] for row in run.rows()) == 2
    assert run.read_changes()[0]["changed"] == {"title": ["", "again"]}


# -- numbers that are none --------------------------------------------------------------------------------------------


def test_a_score_that_is_not_finite_ends_the_run_with_the_last_good_adapter(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tiny)
    good = fresh(config_of(tiny, 2), tmp_path / "good")
    play(config_of(tiny, 2), good)
    plain, told = Scorer.score, list[int]()

    def score(self: Scorer, *args: Any, **more: Any) -> Any:
        found = plain(self, *args, **more)
        told.append(1)
        return {stage: {**values, "loss": float("nan")} for stage, values in found.items()} if len(told) > 4 else found

    monkeypatch.setattr(Scorer, "score", score)
    run = fresh(config, tmp_path / "run")
    app, ended = play(config, run)
    assert type(ended) is RunError
    assert "the loss of stage all on public records is nan after round 3; the adapter of round 2 is kept" in str(ended)
    assert max(number for number, _ in app.asked) == 3
    state = last_state(run.state)
    assert state is not None
    assert state.round == 2
    kept, wanted = read_adapter(run.adapter)[1], read_adapter(good.adapter)[1]
    assert all(np.array_equal(kept[name], wanted[name]) for name in wanted)
    assert not any(row["round"] == 3 and row["metric"] == "loss" for row in run.rows())
    assert first_words(run).startswith("STOPPED after 2 of 4 rounds: the loss of stage all")
    assert "nan" in json.loads(run.privacy.read_text())["stopped"]


def test_a_base_whose_scores_are_not_finite_is_told_before_anybody_is_asked(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scorer, "score", lambda *_, **__: {"all": {"accuracy": 0.5, "loss": float("inf")}})
    config = config_of(tiny)
    app, ended = play(config, fresh(config, tmp_path / "run"))
    assert app.asked == []
    assert "is inf before any training" in str(ended)


@pytest.mark.parametrize("value", [3e38, 1e20, float("nan")])
def test_one_site_that_sends_numbers_no_sum_can_hold_does_not_poison_the_run(
    tiny: Any, tmp_path: Path, value: float
) -> None:
    config = config_of(tiny)

    def says(site: str, number: int) -> RecordDict | None:
        if site == "a":
            return None
        state = last_state(run.state)
        assert state is not None
        return write_update(
            number, {n: np.full_like(v, value) for n, v in state.current.items() if n.endswith("lora_B")}
        )

    run, alone = fresh(config, tmp_path / "run"), fresh(config, tmp_path / "alone")
    _, ended = play(config, run, says)
    assert ended is None
    play(config, alone, lambda site, _: None if site == "a" else write_refusal("data"))
    mine, wanted = read_adapter(run.adapter)[1], read_adapter(alone.adapter)[1]
    assert all(np.array_equal(mine[name], wanted[name]) for name in wanted)
    reasons = {row["reason"] for row in run.rows() if row["metric"] == "refused"}
    assert reasons == {"not-finite" if np.isnan(value) else "norm"}


def test_what_a_guard_makes_of_a_round_is_never_saved_where_it_is_not_finite(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(_guards: ServerGuards, view: View, current: Any) -> Any:
        return {name: value * np.float32(np.inf) if view.round == 3 else value for name, value in current.items()}

    monkeypatch.setattr(ServerGuards, "serve", serve)
    run = fresh(config_of(tiny), tmp_path / "run")
    with np.errstate(invalid="ignore"):
        _, ended = play(config_of(tiny), run)
    assert "round 3: what the guards made of the round is not fit to be used" in str(ended)
    state = last_state(run.state)
    assert state is not None
    assert state.round == 2
    assert all(np.isfinite(value).all() for value in [*state.serving.values(), *read_adapter(run.adapter)[1].values()])


def test_after_a_void_round_the_site_that_is_named_is_set_aside_and_the_run_goes_on(tiny: Any, tmp_path: Path) -> None:
    config = config_of(tiny, sites={"quarantine_after": 1}, aggregation={"rule": "fedit", "max_update_norm": 1e300})

    def says(site: str, number: int) -> RecordDict | None:
        state = last_state(run.state)
        assert state is not None
        ending, size = {"a": ("lora_A", 1e8), "b": ("lora_B", 1e8)}[site]
        told = {n: np.full_like(v, size if n.endswith(ending) else 0) for n, v in state.current.items()}
        return write_update(number, told)

    run = fresh(config, tmp_path / "run")
    app, ended = play(config, run, says)
    assert {row["reason"] for row in run.rows() if row["metric"] == "refused"} == {"sum"}
    assert [site for number, site in app.asked if number == 2] == ["b"]  # a was the longest, and is set aside
    assert ended is None
    found = last_state(run.state)
    assert found is not None
    assert 0 < found.summed < 4


# -- going on ---------------------------------------------------------------------------------------------------------


def test_a_run_that_breaks_off_in_its_first_round_is_gone_on_with_under_the_same_name(
    tiny: Any, tmp_path: Path
) -> None:
    """Under another one every site would pay for round 1 a second time."""
    config = config_of(tiny)
    run = fresh(config, tmp_path / "run")
    _, ended = play(config, run, lambda *_: write_refusal("error"))
    assert "round 1: none of 2 sites gave an update (error)" in str(ended)
    assert run.begun
    first = last_state(run.state)
    app, ended = play(config, run)
    second = last_state(run.state)
    assert first is not None
    assert second is not None
    assert (first.run, second.round, ended) == (second.run, 4, None)
    assert len(app.asked) == 8
    assert not any(row["metric"] == "stopped" for row in run.rows())
    assert "stopped" not in run.read_privacy()
