"""The ledger under faults: a killed process, a full disk, a torn file, a race."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmchain_fl.errors import BudgetExhausted, PrivacyError
from llmchain_fl.privacy.accounting import Event, epsilon
from llmchain_fl.privacy.ledger import FileLedger

DELTA = 1e-5
EVENT = Event("poisson-gaussian", 0.05, 1.0, 20)
OTHER = Event("poisson-gaussian", 0.02, 1.0, 20)
TWO = epsilon([EVENT] * 2, DELTA)


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing decides what survives a power cut, not what a killed process leaves behind; without it tests fly."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def opened(path: Path, limit: float = math.inf) -> FileLedger:
    return FileLedger(path / "ledger", DELTA, "record", "pld", limit)


def log(path: Path) -> Path:
    return path / "ledger" / "events.jsonl"


def filled(path: Path) -> FileLedger:
    ledger = opened(path)
    ledger.reserve("run/1", EVENT, "plan")
    ledger.seal("run/1", b"first")
    ledger.reserve("run/2", OTHER, "plan")
    return ledger


@pytest.mark.usefixtures("quick_disk")
def test_a_log_cut_anywhere_reads_as_the_lines_that_were_whole(tmp_path: Path) -> None:
    filled(tmp_path)
    whole = log(tmp_path).read_bytes()
    ends = [position for position, byte in enumerate(whole) if byte == ord("\n")]  # whole from here on, line end or not
    for cut in range(len(whole) + 1):
        log(tmp_path).write_bytes(whole[:cut])
        reserved = (EVENT, OTHER)[: [0, 1, 1, 2][sum(end <= cut for end in ends)]]
        ledger = opened(tmp_path)
        assert ledger.spent().events == reserved
        if cut % 5 and cut not in ends:
            continue
        ledger.reserve("run/9", EVENT, "plan")
        assert opened(tmp_path).spent().events == (*reserved, EVENT)
        assert [json.loads(line)["key"] for line in log(tmp_path).read_text().splitlines()][-1] == "run/9"


def dies_at(number: int) -> Callable[[str], None]:
    """Ends the process without any clean-up at its ``number``-th call."""
    calls = [0]

    def step(name: str) -> None:
        calls[0] += 1
        if calls[0] == number:
            os._exit(9)

    return step


def round_in_child(path: Path, step: Callable[[str], None]) -> tuple[bool, bytes]:
    """Run one round in a forked child whose durable calls first go through ``step``; (trained, bytes sent)."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "open")):
            real = getattr(owner, name)
            setattr(owner, name, lambda *a, _real=real, _name=name, **k: (step(_name), _real(*a, **k))[1])
        status = 1
        try:
            ledger = opened(path)
            if ledger.sealed("run/9") is None:
                ledger.reserve("run/9", EVENT, "plan")
                os.write(send, b"T")
                ledger.seal("run/9", os.urandom(16))
            os.write(send, ledger.sealed("run/9") or b"")
            status = 0
        finally:
            os._exit(status)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    assert status == 9 or len(said) >= 16
    return said[:1] == b"T" and len(said) in (1, 17), said[-16:] if len(said) >= 16 else b""


@pytest.mark.usefixtures("quick_disk")
def test_killed_at_any_system_call_a_round_is_charged_once_and_sends_one_update(tmp_path: Path) -> None:
    for number in range(1, 200):
        path = tmp_path / str(number)
        path.mkdir()
        filled(path).seal("run/2", b"second")
        opened(path).reserve("run/8", EVENT, "plan")
        opened(path).seal("run/8", b"eighth")
        trained, sent = round_in_child(path, dies_at(number))
        booked = opened(path).spent().events.count(EVENT) - 2
        assert booked in (0, 1)
        assert booked or not trained
        _, resent = round_in_child(path, lambda name: None)
        assert opened(path).spent().events.count(EVENT) == 3
        assert opened(path).sealed("run/9") == resent
        assert not sent or sent == resent
        if sent:
            break
    assert sent
    assert number > 15


@pytest.mark.parametrize("number", range(1, 9))
def test_a_disk_that_fails_at_any_flush_is_reported_and_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    ledger, calls, real = opened(tmp_path), [0], os.fsync

    def flaky(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == number:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", flaky)
        failed = False
        try:
            ledger.reserve("run/1", EVENT, "plan")
            ledger.seal("run/1", b"update")
        except PrivacyError as fault:
            failed = "errno 28" in str(fault)
    assert failed == (number <= calls[0])
    if ledger.sealed("run/1") is None:
        ledger.reserve("run/1", EVENT, "plan")
        ledger.seal("run/1", b"update")
    assert opened(tmp_path).spent().events == (EVENT,)
    assert opened(tmp_path).sealed("run/1") == b"update"


def test_of_four_processes_that_race_for_a_budget_of_two_rounds_two_win(tmp_path: Path) -> None:
    opened(tmp_path)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                opened(tmp_path, limit=TWO).reserve(f"run/{number}", EVENT, "plan")
                code = 0
            except BudgetExhausted:
                code = 3
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) == [0, 0, 3, 3]
    assert opened(tmp_path).spent().epsilon == TWO
