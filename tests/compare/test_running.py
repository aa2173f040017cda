"""A whole comparison with a player that counts: resumed, extended, refused, and written down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.compare.check import check_cells
from llmchain_fl.compare.outcome import Outcome, missed, save
from llmchain_fl.compare.plan import Comparison
from llmchain_fl.compare.play import Job, Tell
from llmchain_fl.compare.read import build_comparison
from llmchain_fl.compare.run import play_comparison
from llmchain_fl.compare.work import one_by_one
from llmchain_fl.core.errors import ConfigError, RunError


class Nobody:
    def began(self, job: Job) -> None:
        pass

    def moved(self, job: Job, done: int, total: int) -> None:
        pass

    def ended(self, job: Job, outcome: Outcome) -> None:
        pass


class Player:
    """Plays a cell by writing what a finished cell leaves; ``stop_at`` raises like Ctrl-C in the middle."""

    def __init__(self, stop_at: int = 0, refuse: str = "", fail: str = "") -> None:
        self.played: list[str] = []
        self._stop_at, self._refuse, self._fail = stop_at, refuse, fail

    def __call__(self, job: Job, tell: Tell) -> Outcome:
        if len(self.played) + 1 == self._stop_at:
            raise KeyboardInterrupt
        self.played.append(job.cell.slug)
        if self._refuse and self._refuse in job.cell.slug:
            return missed(job.cell, "refused", "cannot")
        if self._fail and self._fail in job.cell.slug:
            raise OSError("disk full")
        job.folder.mkdir(parents=True)
        (job.folder / "config.toml").write_text(job.config)
        numbers = {"accuracy": len(self.played) / 100, "bytes": 1e6 * (1 + ("fedit" in job.cell.slug))}
        outcome = Outcome(job.cell.labels, job.cell.seed, job.cell.settings, "finished", numbers=numbers)
        save(job.folder, outcome)
        return outcome


def run(
    comparison: Comparison, folder: Path, player: Player, seeds: Sequence[int] = (1,), only: Any = None
) -> list[Outcome]:
    checked = check_cells(comparison, comparison.cells(seeds, only))
    return play_comparison(comparison, checked, folder, one_by_one, player, Nobody(), "llmchain-fl compare small")


def test_every_cell_is_played_and_everything_is_written(comparison: Comparison, tmp_path: Path) -> None:
    outcomes = run(comparison, tmp_path / "out", Player())
    assert len(outcomes) == 4
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {cell["status"] for cell in found["cells"]} == {"finished"}
    assert "| fedit | 0.5 | 0.030" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "scores-against-bytes.svg").read_text().startswith("<?xml")
    assert "llmchain-fl compare small" in (tmp_path / "out" / "compare.html").read_text()


def test_what_was_interrupted_goes_on_and_no_cell_is_played_twice(comparison: Comparison, tmp_path: Path) -> None:
    first, second = Player(stop_at=3), Player()
    with pytest.raises(KeyboardInterrupt):
        run(comparison, tmp_path / "out", first)
    assert len(run(comparison, tmp_path / "out", second)) == 4
    assert first.played == ["ffa-0.5-seed1", "ffa-0.1-seed1"]
    assert second.played == ["fedit-0.5-seed1", "fedit-0.1-seed1"]


def test_more_seeds_and_labels_are_added_to_what_is_there(comparison: Comparison, tmp_path: Path) -> None:
    run(comparison, tmp_path / "out", Player(), only={"rule": ["ffa"]})
    outcomes = run(comparison, tmp_path / "out", Player(), seeds=(9,), only={"rule": ["fedit"]})
    assert sorted(outcome.cell.slug for outcome in outcomes) == [
        "fedit-0.1-seed9",
        "fedit-0.5-seed9",
        "ffa-0.1-seed1",
        "ffa-0.5-seed1",
    ]


def test_another_comparison_into_the_same_folder_is_refused(
    comparison: Comparison, tree: dict[str, Any], tmp_path: Path
) -> None:
    run(comparison, tmp_path / "out", Player())
    other = build_comparison("small", tree, ["train.steps=2"])
    with pytest.raises(RunError, match="holds another comparison"):
        run(other, tmp_path / "out", Player())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(RunError, match="holds no comparison"):
        run(comparison, tmp_path / "mine", Player())
    assert not (tmp_path / "mine" / "comparison.toml").exists()


def test_a_scenario_that_changed_meanwhile_is_noticed(tree: dict[str, Any], tmp_path: Path) -> None:
    scenario = tmp_path / "mine.toml"
    scenario.write_text('[task]\nlabels = ["a", "b"]\n[data]\ntrain = "generated:bank-messages"\n')
    comparison = build_comparison("x", {**tree, "scenario": str(scenario)})
    run(comparison, tmp_path / "out", Player())
    scenario.write_text(scenario.read_text() + "[train]\nsteps = 3\n")
    with pytest.raises(RunError, match="was begun with other settings"):
        run(comparison, tmp_path / "out", Player())


def test_two_at_once_in_one_folder_are_refused(comparison: Comparison, tmp_path: Path) -> None:
    class Nested(Player):
        def __call__(self, job: Job, tell: Tell) -> Outcome:
            with pytest.raises(RunError, match="another comparison is being run"):
                run(comparison, tmp_path / "out", Player())
            return super().__call__(job, tell)

    assert len(run(comparison, tmp_path / "out", Nested())) == 4


def test_refused_and_failed_cells_stand_in_the_results_and_are_tried_again(
    comparison: Comparison, tmp_path: Path
) -> None:
    outcomes = {o.cell.slug: o for o in run(comparison, tmp_path / "out", Player(refuse="fedit-0.1", fail="ffa-0.1"))}
    assert outcomes["fedit-0.1-seed1"].status == "refused"
    assert outcomes["ffa-0.1-seed1"].reason == "OSError: disk full"
    text = (tmp_path / "out" / "table.md").read_text()
    assert "(1) failed: OSError: disk full" in text
    assert "(2) refused: cannot" in text
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "Cells without a number" in page
    shutil.rmtree(tmp_path / "out" / "cells" / "ffa-0.1-seed1")
    again = Player()
    run(comparison, tmp_path / "out", again)
    assert again.played == ["ffa-0.1-seed1", "fedit-0.1-seed1"]


def test_when_the_software_refuses_every_cell_it_is_an_error(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every cell is refused: cannot"):
        run(comparison, tmp_path / "out", Player(refuse="seed"))


def test_a_cell_refused_before_the_start_is_in_the_table(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["axis"][1] = {"name": "cohort", "values": {"all": {}, "ten": {"sites.cohort": 10}}}
    outcomes = run(build_comparison("x", tree), tmp_path / "out", Player())
    assert sorted(outcome.status for outcome in outcomes) == ["finished", "finished", "refused", "refused"]
    assert "refused (1)" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize("damage", ["", "{"])
def test_a_damaged_cell_is_named(damage: str, comparison: Comparison, tmp_path: Path) -> None:
    run(comparison, tmp_path / "out", Player())
    (tmp_path / "out" / "cells" / "ffa-0.1-seed1" / "cell.json").write_text(damage)
    with pytest.raises(RunError, match=r"ffa-0\.1-seed1"):
        run(comparison, tmp_path / "out", Player())
