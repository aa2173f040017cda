"""Cells in processes: each loses its own cell only, and nobody is left behind. The processes are real."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.compare.outcome import Outcome
from llmchain_fl.compare.plan import Cell
from llmchain_fl.compare.play import Job
from llmchain_fl.compare.work import in_processes, one_by_one

PLAYERS = """
import os, sys, time
from pathlib import Path
from llmchain_fl.compare.outcome import Outcome

BASE = []

def play(job, tell):
    tell(1, 2)
    what = job.cell.labels["rule"]
    if what == "error":
        raise ValueError("no good\\nat all")
    if what == "killed":
        os.kill(os.getpid(), 9)
    if what == "sleeps":
        (job.folder / "pid").write_text(str(os.getpid()))
        time.sleep(120)
    print("said by", what)
    numbers = {"loaded": float(len(BASE)), "pid": float(os.getpid()), "threads": float(os.environ["OMP_NUM_THREADS"])}
    return Outcome(job.cell.labels, job.cell.seed, job.cell.settings, "finished", numbers=numbers)
"""
SCRIPT = """
import signal
import sys
from pathlib import Path
from llmchain_fl.compare.plan import Cell
from llmchain_fl.compare.play import Job
from llmchain_fl.compare.work import in_processes
import players

class Nobody:
    def began(self, job): pass
    def moved(self, job, done, total): pass
    def ended(self, job, outcome): pass

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests in the background ignores it
    folders = [Path(sys.argv[1]), Path(sys.argv[2])]
    jobs = [Job(Cell({"rule": "sleeps"}, n, ()), folder, "") for n, folder in enumerate(folders)]
    in_processes(2, Path(sys.argv[3]), dict)(jobs, players.play, Nobody())
"""


class Seen:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def began(self, job: Job) -> None:
        self.told.append(("began", job.cell.slug))

    def moved(self, job: Job, done: int, total: int) -> None:
        self.told.append(("moved", job.cell.slug, done, total))

    def ended(self, job: Job, outcome: Outcome) -> None:
        self.told.append(("ended", job.cell.slug, outcome.status))


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A player that a fresh process can import too."""
    (tmp_path / "players.py").write_text(PLAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("players", None)
    return importlib.import_module("players").play


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def jobs(folder: Path, *rules: str) -> list[Job]:
    return [Job(Cell({"rule": rule}, n, ()), folder / f"{rule}{n}", "") for n, rule in enumerate(rules)]


@pytest.mark.parametrize("processes", [False, True])
def test_an_error_loses_its_cell_only_and_leaves_its_trace(
    processes: bool, play: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = in_processes(1, tmp_path / "logs", dict) if processes else one_by_one
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = Seen()
    outcomes = runner(jobs(tmp_path, "a", "error", "b"), play, seen)
    assert [outcome.status for outcome in outcomes] == ["finished", "failed", "finished"]
    assert outcomes[1].reason == "ValueError: no good at all"
    assert "raise ValueError" in (tmp_path / "error1" / "crash.txt").read_text()
    assert seen.told[:3] == [("began", "a-seed0"), ("moved", "a-seed0", 1, 2), ("ended", "a-seed0", "finished")]
    assert ("ended", "error-seed1", "failed") in seen.told


def test_a_killed_process_loses_its_cell_only_and_is_replaced(play: Any, tmp_path: Path) -> None:
    outcomes = in_processes(1, tmp_path / "logs", dict)(jobs(tmp_path, "a", "killed", "b"), play, Seen())
    assert [outcome.status for outcome in outcomes] == ["finished", "failed", "finished"]
    assert "exit code -9" in outcomes[1].reason
    assert outcomes[0].numbers["pid"] != outcomes[2].numbers["pid"]


@pytest.mark.thorough
def test_workers_keep_their_process_have_one_thread_and_speak_into_a_file(
    play: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    outcomes = in_processes(2, tmp_path / "logs", dict)(jobs(tmp_path, *"abcdef"), play, Seen())
    pids = {outcome.numbers["pid"] for outcome in outcomes}
    assert len(outcomes) == 6
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids
    assert not any(_alive(int(pid)) for pid in pids)  # ended with the last cell
    assert {outcome.numbers["threads"] for outcome in outcomes} == {1}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "said by" in "".join(path.read_text() for path in (tmp_path / "logs").iterdir())


def test_what_is_loaded_before_the_first_cell_is_there_in_every_process(play: Any, tmp_path: Path) -> None:
    players, calls = importlib.import_module("players"), list[int]()

    def warm() -> None:
        calls.append(os.getpid())
        players.BASE.append("loaded")

    outcomes = in_processes(2, tmp_path / "logs", warm)(jobs(tmp_path, "a", "killed", "b", "c"), play, Seen())
    assert calls == [os.getpid()]
    assert {outcome.numbers["loaded"] for outcome in outcomes if outcome.status == "finished"} == {1}


def test_no_jobs_start_no_process(play: Any, tmp_path: Path) -> None:
    assert in_processes(2, tmp_path / "logs", dict)([], play, Seen()) == []
    assert not (tmp_path / "logs").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.thorough
def test_workers_end_with_their_parent_however_it_ends(how: int, play: Any, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SCRIPT)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, str(tmp_path / "main.py"), *map(str, folders), str(tmp_path / "logs")]
    parent = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.DEVNULL)
    try:
        pids = [_pid(folder / "pid") for folder in folders]
        parent.send_signal(how)
        parent.wait(20)
        until = time.monotonic() + 10
        while any(map(_alive, pids)) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(map(_alive, pids))
    finally:
        parent.kill()


def _pid(path: Path) -> int:
    until = time.monotonic() + 60
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return int(path.read_text())
