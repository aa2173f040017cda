from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.config.read import apply_settings, build, known_keys, parse_setting, read_config
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.tasks.kind import TASKS
from llmchain_fl.core.words import nearest

GOOD = {"task": {"labels": ["a", "b"]}, "data": {"train": "x.jsonl"}}


def merged(**sections: object) -> dict[str, object]:
    """``GOOD`` with sections laid over it."""
    tree: dict[str, object] = {name: dict(section) for name, section in GOOD.items()}
    for name, section in sections.items():
        under = tree.get(name, {})
        tree[name] = {**under, **section} if isinstance(under, dict) and isinstance(section, dict) else section
    return tree


def faults_of(tree: dict[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(tree)
    return caught.value.faults


def test_all_faults_are_told_at_once_with_the_nearest_key() -> None:
    faults = faults_of(
        merged(
            train={"lrr": 0.1, "steps": 0}, modle={"path": "x"}, sites={"count": -1}, stage=[{"name": "a", "round": 3}]
        )
    )
    said = "\n".join(faults)
    assert len(faults) == 5
    assert "train.lrr is not a setting; did you mean train.lr?" in said
    assert "train.steps = 0: must be greater than or equal to 1" in said
    assert "modle.path is not a setting; did you mean model.path?" in said
    assert "sites.count = -1: must be greater than or equal to 1" in said
    assert "stage.0.round is not a setting; did you mean stage.rounds?" in said


def test_faults_between_settings_are_told_together() -> None:
    faults = faults_of(merged(sites={"count": 2, "cohort": 5, "minimum": 9}, privacy={"enabled": True}))
    assert len(faults) == 3
    assert any("sites.cohort = 5" in fault and "sites.count = 2" in fault for fault in faults)


BAD: dict[str, tuple[dict[str, object], list[str]]] = {
    "a count below its bound": (merged(sites={"count": 0}), ["sites.count = 0", "greater than or equal to 1"]),
    "a share above its bound": (
        merged(train={"sampling_rate": 1.5}),
        ["train.sampling_rate = 1.5", "less than or equal to 1"],
    ),
    "a rate of zero": (merged(train={"lr": 0.0}), ["train.lr = 0.0", "greater than 0"]),
    "not a number": (merged(train={"lr": float("nan")}), ["train.lr = nan", "finite number"]),
    "an infinite number": (merged(privacy={"clip_norm": float("inf")}), ["privacy.clip_norm = inf"]),
    "a text for a number": (merged(train={"steps": "many"}), ["train.steps = 'many'", "integer"]),
    "a truth value for a number": (merged(train={"steps": True}), ["train.steps = True", "integer"]),
    "a broken number for a whole one": (merged(train={"steps": 1.5}), ["train.steps = 1.5", "integer"]),
    "an unknown choice": (
        merged(aggregation={"rule": "fedt"}),
        ["aggregation.rule = 'fedt'", "ffa, fedit, rolora", "did you mean fedit?"],
    ),
    "an unknown guard": (merged(continual={"guards": ["emma"]}), ["continual.guards.0 = 'emma'", "did you mean ema?"]),
    "a value for a section": (merged(train=3), ["train = 3", "must be a table"]),
    "a list for a section": (merged(model=["minilm"]), ["model = ['minilm']", "must be a table"]),
    "a name that is no file name": (merged(stage=[{"name": "../x"}]), ["stage.0.name = '../x'", "pattern"]),
    "no stage": (merged(stage=[]), ["stage = []", "at least 1 item"]),
    "two stages of one name": (merged(stage=[{"name": "a"}, {"name": "a"}]), ["same name"]),
    "a weight of zero": (
        merged(aggregation={"weights": [1.0, 0.0]}),
        ["aggregation.weights.1 = 0.0", "greater than 0"],
    ),
    "a delta of one": (merged(privacy={"delta": 1.0}), ["privacy.delta = 1.0", "less than 0.1"]),
    "privacy without budget": (merged(privacy={"enabled": True}), ["privacy.epsilon"]),
    "no label list": (merged(task={"labels": []}), ["task.labels is empty"]),
    "a teacher whose head is not shared": (
        merged(task={"head": "trained"}, aggregation={"personal_head": True}, continual={"guards": ["distill"]}),
        ['guard "distill" needs a teacher that all share', "personal_head"],
    ),
    "texts written by a model that writes none": (
        merged(continual={"guards": ["replay"], "replay": {"data": "generated"}}),
        ['guard "replay" trains on texts that the model writes', "task.kind"],
    ),
    "dev records for one of two stages": (
        merged(stage=[{"name": "a", "dev": "a.csv"}, {"name": "b"}]),
        ['stage "b" has no dev records', "data.dev"],
    ),
    "no records": (merged(data={"train": ""}), ['stage "all" has no training records']),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_gives_one_error_that_names_value_and_bound(name: str) -> None:
    tree, words = BAD[name]
    said = "\n".join(faults_of(tree))
    for word in words:
        assert word in said
    assert "must be Input" not in said
    assert "must be String" not in said
    assert "must be List" not in said


HEADLESS = {"causal-lm", "plain-text", "masked-lm", "dialogue", "summarisation", "translation", "label-words"}


@pytest.mark.parametrize("kind", TASKS)
def test_a_head_to_train_is_refused_where_the_task_has_none(kind: str) -> None:
    tree = merged(task={"kind": kind, "head": "trained"})
    if kind in HEADLESS:
        assert f'task.head = "trained": {kind} has no head' in "\n".join(faults_of(tree))
    else:
        assert build(tree).task.head == "trained"


def test_a_label_list_of_the_wrong_type_is_told_in_one_line() -> None:
    assert len(faults_of(merged(task={"labels": 5}))) == 1


def test_a_mapped_column_may_have_any_name() -> None:
    columns = {"street": "str", "text": "function-1"}
    assert build(merged(data={"columns": columns})).data.columns == columns
    assert "data.columns.street = 5" in faults_of(merged(data={"columns": {"street": 5}}))[0]


def test_settings_are_parsed_as_toml_and_otherwise_taken_as_text() -> None:
    parsed = {
        text: parse_setting(f"a.b={text}")[1]
        for text in ("1", "1.5", "true", '"x"', "[1, 2]", "0:26", "x.csv", "a = b", "{k = 'v'}", "")
    }
    assert parsed == {
        "1": 1,
        "1.5": 1.5,
        "true": True,
        '"x"': "x",
        "[1, 2]": [1, 2],
        "0:26": "0:26",
        "x.csv": "x.csv",
        "a = b": "a = b",
        "{k = 'v'}": {"k": "v"},
        "": "",
    }


def test_a_setting_of_several_lines_cannot_smuggle_in_a_second_one() -> None:
    assert parse_setting("a=1\nb = 2") == (["a"], "1\nb = 2")


@pytest.mark.parametrize("text", ["train.lr", "=3", " = 3", ""])
def test_a_setting_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="key=value"):
        parse_setting(text)


def test_stage_settings_reach_every_stage_or_one() -> None:
    tree = {"stage": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}
    apply_settings(tree, ["stage.rounds=2", "stage.1.rounds=7", "stage.2.where={x = 'y'}", "stage.where.z=q"])
    assert [stage["rounds"] for stage in tree["stage"]] == [2, 7, 2]
    assert tree["stage"][2]["where"] == {"x": "y", "z": "q"}
    assert tree["stage"][0]["where"] == {"z": "q"}


def test_a_stage_setting_without_stages_makes_one() -> None:
    assert apply_settings({}, ["stage.rounds=2"]) == {"stage": [{"rounds": 2}]}


def test_the_whole_stream_can_be_set_at_once() -> None:
    config = build(apply_settings(merged(stage=[{"name": "x"}]), ['stage=[{name = "p", rounds = 1}, {name = "q"}]']))
    assert [stage.name for stage in config.stage] == ["p", "q"]


@pytest.mark.parametrize(
    ("tree", "setting"),
    [
        ({"stage": [{"name": "a"}]}, "stage.1.rounds=2"),
        ({"stage": [{"name": "a"}]}, "stage.0=2"),
        ({"stage": [{"name": "a"}]}, "stage.name.x=2"),
        ({"stage": [{"name": "a"}]}, "stage.0.name.x=2"),
        ({"stage": [{"name": "a"}]}, "stage.².rounds=2"),
        ({"stage": {"name": "a"}}, "stage.rounds=2"),
        ({"stage": 3}, "stage.rounds=2"),
        ({"stage": ["a"]}, "stage.rounds=2"),
        ({"train": 3}, "train.lr=2"),
        ({"train": {"lr": 1}}, "train.lr.x=2"),
        ({}, "..=2"),
    ],
)
def test_a_setting_that_fits_nowhere_is_a_configuration_error(tree: dict[str, object], setting: str) -> None:
    with pytest.raises(ConfigError):
        build(apply_settings(merged(**tree), [setting]))


def test_a_missing_file_a_folder_and_a_file_that_is_no_toml_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[train\n")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "broken.toml", tmp_path / "binary.toml"):
        with pytest.raises(ConfigError, match=path.name):
            read_config(path)


def test_known_keys_name_every_plain_setting() -> None:
    keys = known_keys()
    assert {"title", "seed", "model.path", "stage.rounds", "task.labels", "continual.guards"} <= set(keys)
    assert not {"model", "stage", "train"} & set(keys)
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("key", known_keys())
def test_a_key_with_one_letter_too_many_finds_its_neighbour(key: str) -> None:
    assert nearest(f"{key}s", known_keys()) == f"; did you mean {key}?"


LEAVES = st.none() | st.integers() | st.text(max_size=3)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner), max_leaves=5
)


def fails_well(tree: dict[str, object], settings: list[str]) -> bool:
    """Nothing but a ConfigError with faults may come out."""
    try:
        build(apply_settings(tree, settings))
    except ConfigError as error:
        return bool(error.faults)
    return True


@given(st.text(max_size=30))
def test_any_text_as_a_setting_gives_a_value_or_a_configuration_error(text: str) -> None:
    assert fails_well(merged(), [text])


@given(st.dictionaries(st.sampled_from(["model", "train", "stage", "x"]), VALUES, max_size=3))
def test_any_tree_gives_a_configuration_or_a_configuration_error(tree: dict[str, object]) -> None:
    assert fails_well({**GOOD, **tree}, [])
