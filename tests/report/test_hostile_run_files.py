"""Files of a run that something else wrote over: an error of ours, whatever stands in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmchain_fl.core.errors import RunError
from llmchain_fl.run_dir import RunDir

HOSTILE = [b"[" * 3000, b'{"a": ' * 3000, b"9" * 5000, b"\xff\xfe", b"\x00", b"null"]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_line_that_no_parser_takes_is_a_damaged_line(tmp_path: Path, content: bytes) -> None:
    run = RunDir.create(tmp_path / "run", "")
    row = {"round": 1, "metric": "x", "value": 0.5}
    run.append_rows([row])
    run.metrics.write_bytes(content + b"\n" + run.metrics.read_bytes())
    with pytest.raises(RunError, match=r"metrics\.jsonl:1 is damaged"):
        run.rows()
    run.metrics.write_bytes(content)  # as the last line it was torn by a crash
    assert run.rows() == []


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_privacy_file_that_no_parser_takes_is_damaged(tmp_path: Path, content: bytes) -> None:
    run = RunDir.create(tmp_path / "run", "")
    run.privacy.write_bytes(content)
    with pytest.raises(RunError, match=r"privacy\.json is damaged"):
        run.read_privacy()
