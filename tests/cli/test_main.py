"""The command line: light until a command runs, and plain about what it does."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from llmchain_fl import __version__
from llmchain_fl.cli import main
from llmchain_fl.cli.live import Clock, LiveView, PlainView, round_line
from llmchain_fl.cli.summary import show_summary
from llmchain_fl.cli.verbosity import Once
from llmchain_fl.core.errors import RunError
from llmchain_fl.progress import Logged, RoundReport
from llmchain_fl.run_dir import RunDir
from llmchain_fl.run_ends import RunPaused, RunStopped
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


# -- what others chose, on a terminal ---------------------------------------------------------------------------------

ODD = st.text(max_size=20) | st.sampled_from(["\x1b[2J", "a\nepsilon 0.00", "[red]x", "\u202e"])


@given(ODD, ODD, ODD)
def test_whatever_sites_and_stages_are_called_a_round_is_one_printable_line(stage: str, site: str, reason: str) -> None:
    told = report(stage_name=stage, scores={stage: 0.5}, refused={site: reason})
    assert round_line(told, 1.0, 1.0).isprintable()
    console = Console(record=True, width=500, force_terminal=False, file=io.StringIO())
    view = PlainView(console)
    view.started(3, 0, 2, stage)
    view.round_finished(told)
    lines = console.export_text().split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


@given(ODD)
def test_a_log_line_of_a_run_is_one_printable_line(name: str) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger, level = logging.getLogger("llmchain_fl"), logging.getLogger("llmchain_fl").level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        Logged().round_finished(report(stage_name=name, scores={name: 0.5}))
        Logged().finished(name)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert len(said) == 2
    assert all(line.isprintable() for line in said)


def written_run(path: Path, *rows: dict[str, object], stage: str = "cards") -> RunDir:
    base = {"stage": 0, "scope": "global", "site": None, "task": stage, "n": 10, "metric": "accuracy", "value": 0.5}
    run = RunDir.create(path, 'title = "x"\n')
    run.append_rows([{**base, "round": number} for number in (0, 1)])
    run.append_rows([{**base, "round": 1, **row} for row in rows])
    return run


def test_the_end_of_a_run_is_printable_whatever_stands_in_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {"scope": "site", "site": "\x1b[31mFAKE\nepsilon 0.00", "metric": "refused", "reason": "\x1b]0;x\x07"}
    show_summary(written_run(tmp_path / "run", odd, stage="[bold]\x1b[2Jcards"))
    said = capsys.readouterr().out
    assert "epsilon 0.00" in said
    assert not any(line.startswith("epsilon 0.00") for line in said.splitlines())
    assert all(line.isprintable() for line in said.split("\n"))


# -- how a command ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (RunStopped("stopped after 2 of 4 rounds", remedy="keep it"), 3, "stopped after 2 of 4 rounds"),
        (RunError("nothing was trained", remedy="raise it"), 2, "error: nothing was trained"),
        (
            RunError("the node \x1b[2J calls itself so\n  * twice", remedy=""),
            2,
            "the node \\x1b[2J calls itself so\n  * tw",
        ),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_how_a_command_ended_is_its_exit_code(
    error: BaseException, code: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise error

    monkeypatch.setattr(main, "app", fails)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == code
    assert word in capsys.readouterr().err


class Simulator:
    """A simulator whose runs end as they are told."""

    def __init__(self, *ends: BaseException | None, begun: bool = True) -> None:
        self._ends, self._begun = iter(ends), begun

    def start(self, _config: object, _scenario: str, out: Path) -> RunDir:
        return written_run(out)

    def share_outputs(self, _config: object) -> None:
        pass

    def simulate(self, _config: object, run: RunDir, *_: object, **__: object) -> None:
        if self._begun:
            (run.state / "round-000000.safetensors").write_bytes(b"")
        end = next(self._ends)
        if end is not None:
            raise end


def simulate(simulator: Simulator, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("llmchain_fl.cli.apps.simulator", lambda: simulator)
    monkeypatch.setattr("sys.argv", ["llmchain-fl", "simulate", "demo", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


STOP = RunStopped("the run was stopped after 1 of 4 rounds", remedy="keep it")


def test_a_run_that_was_stopped_by_its_budget_is_summed_up_and_ends_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(Simulator(STOP), monkeypatch, "--out", str(tmp_path / "run")) == 3
    said = capsys.readouterr()
    assert "After 1 round" in said.out
    assert "stopped after 1 of 4 rounds" in said.err


def test_beside_a_run_that_was_stopped_the_other_one_is_played_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--out", str(tmp_path / "run"), "--beside", "train.lr=0.1")
    assert simulate(Simulator(STOP, None), monkeypatch, *words) == 3
    assert "the same run once more" in capsys.readouterr().out


def test_each_change_is_a_run_of_its_own_beside_the_first_and_one_may_change_several_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--out", str(tmp_path / "run"), "--beside", "train.lr=0.1; seed=9", "--beside", "train.lr=0.2")
    assert simulate(Simulator(None, None, None), monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "changed: train.lr=0.1, seed=9" in said
    assert "changed: train.lr=0.2" in said
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run-beside", "run-beside-2"}


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("end", [RunPaused("1 of 2 sites are connected", remedy="start them"), KeyboardInterrupt()])
def test_a_run_is_thrown_away_only_where_no_site_was_asked_and_only_else_can_it_be_gone_on_with(
    begun: bool,
    end: BaseException,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = simulate(Simulator(end, begun=begun), monkeypatch, "--out", str(tmp_path / "run"))
    assert code == (130 if isinstance(end, KeyboardInterrupt) else 2)
    assert (tmp_path / "run").exists() is begun
    assert (f"llmchain-fl simulate --resume {tmp_path}/run" in capsys.readouterr().err) is begun


def test_a_run_whose_sites_have_ledgers_stays_whatever_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ledgers(Simulator):
        def simulate(self, config: object, run: RunDir, *more: object, **named: object) -> None:
            ledger = run.sites / "site-00" / "state" / "site-00" / "events.jsonl"
            ledger.parent.mkdir(parents=True)
            ledger.write_text("{}\n")
            super().simulate(config, run, *more, **named)

    failed = RunError("a fault", remedy="mend it")
    assert simulate(Ledgers(failed, begun=False), monkeypatch, "--out", str(tmp_path / "run")) == 2
    assert (tmp_path / "run" / "sites").exists()


# -- options of every command ------------------------------------------------------------------------------------------


def test_it_runs_as_a_module_and_tells_its_version() -> None:
    for module in ("llmchain_fl", "llmchain_fl.cli.main"):
        said = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
        assert said.stdout == f"llmchain-fl {__version__}\n"


def test_a_shell_can_complete_it() -> None:
    asked = {**os.environ, "_LLMCHAIN_FL_COMPLETE": "complete_bash", "COMP_WORDS": "llmchain-fl sim", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['llmchain-fl']; from llmchain_fl.cli.main import main; main()"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=asked)
    assert said.stdout.split() == ["simulate"]


def test_a_quiet_run_says_nothing_and_a_verbose_one_what_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("llmchain_fl")
    level = logger.level
    try:
        for options, expected in ((["--quiet"], logging.ERROR), ([], logging.WARNING), (["-v"], logging.INFO)):
            monkeypatch.setattr("llmchain_fl.cli.apps.simulator", lambda: Simulator(None))
            out = tmp_path / f"run{expected}"
            monkeypatch.setattr("sys.argv", ["llmchain-fl", *options, "simulate", "demo", "--out", str(out)])
            with pytest.raises(SystemExit) as ended:
                main.main()
            assert ended.value.code == 0
            assert logger.level == expected
            assert ("run directory" in capsys.readouterr().out) is (options != ["--quiet"])
    finally:
        logger.setLevel(level)


def test_the_same_line_is_logged_once() -> None:
    once = Once()
    records = [logging.LogRecord("x", logging.WARNING, "", 0, text, (), None) for text in ("a", "b", "a")]
    assert [once.filter(record) for record in records] == [True, True, False]
