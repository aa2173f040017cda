"""``llmchain-fl extend`` and ``--resume`` from the command line: what they print, refuse and record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.cli import main
from llmchain_fl.config.read import read_config
from llmchain_fl.run_dir import RunDir
from simulations.prepare import DONE

Command = Callable[..., tuple[int, str]]
THIRD = '[[stage]]\nname = "third"\nrounds = 1\n'


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Words of a command line -> its exit code, and all that it said."""

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["llmchain-fl", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return run


@pytest.fixture
def finished(tiny: Any, tmp_path: Path, command: Command) -> Path:
    stages = [{"name": "first", "rounds": 1}, {"name": "second", "rounds": 1}]
    scenario = tiny.scenario(tmp_path / "tiny.toml", stage=stages, continual={"guards": []})
    code, said = command("simulate", scenario, "--out", tmp_path / "run")
    assert code == 0, said
    return tmp_path / "run"


@pytest.mark.part(1)
def test_a_finished_run_is_extended_and_played_in_one_command(finished: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "third.toml").write_text(THIRD)
    code, said = command("extend", finished, "--rounds", 1, "--stage-file", tmp_path / "third.toml")
    assert code == 0, said
    assert 'extended after round 2: stage.second.rounds = 2, stage "third"' in said
    run = RunDir.open(finished)
    assert max(row["round"] for row in run.rows()) == 4
    assert [(stage.name, stage.rounds) for stage in read_config(run.config).stage][1:] == [("second", 2), ("third", 1)]
    code, said = command("extend", finished, "--set", "adapter.rank=4", "--set", "seed=9", "--set", "sites.count=2")
    assert code == 2
    for line in ("adapter.rank = 4, was 2", "seed = 9, was 3", "sites.count = 2, was 3", "nothing is left to do"):
        assert line in said
    assert "the configuration has 4 faults" in said


def test_a_run_that_is_gone_on_with_under_an_edited_configuration_names_every_change(
    finished: Path, command: Command
) -> None:
    config = finished / "config.toml"
    config.write_text(config.read_text().replace("seed = 3", "seed = 4").replace("lr = 0.02", "lr = 0.03"))
    code, said = command("simulate", "--resume", finished)
    assert code == 2
    assert "seed = 4, was 3" in said
    assert "train.lr = 0.03, was 0.02" in said
    assert "--resume" not in said


def test_what_changes_nothing_that_was_learned_may_be_changed_and_is_recorded(finished: Path, command: Command) -> None:
    code, said = command("simulate", "--resume", finished, "--set", "sites.reply_seconds=60", "--set", "title=again")
    assert code == 0, said
    run = RunDir.open(finished)
    (entry,) = run.read_changes()
    assert (entry["how"], entry["after_round"]) == ("resume", 2)
    assert entry["changed"] == {"title": ["", "again"], "sites.reply_seconds": [3600.0, 60.0]}
    assert read_config(run.config).sites.reply_seconds == 60.0


@pytest.mark.part(1)
def test_an_extension_that_was_broken_off_is_made_by_the_same_command_without_words(
    finished: Path, command: Command
) -> None:
    """Between the settings and the state: config.toml says what is wanted, the state does not know of it yet."""
    config = finished / "config.toml"
    config.write_text(config.read_text() + THIRD)
    assert command("simulate", "--resume", finished)[0] == 2
    code, said = command("extend", finished)
    assert code == 0, said
    assert max(row["round"] for row in RunDir.open(finished).rows()) == 3


def test_a_run_of_a_superlink_is_extended_and_says_how_to_go_on(finished: Path, command: Command) -> None:
    (finished / "sites" / DONE).unlink()
    code, said = command("extend", finished, "--rounds", 1)
    assert code == 0, said
    assert "resume=true" in said
    assert str(finished) in said.replace("\n", "")
    assert max(row["round"] for row in RunDir.open(finished).rows()) == 2


def test_a_run_that_another_process_is_at_work_on_is_left_alone(finished: Path, command: Command) -> None:
    with RunDir.open(finished).alone():
        for words in (("simulate", "--resume", finished), ("extend", finished, "--rounds", 1)):
            code, said = command(*words)
            assert code == 2
            assert "another process is at work on" in said
        code, said = command("restore", finished, "--stage", "first", "--out", finished.parent / "older")
        assert code == 2
        assert "another process is at work on" in said
