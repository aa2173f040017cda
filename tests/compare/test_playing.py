"""One cell in its own run directory: begun, gone on with, refused, tidied. The simulator is a stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.compare import play
from llmchain_fl.compare.outcome import load
from llmchain_fl.compare.plan import Cell
from llmchain_fl.compare.play import Job, play_cell
from llmchain_fl.config.read import read_config
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import ConfigError, DataError, LlmchainError, ModelError, PrivacyError, TrainingError
from llmchain_fl.progress import Progress, RoundReport
from llmchain_fl.run_dir import RunDir
from llmchain_fl.scenario import find_scenario


class Simulator:
    """Plays two rounds, one row each; raises ``error`` before round ``at``."""

    def __init__(self, error: LlmchainError | None = None, at: int = 0) -> None:
        self.error, self.at, self.begun_at, self.shared = error, at, [], False

    def reopen(self, path: Path) -> tuple[RunConfig, RunDir]:
        run = RunDir.open(path)
        return read_config(run.config), run

    def share_outputs(self, _config: RunConfig) -> None:
        self.shared = True

    def simulate(self, config: RunConfig, run: RunDir, progress: Progress) -> None:
        done = len(run.rows())
        self.begun_at.append(done)
        (run.sites / "site-00").mkdir(exist_ok=True)
        progress.started(2, done, 2, "")
        for number in range(done, 3):
            if self.error and number == self.at:
                raise self.error
            row = {"round": number, "stage": 0 if number else -1, "scope": "global", "task": "all"}
            run.append_rows([{**row, "metric": "accuracy", "value": 0.1 * number}])
            if number:
                progress.round_finished(RoundReport(number, 2, "all", 2, 2, 0.1))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    config = read_config(find_scenario("demo-lora"))
    return Job(Cell({"rule": "ffa"}, 1, ("seed = 1",)), tmp_path / "cells" / "ffa-seed1", to_toml(config))


def played(job: Job, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[tuple[int, int]]]:
    monkeypatch.setattr(play, "simulator", lambda: simulator)
    told: list[tuple[int, int]] = []
    return play_cell(job, lambda done, total: told.append((done, total))), told


def test_a_cell_is_played_measured_and_tidied(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = Simulator()
    outcome, told = played(job, simulator, monkeypatch)
    assert simulator.shared  # cells of one process share what frozen layers give
    assert (outcome.status, outcome.numbers["accuracy"]) == ("finished", pytest.approx(0.2))
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert load(job.folder) == outcome
    there = {path.name for path in job.folder.iterdir()}
    assert {"config.toml", "metrics.jsonl", "cell.json"} <= there
    assert not {"sites", "state", "stages", "events"} & there


def test_a_finished_cell_is_taken_as_it_is(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = played(job, Simulator(), monkeypatch)
    (job.folder / "sites").mkdir()  # killed between the numbers and the tidying
    unused = Simulator()
    assert played(job, unused, monkeypatch)[0] == first
    assert unused.begun_at == []
    assert not (job.folder / "sites").exists()


def test_a_cell_that_broke_goes_on_after_its_last_round(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError):
        played(job, Simulator(TrainingError("round 2", remedy=""), at=2), monkeypatch)
    assert (job.folder / "sites").is_dir()
    again = Simulator()
    outcome, told = played(job, again, monkeypatch)
    assert again.begun_at == [2]
    assert told == [(2, 2), (2, 2)]
    assert len(outcome.scores["all"]) == 3


def test_a_folder_that_was_no_run_yet_is_begun_anew(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    (job.folder / "state").mkdir(parents=True)
    (job.folder / "config.toml").write_text("half")
    assert played(job, Simulator(), monkeypatch)[0].status == "finished"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigError(["ranks differ", "no"]), "ranks differ; no"),
        (PrivacyError("too little", remedy="more"), "too little"),
        (ModelError("another rank", remedy="x"), "another rank"),
        (DataError("site-03 is left empty", where="train.csv", remedy="x"), "train.csv: site-03 is left empty"),
    ],
)
def test_what_the_software_refuses_before_the_start_is_refused_and_leaves_nothing(
    error: LlmchainError, reason: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, _ = played(job, Simulator(error), monkeypatch)
    assert (outcome.status, outcome.reason) == ("refused", reason)
    assert not job.folder.exists()


def test_the_same_error_after_the_start_is_a_failure(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrivacyError):
        played(job, Simulator(PrivacyError("spent", remedy=""), at=1), monkeypatch)
    assert (job.folder / "metrics.jsonl").is_file()
