"""A simulated site is shown with the group of records that it stands for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.report.page import write_report
from llmchain_fl.report.site_names import shown_names, with_names
from llmchain_fl.run_dir import RunDir


@pytest.fixture
def run(tmp_path: Path, config_toml: str, make_rows: Callable[..., Any], make_privacy: Callable[..., Any]) -> RunDir:
    made = RunDir.create(tmp_path / "run", config_toml)
    rows = make_rows()
    made.append_rows(rows)
    made.write_privacy(make_privacy(rows))
    return made


def dealt(run: RunDir, groups: Any) -> None:
    sites = [f"site-{n:02d}" for n in range(6)]
    (run.sites / "dealt.json").write_text(json.dumps({"sites": sites, "stages": [], "groups": groups}))


def test_a_site_of_one_group_is_shown_with_its_name_and_one_of_several_with_their_number(run: RunDir) -> None:
    dealt(run, {"airport": 0, "old town": 1, "market": 1, "zoo": 1, "a\x1b[2J\nb": 2})
    assert shown_names(run) == {
        "site-00": "site-00 (airport)",
        "site-01": "site-01 (market and 2 more)",
        "site-02": "site-02 (a\\x1b[2J\\x0ab)",
    }


def test_rows_privacy_and_page_show_the_names(run: RunDir) -> None:
    dealt(run, {"airport": 0, "harbour": 5})
    rows, privacy = with_names(run)
    assert {row["site"] for row in rows} == {
        None, "site-00 (airport)", "site-01", "site-02", "site-03", "site-04", "site-05 (harbour)",
    }  # fmt: skip
    assert set(privacy["sites"]) == {row["site"] for row in rows} - {None}
    text = write_report(run).read_text(encoding="utf-8")
    assert "at site-05 (harbour); every site is within the target" in text


@pytest.mark.parametrize("content", ["", "[1]", '{"sites": 3, "groups": {}}', '{"sites": ["a"]}', "\xff"])
def test_without_a_column_or_with_an_odd_file_sites_keep_their_names(content: str, run: RunDir) -> None:
    assert shown_names(run) == {}
    (run.sites / "dealt.json").write_text(content, encoding="latin-1")
    assert shown_names(run) == {}
    assert with_names(run) == (run.rows(), run.read_privacy())
