"""Two processes cannot share a run directory, and one that dies holds nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmchain_fl.core.errors import RunError
from llmchain_fl.run_dir import RunDir

HOLDS = """
import sys, time
from pathlib import Path
from llmchain_fl.run_dir import RunDir
with RunDir(Path(sys.argv[1])).alone():
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_run_is_changed_by_one_process_at_a_time_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", "")
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(run.path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="another process is at work"), run.alone():
            pytest.fail("both hold it")
        assert not run.discard()
        assert run.path.exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
    with run.alone():
        pass
    assert run.discard()
    assert not run.path.exists()


def test_within_a_process_it_is_held_once_too_and_free_after_an_error(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", "")
    with run.alone(), pytest.raises(RunError, match="another process"), RunDir.open(run.path).alone():
        pytest.fail("held twice")
    with pytest.raises(ZeroDivisionError), run.alone():
        raise ZeroDivisionError
    with run.alone():
        pass
