"""Real small processes: what a supervisor starts ends as a whole, and ends with it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmchain_fl.core.errors import RunError
from llmchain_fl.onprem import run_flower
from llmchain_fl.onprem.child import ORPHANED, end_with
from llmchain_fl.onprem.process import RealProcess
from llmchain_fl.onprem.run_flower import LOST, Contact, play
from llmchain_fl.onprem.server_executor import ServerExecutor

CHILD = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "


def until(done: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
    return done()


def test_its_output_is_passed_on_and_its_last_lines_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    one = RealProcess("node", [sys.executable, "-c", "print('a\\n\\nb'); raise SystemExit(7)"], os.environ)
    assert until(lambda: one.ended() is not None)
    assert one.ended() == 7
    assert one.tail() == ("a", "", "b")
    assert capsys.readouterr().err == "[node] a\n[node] b\n"
    assert one.gone()


def test_what_it_has_started_ends_with_it() -> None:
    one = RealProcess("node", [sys.executable, "-c", f"{CHILD}print('up', flush=True); time.sleep(60)"], os.environ)
    assert until(lambda: "up" in one.tail())
    one.terminate()
    assert until(one.gone)


def test_what_it_has_started_is_found_also_when_it_is_dead_itself() -> None:
    one = RealProcess("executor", [sys.executable, "-c", f"{CHILD}raise SystemExit(0)"], os.environ)
    assert until(lambda: one.ended() is not None)
    assert not one.gone()
    one.kill()
    assert until(one.gone)


def test_a_process_ends_within_a_second_after_its_supervisor_was_killed(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import sys, time; from llmchain_fl.onprem.child import "
        "end_with; end_with(int(sys.argv[1])); print(1, flush=True); time.sleep(60)', str(os.getpid())],"
        " stdout=subprocess.PIPE, start_new_session=True)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()

    def ended() -> bool:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            return Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"
        return True

    assert until(ended, 5)


def test_a_process_whose_parent_is_another_from_the_start_ends_at_once() -> None:
    ended = threading.Event()
    codes: list[int] = []
    end_with(os.getppid() + 1, lambda code: (codes.append(code), ended.set())[0], every=0.01)
    assert ended.wait(5)
    assert codes == [ORPHANED]


def leaves(end: object) -> Callable[[], None]:
    def program() -> None:
        if isinstance(end, BaseException):
            raise end

    return program


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (SystemExit(0), 0),
        (SystemExit(1), 1),
        (SystemExit(None), 0),
        (SystemExit("words"), 1),
        (None, LOST),
        (OSError(), LOST),
    ],
)
def test_a_supernode_that_gives_up_its_connection_ends_its_process_with_a_code_of_its_own(
    end: object, code: int
) -> None:
    assert play(leaves(end)) == code


def test_a_supernode_that_loses_its_heartbeat_or_hears_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    codes: list[int] = []
    told = threading.Event()

    def end(code: int) -> None:
        codes.append(code)
        told.set()

    contact = Contact(lambda: 0.0)
    run_flower.watch(contact, -1.0, end)
    assert told.wait(5)
    told.clear()
    thread = threading.Thread(target=leaves(RuntimeError("not recognised")))
    thread.start()
    thread.join()
    assert told.wait(5)
    assert codes == [LOST, LOST]


def test_an_answer_of_the_coordinator_is_contact_and_a_fault_of_its_machine_is_not() -> None:
    now = [0.0]
    contact = Contact(lambda: now[0])
    log = logging.Logger("httpx")
    log.addHandler(contact)
    now[0] = 50.0
    log.info('HTTP Request: %s %s "%s %d %s"', "POST", "http://a", "HTTP/1.1", 503, "Service Unavailable")
    log.info("something else")
    assert contact.quiet() == 50.0
    log.info('HTTP Request: %s %s "%s %d %s"', "POST", "http://a", "HTTP/1.1", 200, "OK")
    assert contact.quiet() == 0.0


def server(play_: Callable[[str], None] = lambda token: None, touched: bool = False) -> ServerExecutor:
    return ServerExecutor(play_, lambda: touched, fork=lambda: 4711, sleep=lambda seconds: None)


def test_a_run_is_played_in_a_fork_of_the_warm_process(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    executor = ServerExecutor(lambda token: seen.write_text(f"{token} {os.getpid()}") and None, lambda: False)
    child = executor.start("token")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert seen.read_text() == f"token {child}"
    assert child != os.getpid()


def test_no_run_is_forked_from_a_process_that_has_touched_the_gpu() -> None:
    with pytest.raises(RunError, match="CUDA was touched"):
        server(touched=True).start("token")


def test_runs_that_wait_are_started_one_after_the_other_and_faults_are_asked_again() -> None:
    started: list[object] = []
    answers: list[object] = [OSError(), ("kind", "a"), None, ("kind", "b")]

    class Some:
        def token(self) -> tuple[str, str] | None:
            found = answers.pop(0)
            if isinstance(found, Exception):
                raise found
            return found  # type: ignore[return-value]

    executor = server()
    executor.start = started.append  # type: ignore[method-assign,assignment]
    executor.serve(Some(), lambda: bool(answers))
    assert started == ["a", "b"]
