"""The ledger under faults: killed at every system call and at any moment, a disk that fails, a race."""

from __future__ import annotations

import itertools
import math
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from llmchain_fl.core.errors import BudgetExhausted, PrivacyError
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.register import Stay
from llmchain_fl.privacy.drill.kills import PHASES, Fault, Tally, live
from llmchain_fl.privacy.drill.scratch import EVENT, GROUP, TERMS, groups_of, open_ledger, read_log, release

TWO = epsilon([EVENT] * 2, TERMS.delta)


def unharmed(tally: Tally) -> bool:
    return (tally.under_counts, tally.two_payloads, tally.wrong_totals) == (0, 0, 0) and tally.most_over_counted <= 1


@pytest.mark.thorough
def test_killed_at_every_system_call_nothing_is_lost_and_one_update_is_sent(tmp_path: Path) -> None:
    """One ledger for each call of a life of two rounds; the last life ends before its fault comes."""
    total, draw = Tally(), random.Random(1)
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        tally = Tally()
        live(folder, 2, itertools.chain([Fault(call=number)], itertools.repeat(Fault())), tally, draw)
        assert unharmed(tally), number
        assert tally.released == 2
        total.kills += tally.kills
        if not tally.kills:
            break
    assert number > 100
    assert set(total.kills) == set(PHASES) - {"train", "send"}  # there it makes no call


def test_killed_sixty_times_at_any_moment_nothing_is_lost(tmp_path: Path) -> None:
    tally, draw = Tally(), random.Random(7)
    faults = itertools.chain.from_iterable(
        (Fault(seconds=draw.uniform(1e-4, 0.02)), Fault(call=draw.randrange(1, 150))) for _ in itertools.count()
    )
    for number in itertools.count():
        (tmp_path / str(number)).mkdir()
        live(tmp_path / str(number), 6, faults, tally, draw)
        if tally.kills.total() >= 60:
            break
    assert unharmed(tally)
    assert tally.released == 6 * (number + 1)
    assert tally.resends > 0


def test_the_drill_finds_a_ledger_that_reserves_only_when_it_seals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, seal = FileLedger.reserve, FileLedger.seal

    def late(self: FileLedger, key: str, payload: bytes) -> None:
        reserve(self, release(int(key.rpartition("/")[2])))
        seal(self, key, payload)

    monkeypatch.setattr(FileLedger, "reserve", lambda self, told, people=(): None)
    monkeypatch.setattr(FileLedger, "seal", late)
    tally = Tally()
    for number in range(40, 70):
        (tmp_path / str(number)).mkdir()
        faults = itertools.chain([Fault(call=number)], itertools.repeat(Fault()))
        live(tmp_path / str(number), 1, faults, tally, random.Random(1))
    assert tally.under_counts > 0


def test_and_one_that_sends_new_bytes_for_a_sealed_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileLedger, "sealed", lambda self, key: os.urandom(8) if key in self.sealed_keys() else None)
    monkeypatch.setattr(
        FileLedger, "sealed_keys", lambda self: set(read_log(self._store.sealed.parent.parent).seals), raising=False
    )
    tally, draw = Tally(), random.Random(1)
    faults = itertools.cycle([Fault(call=160), Fault()])
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        live(tmp_path / str(number), 3, faults, tally, draw)
    assert tally.two_payloads > 0


@pytest.mark.parametrize("number", range(1, 22))
def test_a_disk_that_fails_at_any_flush_is_reported_and_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    ledger, calls, real = open_ledger(tmp_path), [0], os.fsync

    def flaky(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == number:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", flaky)
        failed = False
        try:
            ledger.reserve(release(1), [(GROUP, ["ann"])])
            ledger.seal(release(1).key, b"update")
        except PrivacyError as fault:
            failed = "errno 28" in str(fault)
    assert failed == (number <= calls[0])
    if ledger.sealed(release(1).key) is None:
        assert ledger.reserve(release(1), [(GROUP, ["ann"])])[0].all()
        ledger.seal(release(1).key, b"update")
    again = open_ledger(tmp_path)
    assert again.spent().events == (EVENT,)
    assert again.sealed(release(1).key) == b"update"
    assert groups_of(tmp_path, ["ann"]) == [{Stay(GROUP)}]


def test_of_four_processes_that_race_for_a_budget_of_two_rounds_two_win(tmp_path: Path) -> None:
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                terms = replace(TERMS, epsilon_limit=TWO)
                FileLedger(tmp_path / "state", tmp_path / "anchor", terms).reserve(release(number))
                code = 0
            except BudgetExhausted:
                code = 3
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) == [0, 0, 3, 3]
    assert math.isclose(open_ledger(tmp_path).spent().epsilon, TWO)
    assert len(read_log(tmp_path).hashes) == 3
