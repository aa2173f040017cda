"""``unlearn`` and ``restore`` as a user types them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.cli.main import main
from llmchain_fl.run_dir import RunDir


def typed(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Exit code of the command line."""
    monkeypatch.setattr(sys, "argv", ["llmchain-fl", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def run(small: Any, tmp_path: Path) -> RunDir:
    """Two stages, without slots; the site ``west`` came in the second one."""
    from llmchain_fl.adapter.files import Lineage, write_adapter

    run, task = RunDir.create(tmp_path / "run", ""), small.task()
    for stage, name in enumerate(("cards", "fraud")):
        task.resident.theta.mul_(0.5)
        lineage = Lineage("r", stage + 1, name, "")
        write_adapter(run.stage_adapter(stage, name), task.resident, task.resident.arrays(), small.work(), lineage)
    base = {"stage": 0, "scope": "site", "metric": "bytes_up", "value": 1.0, "n": None, "task": "all"}
    run.append_rows([{**base, "round": 1, "site": "north"}, {**base, "round": 2, "site": "west"}])
    return run


def test_an_older_adapter_comes_back_by_one_command(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, "restore", run.path, "--stage", "cards", "--out", tmp_path / "old") == 0
    content = json.loads((run.stage_adapter(0, "cards") / "manifest.json").read_text())["content"]
    assert json.loads((tmp_path / "old" / "manifest.json").read_text())["content"] == content
    assert f"stage cards (round 1), content {content[:12]}" in capsys.readouterr().out
    assert typed(monkeypatch, "restore", run.path, "--round", 1, "--out", tmp_path / "again") == 0
    assert typed(monkeypatch, "predict", tmp_path / "old", "lost card") == 0


def test_a_site_that_came_later_is_left_behind_and_the_price_is_said(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, "unlearn", run.path, "--site", "west", "--out", tmp_path / "old") == 0
    said = capsys.readouterr().out
    assert "from before west (round 2)" in said
    assert "from all sites, is not in it" in said


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("unlearn", "--stage", "fraud"), "restore"),
        (("unlearn", "--site", "north"), "in every adapter"),
        (("unlearn", "--site", "wset"), "did you mean west?"),
        (("unlearn",), "one of --stage and --site"),
        (("unlearn", "--stage", "a", "--site", "b"), "one of --stage and --site"),
        (("restore", "--stage", "crads"), "did you mean cards?"),
        (("restore",), "one of --stage and --round"),
        (("restore", "--stage", "cards", "--round", "1"), "one of --stage and --round"),
    ],
)
def test_what_cannot_be_done_ends_with_code_2_and_one_clear_text(
    run: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    answer: str,
) -> None:
    assert typed(monkeypatch, words[0], run.path, *words[1:], "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert said.count("error:") == 1
    assert answer in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run_is_refused(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("unlearn", "restore"):
        assert typed(monkeypatch, command, tmp_path / "rum", "--stage", "cards", "--out", tmp_path / "out") == 2
        assert f"did you mean {run.path}?" in capsys.readouterr().err
