"""`llmchain-fl privacy plan --recommend`: reasons, then a fragment of TOML; bad numbers are one clear error."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmchain_fl.cli import privacy
from llmchain_fl.config.read import read_config
from llmchain_fl.planning.recommend import ROUNDS

ASKED = ("--recommend", "--persons", "400", "--sites", "10", "--epsilon", "3")


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def said(*arguments: str) -> str:
    result = CliRunner().invoke(privacy.app, ["plan", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    from llmchain_fl.cli.main import main

    monkeypatch.setattr(sys, "argv", ["llmchain-fl", "privacy", "plan", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_the_page_gives_reasons_then_a_fragment_that_makes_a_scenario_whole(tmp_path: Path) -> None:
    text = said(*ASKED)
    fragment = text[text.index("\n[task]") :]
    path = tmp_path / "mine.toml"
    path.write_text(fragment.replace("[task]", '[task]\nlabels = ["a", "b"]') + '[data]\ntrain = "mine.csv"\n')
    run = read_config(path, [f"stage.rounds={ROUNDS}"])
    assert (run.train.method, run.privacy.noise, run.secure.sum, run.aggregation.rule) == (
        "lockstep",
        "sum",
        True,
        "head-only",
    )
    assert text.index("batch_size") < text.index("Noise multiplier z") < text.index("[task]")
    assert f"rounds that add up to {ROUNDS}" in fragment
    assert "delta 1e-5, per person, PLD accountant" in text
    assert "Warnings" not in text


def test_the_json_says_the_same_as_the_fragment() -> None:
    text, told = said(*ASKED, "--labels", "12"), json.loads(said(*ASKED, "--labels", "12", "--json"))
    assert tomllib.loads(text[text.index("\n[task]") :]) == told["settings"]
    assert told["public"]["labels"] == 12
    assert told["noise_over_signal"]["head"]["trained"] == 12 * 385
    assert f"z = {told['noise_multiplier']:.3g}" in text
    assert f"{told['noise_over_signal']['head']['run']:.3g}" in text


def test_who_will_learn_nothing_reads_it_before_the_fragment() -> None:
    text = said("--recommend", "--persons", "20", "--sites", "2", "--epsilon", "1")
    assert text.index("! Noise over the run is") < text.index("[task]")
    assert "hardly anything" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--recommend", "--sites", "10"), "needs --persons, --epsilon"),
        ((*ASKED[:-1], "nan"), "epsilon is nan"),
        ((*ASKED[:-1], "-3"), "epsilon is -3"),
        ((*ASKED[:-1], "0.0001"), "no noise multiplier"),
        ((*ASKED[:-1], "three"), "three"),
        ((*ASKED, "--labels", "1"), "labels is 1"),
        ((*ASKED, "--rounds", "0", "--width", "0"), "width is 0"),
        (("demo", *ASKED), "reads no scenario: leave out SCENARIO"),
        ((*ASKED, "--set", "train.lr=1"), "leave out --set"),
        ((*ASKED, "--plot", "plan.svg"), "leave out --plot"),
        (("--rounds", "5", "--epsilon", "3"), "without --recommend a scenario says it all: --epsilon, --rounds"),
    ],
)
def test_what_makes_no_sense_ends_with_exit_code_2_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    error = refused(monkeypatch, capsys, *arguments)
    assert words in error
    assert "Traceback" not in error


def test_without_it_and_without_a_scenario_the_plan_is_that_of_the_demo() -> None:
    assert "privacy plan demo --set" in said("--set", "privacy.enabled=false")
