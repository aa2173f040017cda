from __future__ import annotations

import math
from pathlib import Path

import pytest

from llmchain_fl.errors import BudgetExhausted, PrivacyError
from llmchain_fl.privacy.accounting import Event, epsilon
from llmchain_fl.privacy.ledger import FileLedger, Ledger, NullLedger

DELTA = 1e-5
EVENT = Event("poisson-gaussian", 0.05, 1.0, 20)
OTHER = Event("poisson-gaussian", 0.02, 1.0, 20)
ONE, TWO = (epsilon([EVENT] * rounds, DELTA) for rounds in (1, 2))


def opened(path: Path, limit: float = math.inf, unit: str = "record") -> FileLedger:
    return FileLedger(path / "ledger", DELTA, unit, "pld", limit)


def log(path: Path) -> Path:
    return path / "ledger" / "events.jsonl"


def filled(path: Path) -> FileLedger:
    ledger = opened(path)
    ledger.reserve("run/1", EVENT, "plan")
    ledger.seal("run/1", b"first")
    ledger.reserve("run/2", OTHER, "plan")
    return ledger


def test_reservations_are_composed_and_survive_a_new_start(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    spent = ledger.spent()
    assert (spent.delta, spent.unit, spent.accountant) == (DELTA, "record", "pld")
    assert spent.events == (EVENT, OTHER)
    assert spent.epsilon == epsilon([EVENT, OTHER], DELTA)
    assert opened(tmp_path).spent() == spent


def test_a_fresh_ledger_has_spent_nothing(tmp_path: Path) -> None:
    assert opened(tmp_path).spent().epsilon == 0.0


def test_a_crash_between_reserve_and_seal_is_not_charged_twice(tmp_path: Path) -> None:
    opened(tmp_path).reserve("run/1", EVENT, "plan")
    again = opened(tmp_path, limit=ONE)
    again.reserve("run/1", EVENT, "plan")
    assert again.sealed("run/1") is None
    assert again.spent().epsilon == ONE


def test_the_sealed_update_is_sent_again_byte_for_byte(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 50
    ledger = opened(tmp_path)
    ledger.reserve("run/1", EVENT, "plan")
    ledger.seal("run/1", payload)
    assert ledger.sealed("run/1") == payload
    assert opened(tmp_path).sealed("run/1") == payload
    assert opened(tmp_path).sealed("run/2") is None


def test_a_sealed_round_is_never_trained_again_nor_sealed_with_other_bytes(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    with pytest.raises(PrivacyError, match="sealed"):
        ledger.reserve("run/1", EVENT, "plan")
    with pytest.raises(PrivacyError, match="other bytes"):
        ledger.seal("run/1", b"second")
    before = log(tmp_path).read_bytes()
    ledger.seal("run/1", b"first")
    assert log(tmp_path).read_bytes() == before
    assert ledger.sealed("run/1") == b"first"


def test_a_round_must_be_reserved_before_it_is_sealed(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="never reserved"):
        opened(tmp_path).seal("run/1", b"x")


def test_a_reserved_round_keeps_its_plan(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    for event, plan in ((OTHER, "another plan"), (EVENT, "plan")):
        with pytest.raises(PrivacyError, match="another plan"):
            ledger.reserve("run/2", event, plan)
    assert ledger.spent().events == (EVENT, OTHER)


def test_the_budget_is_enforced_before_anything_is_written(tmp_path: Path) -> None:
    ledger = opened(tmp_path, limit=(ONE + TWO) / 2)
    ledger.reserve("run/1", EVENT, "plan")
    before = log(tmp_path).read_bytes()
    with pytest.raises(BudgetExhausted, match=r"epsilon to .* limit is .*delta 1e-05, unit record, accountant pld"):
        ledger.reserve("run/2", EVENT, "plan")
    assert log(tmp_path).read_bytes() == before
    assert ledger.spent().epsilon == ONE


def test_the_limit_itself_may_be_reached_and_counts_across_runs(tmp_path: Path) -> None:
    opened(tmp_path, limit=TWO).reserve("run-a/1", EVENT, "plan")
    ledger = opened(tmp_path, limit=TWO)
    ledger.reserve("run-b/1", EVENT, "plan")
    assert ledger.spent().epsilon == TWO
    with pytest.raises(BudgetExhausted):
        ledger.reserve("run-c/1", OTHER, "plan")


def test_a_release_without_noise_never_fits_a_finite_limit(tmp_path: Path) -> None:
    bare = Event("poisson-gaussian", 0.05, 0.0, 20)
    with pytest.raises(BudgetExhausted):
        opened(tmp_path, limit=1e6).reserve("run/1", bare, "plan")
    assert opened(tmp_path).spent().epsilon == 0.0
    opened(tmp_path, limit=math.inf).reserve("run/1", bare, "plan")
    assert opened(tmp_path).spent().epsilon == math.inf


def test_what_a_round_would_cost_can_be_asked_without_spending_it(tmp_path: Path) -> None:
    ledger = opened(tmp_path, limit=ONE)
    ledger.reserve("run/1", EVENT, "plan")
    before = log(tmp_path).read_bytes()
    assert ledger.would_spend(EVENT).epsilon == TWO
    assert ledger.would_spend(EVENT).events == (EVENT, EVENT)
    assert log(tmp_path).read_bytes() == before


def test_only_the_last_two_updates_are_kept_and_an_older_one_is_not_made_again(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for number in range(1, 5):
        ledger.reserve(f"run/{number}", EVENT, "plan")
        ledger.seal(f"run/{number}", b"update %d" % number)
    assert len(list((tmp_path / "ledger" / "sealed").iterdir())) == 2
    assert (ledger.sealed("run/3"), ledger.sealed("run/4")) == (b"update 3", b"update 4")
    with pytest.raises(PrivacyError, match="not here any more"):
        ledger.sealed("run/2")
    with pytest.raises(PrivacyError, match="sealed"):
        ledger.reserve("run/2", EVENT, "plan")


def test_a_damaged_or_missing_update_is_refused_not_trained_again(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    (file,) = (tmp_path / "ledger" / "sealed").iterdir()
    file.write_bytes(b"fIrst")
    with pytest.raises(PrivacyError, match="not here any more"):
        ledger.sealed("run/1")
    file.unlink()
    with pytest.raises(PrivacyError, match="not here any more"):
        ledger.sealed("run/1")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"7",
        b"\xff\xfe",
        b'{"type": "reserve", "key": "run/7"}',
        b'{"type": "refund", "key": "run/1"}',
        b'{"type": "seal", "key": "run/7", "sha256": "00"}',
        b'{"type": "seal", "key": "run/1", "sha256": "00"}',
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_an_ended_line_that_makes_no_sense_is_refused(tmp_path: Path, line: bytes, last: bool) -> None:
    ledger = filled(tmp_path)
    lines = log(tmp_path).read_bytes().splitlines(keepends=True)
    lines.insert(3 if last else 2, line + b"\n")
    log(tmp_path).write_bytes(b"".join(lines))
    for call in (ledger.spent, lambda: opened(tmp_path), lambda: ledger.reserve("run/3", EVENT, "plan")):
        with pytest.raises(PrivacyError, match=r"line \d of .* cannot be trusted"):
            call()


def test_one_ledger_counts_by_one_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    monkeypatch.setitem(FileLedger.__init__.__globals__["UNITS"], "household", "all records of one household")
    with pytest.raises(PrivacyError, match="line 1"):
        opened(tmp_path, unit="household")


@pytest.mark.parametrize(
    ("delta", "unit", "accountant", "limit"),
    [
        (0.0, "record", "pld", 1.0),
        (1e-5, "house", "pld", 1.0),
        (1e-5, "record", "gdp", 1.0),
        (1e-5, "record", "pld", -1.0),
    ],
)
def test_a_ledger_that_could_promise_nothing_is_refused(
    tmp_path: Path, delta: float, unit: str, accountant: str, limit: float
) -> None:
    with pytest.raises(PrivacyError, match="no such ledger"):
        FileLedger(tmp_path, delta, unit, accountant, limit)
    with pytest.raises(PrivacyError, match="no such ledger"):
        FileLedger(tmp_path, DELTA, "record", "pld", math.nan)


def test_a_run_without_noise_needs_no_ledger_but_says_that_epsilon_is_infinite() -> None:
    ledger: Ledger = NullLedger()
    ledger.reserve("run/1", Event("poisson-gaussian", 0.05, 0.0, 20), "plan")
    ledger.seal("run/1", b"x")
    assert ledger.sealed("run/1") is None
    assert ledger.spent().epsilon == math.inf
    assert ledger.would_spend(EVENT).epsilon == math.inf


def test_a_private_round_is_not_accepted_by_a_ledger_that_forgets() -> None:
    with pytest.raises(PrivacyError, match="not be recorded"):
        NullLedger().reserve("run/1", EVENT, "plan")
