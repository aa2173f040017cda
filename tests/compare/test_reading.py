"""A comparison file: strictly checked, all faults at once, and written back to an equal value."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.compare import settings
from llmchain_fl.compare.plan import Comparison
from llmchain_fl.compare.read import build_comparison, read_comparison, read_only, read_seeds
from llmchain_fl.compare.settings import one_line, setting_lines, to_toml
from llmchain_fl.core.errors import ConfigError


def faults(tree: dict[str, Any], *given: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_comparison("bad", tree, given)
    return caught.value.faults


def test_cells_are_all_combinations_seed_by_seed(comparison: Comparison) -> None:
    slugs = [cell.slug for cell in comparison.cells()]
    assert slugs[:4] == ["ffa-0.5-seed1", "ffa-0.1-seed1", "fedit-0.5-seed1", "fedit-0.1-seed1"]
    assert [slug[-5:] for slug in slugs] == ["seed1"] * 4 + ["seed2"] * 4 + ["seed3"] * 4


def test_a_cell_holds_the_settings_of_all_then_of_its_labels_then_its_seed(comparison: Comparison) -> None:
    assert comparison.cells()[1].settings == (
        "privacy.enabled = false",
        "continual.guards = []",
        'aggregation.rule = "ffa"',
        "train.lr = 0.02",
        "seed = 1",
    )


def test_all_faults_come_in_one_error_in_the_users_words(tree: dict[str, Any]) -> None:
    tree |= {"tittle": "x", "scenario": "demmo", "seeds": [1, 1], "score": "acuracy", "report": ["byte"]}
    tree["set"] = {"train.lrr": 0.1, "seed": 3}
    tree["axis"][0] = {"name": "rule", "valeus": {}}
    tree["axis"][1] = {"name": "alpha", "values": {"a b": {}, "a-b": {}, "x,y": 3}, "baseline": "z", "repeat": 1}
    tree["skip"] = [{"rulee": "ffa"}, {}]
    found = "\n".join(faults(tree))
    for part in (
        "tittle is not a key of a comparison; did you mean title?",
        "there is no scenario 'demmo'; did you mean demo?",
        "seeds = [1, 1]: must be a list of different whole numbers",
        "score: 'acuracy' is not measured; did you mean accuracy?",
        "report: 'byte' is not measured; did you mean bytes?",
        "set: train.lrr is not a setting; did you mean train.lr?",
        "set: seed is not a setting of a comparison",
        "axis rule: valeus is not a key of a comparison; did you mean values?",
        "axis rule has no values",
        "axis alpha: baseline = 'z' is not one of its labels",
        "axis alpha: repeat = 1: must be true or false",
        'axis alpha, "x,y" = 3: must be a table of settings',
        "axis alpha: a label is 1 to 40 characters",
        "axis alpha: two labels look alike in a path",
        "skip: there is no axis 'rulee'; did you mean rule?",
        "a skip without an axis would skip everything",
    ):
        assert part in found, part


def test_what_no_comparison_can_be_is_said(tree: dict[str, Any]) -> None:
    assert "there is no [[axis]]" in faults({"scenario": "demo-lora"})
    assert any("scenario is missing" in fault for fault in faults({"axis": tree["axis"]}))
    both = [{"name": "rule", "values": {"a": {"train.lr": 0.1}}}, {"name": "lr", "values": {"b": {"train.lr": 0.2}}}]
    assert "axes rule and lr both set train.lr" in faults({**tree, "axis": both})
    assert "two axes have the name 'rule'" in faults({**tree, "axis": [tree["axis"][0], tree["axis"][0]]})
    assert "skip leaves no cell to run" in faults({**tree, "skip": [{"rule": ["ffa", "fedit"]}]})
    repeated = [{**axis, "repeat": True} for axis in tree["axis"]]
    assert "every axis is a repeat: nothing is compared" in faults({**tree, "axis": repeated})
    named = {"name": "seed", "values": {"a": {}}}
    assert any("no axis may be called seed" in fault for fault in faults({**tree, "axis": [named]}))


def test_settings_may_be_dotted_or_nested_and_stand_in_one_form(tree: dict[str, Any]) -> None:
    tree["set"] = {"train": {"lr_final": 0.5}, "stage.0.rounds": 2, "data.columns": {"text": "utterance"}}
    lines = build_comparison("x", tree).settings
    assert lines == ("train.lr_final = 0.5", "stage.0.rounds = 2", 'data.columns.text = "utterance"')


PLAIN = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=9)
VALUES = st.recursive(
    PLAIN,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=4), part, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_every_value_stands_on_one_line_and_is_read_back_as_it_was(value: Any) -> None:
    line = one_line(value)
    assert "\n" not in line
    assert tomllib.loads(f"x = {line}")["x"] == value


def test_a_table_by_name_has_the_name_in_the_middle_of_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "known_keys", lambda _guards: ["stream.arrival.joins", "train.lr"])
    found: list[str] = []
    given = {"stream": {"arrival": {"site-03": {"joins": 2, "jions": 2}}}}
    assert setting_lines(given, "set", found) == ("stream.arrival.site-03.joins = 2",)
    assert found == ["set: stream.arrival.site-03.jions is not a setting; did you mean stream.arrival.joins?"]


def test_set_on_the_command_line_lies_over_the_files_and_is_checked_like_them(tree: dict[str, Any]) -> None:
    made = build_comparison("x", tree, ["train.steps=3", "model.path=other"])
    assert made.settings[-2:] == ("train.steps = 3", 'model.path = "other"')
    assert faults(tree, "train.stepps=3") == ["--set: train.stepps is not a setting; did you mean train.steps?"]
    assert faults(tree, "nonsense") == ["--set 'nonsense' is not of the form key=value"]


def test_skipped_combinations_are_no_cells(tree: dict[str, Any]) -> None:
    made = build_comparison("x", {**tree, "skip": [{"rule": "ffa", "alpha": ["0.5"]}]})
    assert [cell.slug for cell in made.cells([7])] == ["ffa-0.1-seed7", "fedit-0.5-seed7", "fedit-0.1-seed7"]


def test_only_takes_the_labels_named_and_refuses_others(comparison: Comparison) -> None:
    only = read_only(comparison, ["rule=fedit", "alpha=0.1,0.5"])
    assert [cell.slug for cell in comparison.cells([1], only)] == ["fedit-0.5-seed1", "fedit-0.1-seed1"]
    with pytest.raises(ConfigError) as caught:
        read_only(comparison, ["rul=ffa", "rule=fedit,fedavg", "alpha"])
    said = "\n".join(caught.value.faults)
    assert "there is no axis 'rul'; did you mean rule?" in said
    assert "axis rule has no label 'fedavg'" in said
    assert "--only 'alpha' is not of the form" in said


def test_seeds_are_different_whole_numbers() -> None:
    assert read_seeds("") == ()
    assert read_seeds("3, 1") == (3, 1)
    for wrong in ("1,1", "one", "-1", "1.5", str(2**32)):
        with pytest.raises(ConfigError, match="--seeds"):
            read_seeds(wrong)


def test_a_comparison_is_written_as_a_file_that_says_the_same(tree: dict[str, Any], tmp_path: Path) -> None:
    tree |= {"about": 'two lines\n\nand a "quote"', "skip": [{"rule": "ffa", "alpha": ["0.5"]}], "continual": True}
    tree["axis"][1] |= {"repeat": True}
    tree["axis"][0] |= {"baseline": "fedit"}
    tree["set"] = {"stage": [{"name": "x", "rounds": 2}], "train.lr_final": 0.5}
    made = build_comparison("again", tree)
    path = tmp_path / "again.toml"
    path.write_text(to_toml(made), encoding="utf-8")
    assert read_comparison(path) == made


def test_a_file_that_is_missing_or_no_toml_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no comparison file"):
        read_comparison(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("title = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_comparison(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_comparison(tmp_path)
