"""The operator's word that a stage is over."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.next_stage import FILE, announce, announced
from llmchain_fl.run_dir import RunDir

STAGES = ("cards", "fraud")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", "title = ''\n")


def said(run: RunDir) -> list[bool]:
    return [announced(run, stage, STAGES) for stage in STAGES]


def test_without_a_word_no_stage_is_over(run: RunDir) -> None:
    assert said(run) == [False, False]
    (run.path / FILE).write_text("\n  \n")
    assert said(run) == [False, False]


def test_the_stage_that_is_named_is_over_and_no_other_however_often_it_is_said_or_asked(run: RunDir) -> None:
    for _ in range(2):
        announce(run, "fraud", STAGES)
        assert said(run) == said(run) == [False, True]
    assert (run.path / FILE).read_text().split() == ["fraud"]
    announce(run, "cards", STAGES)
    assert said(run) == [True, True]


def test_a_line_written_by_hand_counts_with_blanks_around_it_and_without_an_end(run: RunDir) -> None:
    (run.path / FILE).write_bytes(b"  cards \r\nfr")
    announce(run, "fraud", STAGES)
    assert said(run) == [True, True]


def test_a_stage_that_does_not_exist_cannot_be_announced(run: RunDir) -> None:
    with pytest.raises(ConfigError, match=r'no stage "frued"; did you mean fraud\?'):
        announce(run, "frued", STAGES)
    assert not (run.path / FILE).exists()


def test_a_wrong_name_in_the_file_ends_nothing_and_is_warned_of(run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    (run.path / FILE).write_bytes(b"card\n\xff\xfe\n")
    with caplog.at_level(logging.WARNING, logger="llmchain_fl"):
        assert not announced(run, "cards", STAGES)
    assert "did you mean cards?" in caplog.text
