"""The audit log: lines that last, a chain that shows every change, and no round that pays for a long log."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.audit_log import read_log
from llmchain_fl.core.audit import AuditLog, last_line
from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.fingerprint import fingerprint

POLICY, OTHER = "1" * 64, "2" * 64
STOOD = {"epsilon": 1.5, "delta": 1e-5, "unit": "person", "accountant": "pld", "seq": 3, "head": "3" * 64}
MESSAGE = {"kind": "train", "run": "r", "round": 1, "task": "t", "task_bytes": 1, "work": ""}
LEFT = {"decision": "answered", "reply": "x", "reply_bytes": 2}


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "state/north.audit", "site", "north")


def answered(log: AuditLog, policy: str = POLICY, ledger: Any = None) -> None:
    log.enter("answered", policy, (lambda last: ledger) if ledger else (lambda last: last), **MESSAGE, **LEFT)


def kinds(log: AuditLog) -> list[str]:
    return [entry["type"] for entry in read_log(log.file)]


def test_the_first_line_opens_the_log_and_a_change_of_settings_is_a_line(log: AuditLog) -> None:
    answered(log)
    answered(log)
    answered(log, OTHER)
    assert kinds(log) == ["open", "answered", "answered", "changed", "answered"]
    changed = read_log(log.file)[3]
    assert (changed["was"], changed["policy"], changed["by"]) == (POLICY, OTHER, f"uid:{os.getuid()}")


def test_the_log_is_for_its_owner_alone(log: AuditLog) -> None:
    answered(log)
    assert stat.S_IMODE(log.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("stood", "stands", "before"),
    [
        (None, None, 0.0),
        (None, STOOD, 0.0),
        (STOOD, {**STOOD, "epsilon": 2.0, "seq": 5}, 1.5),
        (STOOD, {**STOOD, "delta": 1e-6}, None),
        ({**STOOD, "epsilon": None}, STOOD, None),
    ],
    ids=["no ledger", "a first round", "a round", "another delta", "no bound"],
)
def test_epsilon_before_is_how_the_ledger_stood_by_the_line_before(
    stood: Any, stands: Any, before: float | None, log: AuditLog
) -> None:
    answered(log)
    answered(log, ledger=stood)
    answered(log, ledger=stands)
    assert read_log(log.file)[-1]["before"] == before


def test_a_log_that_begins_over_an_older_ledger_states_no_epsilon_before(log: AuditLog) -> None:
    answered(log, ledger=STOOD)
    assert read_log(log.file)[-1]["before"] is None


@given(cut=st.integers(1, 300))
def test_a_torn_last_line_is_cut_off_by_the_next(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    log = AuditLog(tmp_path_factory.mktemp("log"), "site", "north")
    answered(log)
    whole = log.file.read_bytes()
    answered(log)
    torn = log.file.read_bytes()[: len(whole) + cut]
    log.file.write_bytes(torn)
    assert len(read_log(log.file)) == 2
    answered(log)
    assert kinds(log) == ["open", "answered", "answered"]
    assert log.file.read_bytes().startswith(whole)


def test_every_changed_byte_is_found(log: AuditLog) -> None:
    for _ in range(3):
        answered(log, ledger=STOOD)
    data = log.file.read_bytes()
    for at in range(0, len(data) - 1, 17):
        log.file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(PrivacyError, match="of the audit log"):
            read_log(log.file)


def test_a_changed_line_in_the_middle_stops_no_reply_and_is_found_by_whoever_reads(log: AuditLog) -> None:
    for _ in range(4):
        answered(log)
    log.file.write_bytes(log.file.read_bytes().replace(b'"round":1', b'"round":2', 1))
    answered(log)
    with pytest.raises(PrivacyError, match="line 2 of the audit log"):
        read_log(log.file)


def test_a_last_line_that_is_none_lets_nothing_be_added(log: AuditLog) -> None:
    answered(log)
    log.file.write_bytes(log.file.read_bytes() + b"{}\n")
    with pytest.raises(PrivacyError, match="the last line of the audit log"):
        answered(log)


def test_a_disk_that_fails_is_said_without_a_path(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(log)

    def full(*_: object) -> int:
        raise OSError(28, "No space left", "/secret/path")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(PrivacyError, match=r"the audit log cannot be read or written \(errno 28\)"):
        answered(log)


def test_adding_a_line_reads_the_end_of_the_file_only(tmp_path: Path) -> None:
    file = tmp_path / "long"
    file.write_bytes(b"a" * 99 + b"\n" + b"b" * 200_000 + b"\ntorn")
    assert last_line(file) == (200_101, b"b" * 200_000)
    file.write_bytes(b"torn")
    assert last_line(file) == (0, None)
    assert last_line(tmp_path / "none") == (0, None)


# -- which message it was ---------------------------------------------------------------------------------------------


def content(**changes: Any) -> RecordDict:
    arrays = {"b": np.zeros(3, np.float32), "a": np.arange(4, dtype=np.uint8), **changes.pop("arrays", {})}
    told = {"run": "r", "round": 1, "lr": 0.1, "data": b"\x00\xff", "list": ["x", "y"], "none": [], **changes}
    return RecordDict(
        {
            "arrays": ArrayRecord({name: Array(value) for name, value in arrays.items()}),
            "config": ConfigRecord(told),
            "scores": MetricRecord({"first": 0.5}),
        }
    )


def test_a_message_has_the_same_fingerprint_before_and_after_its_travel() -> None:
    from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

    there = recorddict_from_proto(recorddict_to_proto(content()))
    assert fingerprint(there) == fingerprint(content())
    turned = RecordDict(dict(reversed(list(there.items()))))
    assert fingerprint(turned) == fingerprint(content())


@pytest.mark.parametrize(
    "other",
    [
        {"round": 2},
        {"run": "s"},
        {"data": b"\x00\xfe"},
        {"list": ["x"]},
        {"more": 1},
        {"arrays": {"b": np.ones(3, np.float32)}},
        {"arrays": {"b": np.zeros((3, 1), np.float32)}},
        {"arrays": {"b": np.zeros(3, np.int32)}},
        {"lr": float("nan")},
    ],
    ids=str,
)
def test_every_other_message_has_another_fingerprint(other: dict[str, Any]) -> None:
    assert fingerprint(content(**other)).sha256 != fingerprint(content()).sha256


def test_lines_are_json_that_any_editor_shows(log: AuditLog) -> None:
    answered(log)
    assert all(json.loads(line)["policy"] == POLICY for line in log.file.read_text().splitlines())


def test_lines_entered_together_are_those_entered_one_by_one_by_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr("os.fsync", flushed.append)
    monkeypatch.setattr("llmchain_fl.core.chain.datetime", _Stopped)
    asked = [("asked", {**MESSAGE, "site": f"s{n}", "node": n}) for n in range(50)]
    alone, together = (AuditLog(tmp_path / name, "coordinator", "run") for name in ("alone", "together"))
    for kind, fields in asked:
        alone.enter(kind, POLICY, **fields)
    before = len(flushed)
    together.enter_all(asked, POLICY)
    assert len(flushed) - before <= 6  # folders, the file, the name of the file
    assert together.file.read_bytes() == alone.file.read_bytes()
    assert [entry["site"] for entry in read_log(together.file)[1:]] == [f"s{n}" for n in range(50)]


class _Stopped:
    """A clock that stands still."""

    @staticmethod
    def now(_zone: Any) -> datetime:
        return datetime(2026, 11, 30, tzinfo=UTC)
