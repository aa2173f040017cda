"""Every cell is checked before the first run: faults stop all, combinations are refused one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.compare.check import check_cells, lacking
from llmchain_fl.compare.read import build_comparison
from llmchain_fl.core.errors import ConfigError


def checked(tree: dict[str, Any]) -> Any:
    comparison = build_comparison("x", tree)
    return check_cells(comparison, comparison.cells([1]))


def test_every_cell_has_the_configuration_of_its_labels(tree: dict[str, Any]) -> None:
    found = checked(tree)
    assert not found.refused
    config = found.configs["fedit-0.1-seed1"]
    assert (config.aggregation.rule, config.train.lr, config.seed, config.privacy.enabled) == ("fedit", 0.02, 1, False)


def test_a_combination_that_cannot_be_is_refused_and_the_others_run(tree: dict[str, Any]) -> None:
    tree["axis"][1] = {"name": "cohort", "values": {"all": {}, "ten": {"sites.cohort": 10}}}
    found = checked(tree)
    assert [cell.slug for cell in found.cells] == ["ffa-all-seed1", "fedit-all-seed1"]
    assert [outcome.cell.slug for outcome in found.refused] == ["ffa-ten-seed1", "fedit-ten-seed1"]
    assert "sites.cohort = 10 is more than sites.count = 6" in found.refused[0].reason
    assert found.refused[0].status == "refused"


def test_a_value_that_does_not_exist_stops_everything_and_is_said_once(tree: dict[str, Any]) -> None:
    tree["axis"][0]["values"] = {"ffa": {}, "typo": {"aggregation.rule": "fedti"}}
    tree["set"] = {"train.lr_final": 7.0}
    with pytest.raises(ConfigError) as caught:
        checked(tree)
    rule, share = caught.value.faults
    if "lr_final" in rule:
        rule, share = share, rule
    assert "did you mean fedit?" in rule
    assert "(in rule typo, alpha 0.5, seed 1 and 1 more)" in rule
    assert "train.lr_final = 7.0" in share
    assert "(in" not in share


def test_a_comparison_in_which_everything_is_refused_is_an_error(tree: dict[str, Any]) -> None:
    tree["set"] = {"sites.cohort": 10}
    with pytest.raises(ConfigError, match=r"every cell is refused: sites\.cohort = 10"):
        checked(tree)


def test_files_that_are_not_here_are_named(tree: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    tree["set"] = {"data.train": str(tmp_path / "train.csv"), "data.test": str(tmp_path / "test.csv")}
    assert lacking(checked(tree)) == [str(tmp_path / "test.csv")]
    tree["set"] = {"data.train": "hub:org/name", "data.test": str(tmp_path / "{site}.csv")}
    assert lacking(checked(tree)) == []
