"""A round that the run's process did not live to save: who was asked in it, by the audit log alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmchain_fl.core.audit import AuditLog
from llmchain_fl.run_dir import RunDir
from server.lost_round import asked_and_not_saved

TASK = {"kind": "train", "run": "r", "task": "0" * 64, "node": 2}


@pytest.fixture
def log(tmp_path: Path) -> tuple[RunDir, AuditLog]:
    run = RunDir(tmp_path)
    return run, AuditLog(run.audit, "coordinator", "run")


def asked(log: AuditLog, site: str, number: int, **more: object) -> None:
    log.enter("asked", "p", site=site, task_bytes=1, work="", **{**TASK, "round": number, **more})


def received(log: AuditLog, site: str, decision: str) -> None:
    log.enter("received", "p", site=site, decision=decision, reply="", reply_bytes=0, **{**TASK, "round": 3})


def test_a_run_without_a_log_has_lost_nobody(tmp_path: Path) -> None:
    assert asked_and_not_saved(RunDir(tmp_path), "r", 0) == set()


def test_only_the_round_after_the_last_saved_one_of_this_run_counts(log: tuple[RunDir, AuditLog]) -> None:
    run, lines = log
    for site, number, more in (("a", 2, {}), ("b", 3, {}), ("c", 3, {"kind": "evaluate"}), ("d", 3, {"run": "other"})):
        asked(lines, site, number, **more)
    assert asked_and_not_saved(run, "r", 2) == {"b"}
    assert asked_and_not_saved(run, "r", 3) == set()


@pytest.mark.parametrize(
    ("decision", "may_have_paid"),
    [("answered", True), ("failed", True), ("error", True), ("training", True), ("budget", False), ("privacy", False)],
)
def test_who_said_no_for_free_has_paid_nothing(
    log: tuple[RunDir, AuditLog], decision: str, may_have_paid: bool
) -> None:
    run, lines = log
    asked(lines, "a", 3)
    received(lines, "a", decision)
    assert asked_and_not_saved(run, "r", 2) == ({"a"} if may_have_paid else set())


def test_a_site_that_paid_when_it_was_asked_again_is_counted(log: tuple[RunDir, AuditLog]) -> None:
    run, lines = log
    asked(lines, "a", 3)
    received(lines, "a", "budget")
    asked(lines, "a", 3)
    assert asked_and_not_saved(run, "r", 2) == {"a"}
