"""``llmchain-fl compare``: what it lists, checks, plays and says, and how it ends."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmchain_fl.cli.main import app
from llmchain_fl.compare import work
from llmchain_fl.compare.check import check_cells
from llmchain_fl.compare.measures import MEASURES
from llmchain_fl.compare.outcome import Outcome, missed, save
from llmchain_fl.compare.play import Job
from llmchain_fl.compare.read import DEFAULT, build_comparison, find_comparison, head, read_comparison, shipped
from llmchain_fl.core.errors import ConfigError, DataError

FILE = """
title = "two rules"
scenario = "demo-lora"
seeds = [1]
[[axis]]
name = "rule"
[axis.values]
ffa = { "aggregation.rule" = "ffa" }
fedit = { "aggregation.rule" = "fedit" }
"""


@pytest.fixture
def plan(tmp_path: Path) -> str:
    (tmp_path / "two.toml").write_text(FILE)
    return str(tmp_path / "two.toml")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for the worker processes; ``status`` by slug, ``jobs`` as asked for."""
    seen: dict[str, Any] = {"slugs": [], "status": {}}

    def in_processes(count: int, logs: Path, warm: Any) -> Any:
        def run(jobs: Sequence[Job], play: Any, watch: Any) -> list[Outcome]:
            seen["jobs"] = count
            return [one(job, watch) for job in jobs]

        return run

    def one(job: Job, watch: Any) -> Outcome:
        watch.began(job)
        watch.moved(job, 1, 2)
        seen["slugs"].append(job.cell.slug)
        status = seen["status"].get(job.cell.slug, "finished")
        if status == "interrupted":
            raise KeyboardInterrupt
        if status != "finished":
            outcome = missed(job.cell, status, "because")
        else:
            job.folder.mkdir(parents=True)
            (job.folder / "config.toml").write_text(job.config)
            numbers = {"accuracy": 0.5, "bytes": 1e6}
            outcome = Outcome(job.cell.labels, job.cell.seed, job.cell.settings, "finished", numbers=numbers)
            save(job.folder, outcome)
        watch.ended(job, outcome)
        return outcome

    monkeypatch.setattr(work, "in_processes", in_processes)
    return seen


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": "200"})


def test_the_shipped_comparisons_are_listed_with_their_size() -> None:
    said = call("--list")
    assert said.exit_code == 0
    for name in shipped():
        assert name in said.stdout
    assert "rules-demo" not in call("--list", "--continual").stdout


@pytest.mark.parametrize("name", shipped())
@pytest.mark.part(1)
@pytest.mark.thorough
def test_every_shipped_comparison_can_be_read_and_opens_with_its_command(name: str) -> None:
    text = shipped()[name].read_text(encoding="utf-8").splitlines()[0]
    continual = ["--continual"] if head(shipped()[name]).get("continual") else []
    assert text.split()[:4] == ["#", "llmchain-fl", "compare", name]
    said = call(name, "--dry-run", *continual)
    assert said.exit_code == 0, said.exception
    assert "to run" in said.stdout


def test_without_a_name_the_default_is_taken() -> None:
    for continual, name in DEFAULT.items():
        assert find_comparison("", continual=continual) == shipped(continual=continual)[name]
    with pytest.raises(ConfigError, match=r"did you mean rules-demo\?"):
        find_comparison("rules-demmo")


def test_a_dry_run_lists_the_cells_and_makes_nothing(plan: str, tmp_path: Path) -> None:
    said = call(plan, "--dry-run", "--out", str(tmp_path / "out"), "--seeds", "4", "--only", "rule=ffa")
    assert "ffa-seed4" in said.stdout
    assert "fedit-seed4" not in said.stdout
    assert not (tmp_path / "out").exists()


def test_a_comparison_is_played_told_and_written(plan: str, played: dict[str, Any], tmp_path: Path) -> None:
    said = call(plan, "--out", str(tmp_path / "out"), "--jobs", "3", "--set", "train.steps=2")
    assert said.exit_code == 0, said.exception
    assert played["jobs"] == 3
    assert "1/2 rule ffa, seed 1: accuracy 0.500 in" in said.stdout
    assert "compare.html" in said.stdout
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [cell["settings"][0] for cell in found["cells"]] == ["train.steps = 2"] * 2
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "--set train.steps=2 --out" in page.replace("&#39;", "'")


def test_the_same_command_plays_only_what_is_left(plan: str, played: dict[str, Any], tmp_path: Path) -> None:
    played["status"] = {"fedit-seed1": "interrupted"}
    said = call(plan, "--out", str(tmp_path / "out"), "--seeds", "1")
    assert isinstance(said.exception, KeyboardInterrupt) or said.exit_code in (1, 130)
    assert f"Go on with: llmchain-fl compare {plan} --seeds 1 --out {tmp_path / 'out'} --jobs 1" in said.output
    played["status"] = {}
    assert call(plan, "--out", str(tmp_path / "out")).exit_code == 0
    assert played["slugs"] == ["ffa-seed1", "fedit-seed1", "fedit-seed1"]


def test_a_failed_cell_is_named_with_its_folder_and_ends_with_exit_code_1(
    plan: str, played: dict[str, Any], tmp_path: Path
) -> None:
    played["status"] = {"ffa-seed1": "failed"}
    said = call(plan, "--out", str(tmp_path / "out"))
    assert said.exit_code == 1
    assert f"look at {tmp_path / 'out' / 'cells' / 'ffa-seed1'}" in said.stdout
    assert (tmp_path / "out" / "table.md").is_file()


def test_a_refused_cell_is_no_failure(plan: str, played: dict[str, Any], tmp_path: Path) -> None:
    played["status"] = {"ffa-seed1": "refused"}
    said = call(plan, "--out", str(tmp_path / "out"))
    assert said.exit_code == 0
    assert "(1) refused: because" in said.stdout


def test_wrong_options_are_said_before_anything_is_made(plan: str, tmp_path: Path) -> None:
    for options, said in (
        (["--jobs", "0"], "--jobs 0"),
        (["--seeds", "x"], "--seeds 'x'"),
        (["--only", "rul=ffa"], "did you mean rule"),
        (["--set", "train.stepps=1"], "did you mean train.steps"),
        (["--continual"], "does not compare guards"),
    ):
        outcome = call(plan, "--out", str(tmp_path / "out"), *options)
        assert isinstance(outcome.exception, ConfigError)
        assert said in str(outcome.exception)
    outcome = call(plan, "--out", str(tmp_path / "out"), "--set", "data.train=none.csv")
    assert isinstance(outcome.exception, DataError)
    assert "none.csv" in str(outcome.exception)
    assert not (tmp_path / "out").exists()


DOCS = Path(__file__).parents[2] / "docs" / "compare.md"


@pytest.mark.parametrize("name", shipped())
def test_the_docs_name_every_shipped_comparison_with_its_number_of_cells(name: str) -> None:
    (line,) = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}`")]
    assert line.rstrip(" |").split()[-1] == str(len(read_comparison(shipped()[name]).cells()))


def test_the_example_in_the_docs_is_a_comparison() -> None:
    text = DOCS.read_text(encoding="utf-8")
    example = text.split("```toml\n")[1].split("```")[0]
    comparison = build_comparison("example", tomllib.loads(example))
    assert [cell.slug for cell in comparison.cells([1])] == ["fedit-mean-seed1", "fedit-adam-seed1", "ffa-mean-seed1"]
    assert not check_cells(comparison, comparison.cells()).refused


def test_the_docs_name_everything_that_can_be_reported() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in MEASURES if name != "epsilon")
