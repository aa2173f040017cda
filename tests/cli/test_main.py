"""The command line: light until a command runs, and plain about what it does."""

from __future__ import annotations

import subprocess
import sys

import pytest
from rich.console import Console

from llmchain_fl.cli.live import Clock, LiveView, PlainView, round_line
from llmchain_fl.progress import RoundReport
from llmchain_fl.scenario import shipped, titles

HEAVY = "torch", "transformers", "flwr", "peft", "numpy", "pydantic"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['llmchain-fl', '--help']\n"
        "from llmchain_fl.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip().splitlines()[-1] == "[]"
    for command in ("simulate", "predict", "evaluate", "report", "scenarios"):
        assert command in said.stdout


def test_every_shipped_scenario_says_what_it_shows_and_how_to_run_it() -> None:
    assert {"demo", "banking77", "banking77-stages", "sentiment", "dialogue"} <= set(shipped())
    assert all(titles().values())
    for name, path in shipped().items():
        assert path.read_text().startswith(f"# llmchain-fl simulate {name}")


def report(**changes: object) -> RoundReport:
    told: dict[str, object] = {
        "round": 3,
        "total": 9,
        "stage_name": "cards",
        "admitted": 5,
        "asked": 6,
        "seconds": 2.0,
        "score_name": "accuracy",
        "scores": {"cards": 0.8125},
        "epsilon": 2.5,
        "privacy": "delta 1e-05, per record, PLD accountant",
        "bytes_up": 2048,
        "refused": {"site-04": "not-finite"},
    }
    return RoundReport(**{**told, **changes})  # type: ignore[arg-type]


def test_a_round_is_one_line_with_epsilon_never_without_its_terms() -> None:
    line = round_line(report(), 1234.5, 75.0)
    for part in (
        "round 3/9",
        "cards",
        "5/6 sites",
        "0.812",
        "epsilon 2.50 (delta 1e-05, per record, PLD",
        "1,234 tokens/s",
    ):
        assert part in line
    assert "site-04 (not-finite)" in line
    assert "left" in line
    assert "epsilon" not in round_line(report(epsilon=None), 0.0, 0.0)


def test_time_left_follows_the_rounds_so_far() -> None:
    clock = Clock()
    assert clock.left(5) == 0
    clock.site(100, 0.5)
    assert clock.round(2.0) == pytest.approx(200)
    clock.round(4.0)
    assert clock.left(5) == pytest.approx(15)


def test_the_live_view_moves_its_bars_and_prints_the_same_lines() -> None:
    from rich.progress import Progress

    console = Console(record=True, force_terminal=False, width=200)
    bars = Progress(console=console, disable=True)
    view = LiveView(console, bars)
    view.started(9, 2, 6, "no differential privacy")
    view.round_started(3, "cards", 6)
    for site in "abc":
        view.site_finished(site, 10, 0.1)
    view.round_finished(report())
    assert [task.completed for task in bars.tasks] == [3, 3]
    plain = Console(record=True, width=200)
    other = PlainView(plain)
    other.started(9, 2, 6, "no differential privacy")
    assert plain.export_text().strip() == "9 rounds, 2 done before, 6 sites, no differential privacy"
    assert "round 3/9" in console.export_text()
