"""`llmchain-fl privacy explain`: one page, one file, one error."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmchain_fl.cli import privacy
from llmchain_fl.cli.privacy_explain import figure
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event

TINY = ("--clip", "1", "--sensitivity", "1e-4", "--epsilon", "10", "--delta", "1e-5")
CENTRAL = ("--clip", "1", "--noise-multiplier", "1", "--delta", "1e-5", "--sites", "30", "--rounds", "20")


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def said(*arguments: object) -> str:
    told = ["explain", *(str(argument) for argument in arguments)]
    result = CliRunner().invoke(privacy.app, told, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def failed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    from llmchain_fl.cli.main import main

    monkeypatch.setattr(sys, "argv", ["llmchain-fl", "privacy", "explain", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_stated_epsilon_of_ten_is_told_to_be_two_hundred_million() -> None:
    text = said(*TINY)
    for part in (
        'Stated as "epsilon 10": noise of standard deviation 4.84e-05 on each value of an update of length up to 1.',
        "It is worth epsilon 2.14e8 a release for telling whether the update came, 8.53e8 for telling it from another",
        "at delta 1e-5.",
        "LocalDpMod(clipping_norm=1, sensitivity=0.0001, epsilon=10, delta=1e-05)",
        "1e+04 times as much",
        "proven for epsilon <= 1 only",
        "analytic Gaussian mechanism, Balle & Wang 2018",
        "flwr/clientapp/mod/localdp_mod.py",
        "unit person or record",
    ):
        assert part in text


def test_all_rounds_have_a_column_of_their_own_where_there_are_several() -> None:
    assert "20 rounds" in said(*CENTRAL)
    assert "1 round " not in said(*TINY)


def test_a_noise_multiplier_is_read_as_ours_and_as_flowers() -> None:
    text = said(*CENTRAL, "--sampling-rate", "0.05", "--steps", "10", "--records-per-person", "8")
    for part in ("FixedClipping", "AdaptiveClipping", "0.0333", "4.77", "63.59", "8 records or none", "num-examples"):
        assert part in text
    assert "Stated as" not in text


def test_the_file_holds_the_page_in_figures(tmp_path: Path) -> None:
    file = tmp_path / "worth.json"
    text = said(*CENTRAL, "--steps", "10", "--sampling-rate", "0.05", "--json", file)
    told = json.loads(file.read_text())
    assert "What a stated noise setting is worth" in text
    assert told["stated"]["noise_multiplier"] == 1.0
    (own,) = (reading for reading in told["readings"] if reading["unit"] == "unit or none")
    assert own["epsilon_all_rounds"] == epsilon([Event("poisson-gaussian", 0.05, 1.0, 200)], 1e-5)
    assert own["delta"] == 1e-5
    assert {reading["epsilon_one_round"] for reading in told["readings"] if reading["noise_std"] == 0} == {None}
    assert told["sources"]
    assert all(sentence in text for sentence in told["warnings"])


def test_a_file_that_cannot_be_written_is_refused_before_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failed(monkeypatch, *TINY, "--json", str(tmp_path / "nowhere" / "worth.json")) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "cannot be written" in printed.err


def test_a_wrong_setting_is_one_error_with_all_its_faults_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failed(monkeypatch, "--clip", "0", "--noise-multiplier", "nan", "--steps", "0") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "4 faults" in printed.err
    for part in ("--delta is missing", "--clip is 0.0", "--noise-multiplier is nan", "--steps is 0"):
        assert part in printed.err


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.3773, "4.38"),
        (999.999, "1000.00"),
        (12_345.01, "12,346"),
        (213_412_345.0, "2.14e8"),
        (2e8, "2e8"),
        (9.999e9, "1e10"),
        (float("inf"), "no finite bound"),
    ],
)
def test_an_epsilon_of_any_size_is_readable_and_never_rounded_down(value: float, text: str) -> None:
    assert figure(value) == text
