"""A run is followed to its end, gone on with where only its process died, and told as it ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.core.audit import AuditLog
from llmchain_fl.core.errors import RunError
from llmchain_fl.onprem.follow import TRIES, Follower, judged, sites_line
from llmchain_fl.onprem.round_lines import RoundLines
from llmchain_fl.onprem.runs import Status, Wish
from llmchain_fl.run_dir import RunDir

RAISED = "ServerApp failed with exception: "


def over(word: str, details: str = "") -> Status:
    """A run that is over."""
    return Status(7, word, True, details, "")


@pytest.mark.parametrize(
    ("status", "words", "faults", "code"),
    [
        (over("completed"), ["done"], 0, 0),
        (over("failed"), ["budget"], 0, 3),
        (None, ["budget"], 2, 3),
        (over("stopped"), [], 0, 1),
        (over("stopped"), ["interrupted"], 0, 1),
        (over("failed"), ["config"], 0, 2),
        (over("failed", RAISED + "the configuration has 1 fault"), [], 0, 2),
        (over("failed"), ["run"], 1, 1),
        (over("failed", RAISED + "no such model"), [], 0, 1),
        (over("failed", RAISED + "another process holds the run"), [], 1, None),
        (over("failed", "no heartbeat"), [], 0, None),
        (over("completed"), [], 0, None),
        (None, [], 0, None),
        (over("failed"), ["error"], 0, None),
    ],
)
def test_how_a_run_ended_is_told_by_its_own_log_and_flowers_status(
    status: Status | None, words: list[str], faults: int, code: int | None
) -> None:
    found = judged(status, words, faults)
    assert (None if found is None else found.code) == code


class Played:
    """Stands for ``Runs``: each start plays the next of ``lives`` in the run folder."""

    def __init__(self, lives: list[Callable[[RunDir], Status | None]]) -> None:
        self.lives, self.begun, self.kit = lives, list[bool](), Path()
        self.now: Status | None = None
        self.under_way: int | None = None

    def going(self, control: Any, out: Path) -> int | None:
        return self.under_way

    def start(self, control: Any, bundle: bytes, wish: Wish, *, again: bool) -> int:
        self.begun.append(again)
        run = RunDir(wish.out)
        if not run.path.exists():
            RunDir.create(run.path, "")
        self.now = self.lives[min(len(self.begun), len(self.lives)) - 1](run)
        return len(self.begun)

    def look(self, control: Any, number: int) -> Status | None:
        return self.now

    def sites(self, control: Any) -> dict[str, bool]:
        return {"north": True, "west": False}


def word(run: RunDir, why: str) -> None:
    """What the run's own process writes at its end."""
    AuditLog(run.audit, "coordinator", run.path.name).enter("stopped", "0" * 64, by="uid:0", why=why)


def dies(run: RunDir) -> Status | None:
    """After a checkpoint, without a word."""
    (run.state / "round-000001").touch()
    return over("failed", "no heartbeat")


def ends(run: RunDir) -> Status | None:
    """By plan."""
    word(run, "done")
    return over("completed")


def test_a_run_that_is_going_on_is_watched_and_not_begun_a_second_time(tmp_path: Path) -> None:
    run, said = RunDir.create(tmp_path / "run", ""), list[str]()
    played = Played([])
    played.under_way, played.now = 7, over("completed")
    word(run, "old")

    def look(control: Any, number: int) -> Status | None:
        word(run, "done")
        return played.now

    played.look = look  # type: ignore[method-assign]
    made = Follower(played, object(), lambda run: 0, said.append, lambda: 0.0, lambda seconds: None)  # type: ignore[arg-type]
    assert made.play(b"", Wish(run.path)).code == 0
    assert played.begun == []
    assert said[0] == f"run 7 is going on already, and is watched: {run.path}"


def follow(folder: Path, lives: list[Callable[[RunDir], Status | None]], rounds: list[int]) -> tuple[Any, Played, Any]:
    """The outcome; ``rounds``: how many are done at each look."""
    played, said, left = Played(lives), list[str](), iter([*rounds, *[rounds[-1]] * 100])
    made = Follower(played, object(), lambda run: next(left), said.append, lambda: 0.0, lambda seconds: None)  # type: ignore[arg-type]
    return made.play(b"", Wish(folder / "run", Path("s.toml"))), played, said


def test_a_run_whose_process_died_is_gone_on_with_from_its_checkpoint(tmp_path: Path) -> None:
    outcome, played, said = follow(tmp_path, [dies, ends], [1])
    assert (outcome.code, played.begun) == (0, [False, True])
    assert "1 of 2 sites there; away: west" in said
    assert "the run died (no heartbeat); it is gone on with" in said


def test_a_run_that_died_before_its_first_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    outcome, played, _ = follow(tmp_path, [lambda run: over("failed", "no heartbeat"), ends], [0])
    assert (outcome.code, played.begun) == (0, [False, False])


def test_a_run_that_dies_without_a_round_between_is_given_up(tmp_path: Path) -> None:
    outcome, played, _ = follow(tmp_path, [dies], [0])
    assert outcome.code == 1
    assert len(played.begun) == TRIES + 1
    assert "no heartbeat" in outcome.text


def test_a_run_that_gets_on_may_die_more_often_than_that(tmp_path: Path) -> None:
    outcome, played, _ = follow(tmp_path, [dies] * (TRIES + 3) + [ends], list(range(100)))
    assert (outcome.code, len(played.begun)) == (0, TRIES + 4)


def test_an_old_word_of_the_log_says_nothing_of_a_run_that_is_gone_on_with(tmp_path: Path) -> None:
    def stopped_before(run: RunDir) -> Status | None:
        (run.state / "round-000001").touch()
        word(run, "error")
        return over("failed")

    outcome, played, _ = follow(tmp_path, [stopped_before, dies, ends], [0])
    assert (outcome.code, len(played.begun)) == (0, 3)


def test_a_superlink_that_refuses_is_not_asked_again(tmp_path: Path) -> None:
    def refuse(run: RunDir) -> Status | None:
        from flwr.supercore.error import ApiErrorCode, FlowerError

        raise RunError("no", remedy="") from FlowerError(ApiErrorCode.RUN_ID_NOT_FOUND, "no")

    with pytest.raises(RunError, match="no"):
        follow(tmp_path, [refuse], [0])


def test_each_round_is_said_once_with_what_it_cost_and_who_was_refused(tmp_path: Path) -> None:
    said: list[str] = []
    settings = '[task]\nlabels = ["a", "b"]\n[data]\ntrain = "x"\n[[stage]]\nname = "cards"\nrounds = 4\n'
    run = RunDir.create(tmp_path / "run", settings)
    base = {"round": 1, "stage": 0, "task": "cards", "site": None, "scope": "run"}
    site = {**base, "scope": "site"}
    rows = [
        {**base, "metric": "seconds", "value": 1.0},
        {**site, "site": "north", "metric": "bytes_up", "value": 10.0},
        {**site, "site": "north", "metric": "epsilon", "value": 1.2},
        {**site, "site": "west", "metric": "refused", "value": 1.0, "reason": "budget"},
        {**site, "site": "south", "metric": "away", "value": 1.0},
    ]
    run.append_rows(rows)
    lines = RoundLines(said.append)
    assert lines(run) == 0  # an epsilon without its terms says nothing
    run.write_privacy({"private": True, "delta": 1e-5, "unit": "person", "accountant": "pld", "noise": "sum 3"})
    assert lines(run) == 1
    assert lines(run) == 1
    assert len(said) == 1
    assert said[0].startswith(
        "round 1/4 cards, 1 site, largest epsilon 1.20 (delta 1e-5, per person, PLD accountant, noise on"
    )
    assert said[0].endswith("refused: west (budget), away: south")


def test_sites_that_are_away_are_named() -> None:
    assert sites_line({"north": True, "south": True}) == "2 of 2 sites there"
