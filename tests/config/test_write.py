from __future__ import annotations

import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.config.read import build, known_keys, parse, read_config
from llmchain_fl.config.schema import RunConfig, Section
from llmchain_fl.config.write import table_to_toml, to_toml
from llmchain_fl.guards import GUARDS

TEXTS = st.text(max_size=12) | st.sampled_from(
    ['"', "\\", "\n\t\r", "\x00\x1f\x7f", "größe 数 😀", "'''", "]", "a = 1 # b", "\u2028\x85"]
)
FLOATS = st.floats(min_value=1e-300, max_value=1.0)


def test_every_setting_with_its_default_survives_the_file(tmp_path: Path) -> None:
    config = build({"task": {"labels": ["a"]}, "data": {"train": "x"}})
    (tmp_path / "config.toml").write_text(to_toml(config), encoding="utf-8")
    assert read_config(tmp_path / "config.toml") == config


def test_every_setting_is_written_out() -> None:
    tree = tomllib.loads(to_toml(build({"task": {"labels": ["a"]}, "data": {"train": "x"}})))
    written = {key for key, value in tree.items() if not isinstance(value, dict | list)}
    written |= {f"{name}.{key}" for name, section in tree.items() if isinstance(section, dict) for key in section}
    written |= {f"stage.{key}" for key in tree["stage"][0]}
    assert written == {key if not key.startswith("stream.arrival.") else "stream.arrival" for key in known_keys(False)}


def changed(value: Any, annotation: Any) -> Any:
    """Another value than the default, of the same type and within its bounds."""
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)[-1]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.75 if value else 0.25
    if isinstance(value, dict):
        return {"text": "größe 😀", "a.b": 'c"d', "😀": "\x7f"}
    return "größe-😀" if value == "" else value


FITTING: dict[str, dict[str, dict[str, Any]]] = {
    "persons, stage by stage": {
        "privacy": {"unit": "person", "clip_quantile": 0.0, "noise": "site"},
        "train": {"method": "local", "average": 0.0, "sums": 0.0},
        "secure": {"sum": False},
        "data": {"one_record_per_person": False},
        "aggregation": {"weights": [1.5] * 3, "personal_head": False},
        "task": {"kind": "classification", "labels": {"a": 'c"d', "b": "", "ü": "größe 😀"}},
        "stream": {
            "kind": "blurry",
            "blur": 0.25,
            "order": ["b", "a"],
            "play": "alone",
            "probes": {"general": "größe 😀", "b.c/d": 'c"d'},
            "boundaries": "announced",
            "arrival": {"site-0.b": {"joins": 2, "leaves": 3, "relabel": {"a": "b"}}},
        },
    },
    "whole sites": {
        "privacy": {"unit": "site", "stages": "shared", "noise": "site"},
        "train": {"method": "local", "average": 0.0, "sums": 0.0},
        "secure": {"sum": False},
        "data": {"made_up_persons": 0},
        "task": {"kind": "relation"},
        "aggregation": {"robust": "none"},
        "stream": {
            "play": "sequence",
            "kind": "",
            "blur": 0.0,
            "boundaries": "calendar",
            "order": [],
            "probes": {},
            "arrival": {"x": {"order": ["b", "a"], "offset_rounds": 1}},
        },
    },
}
FITTING["noise on the sum"] = {
    **FITTING["whole sites"],
    "privacy": {"unit": "person", "stages": "shared", "noise": "sum", "clip_quantile": 0.0},
    "data": {"one_record_per_person": False},
    "task": {"kind": "classification"},
    "train": {"method": "lockstep", "steps": 1, "proximal": 0.0, "sums": 0.0},
    "secure": {"sum": True, "survivors": 2},
    "sites": {"cohort": 0},
    "adapter": {"site_ranks": [], "site_alphas": []},
    "compression": {"up": "none"},
    "aggregation": {"rule": "ffa", "robust": "none", "optimizer": "none", "personal_head": False, "weights": []},
}
FITTING["no product"] = {
    **FITTING["noise on the sum"],
    "adapter": {
        "variant": "ia3", "rank": 8, "alpha": 16.0, "scaling": "standard", "start": "",
        "site_ranks": [], "site_alphas": [],
    },
    "aggregation": FITTING["noise on the sum"]["aggregation"] | {"rule": "fedit"},
}  # fmt: skip
FITTING["sums by label"] = {
    **FITTING["noise on the sum"],
    "train": {"method": "lockstep", "steps": 1, "proximal": 0.0},
    "aggregation": FITTING["noise on the sum"]["aggregation"] | {"rule": "head-only"},
    "continual": {"guards": ["mask"]},
}
"""Settings that contradict each other, in sets that do not; together they hold every setting."""


def other_settings(fitting: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A configuration in which each plain setting of each section has another value than its default."""
    tree: dict[str, Any] = {"task": {"labels": ["a", "b", "ü"]}, "data": {"train": "x"}, "stage": [{}]}
    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            inner = tree.setdefault(name, {})
            for key, setting in section.model_fields.items():
                inner.setdefault(key, changed(setting.default, setting.annotation))
    tree["model"]["path"] = "m"
    tree["sites"] |= {"excluded": ["x"], "hostile": 0.25, "count": 3, "cohort": 2, "minimum": 2}
    tree["adapter"] |= {"start": "s", "targets": ["query", "value"]}
    tree["adapter"] |= {"site_ranks": [1, 2, 3], "site_alphas": [1.5, 2.5, 3.5]}
    tree["aggregation"] |= {"rule": "fedit", "robust": "median", "hostile": 0}
    tree["continual"]["guards"] = ["rehearsal"]
    tree["stage"] = [
        {"name": "a", "labels": "0:2", "where": {"x y": 'z"'}, "train": "t", "test": "e", "rounds": 3},
        {"name": "b", "labels": ["b", "ü"]},
    ]
    for name, section in fitting.items():
        tree[name] |= section
    return {**tree, "title": "t\n", "seed": 9, "federation": "north 1"}


@pytest.mark.parametrize("name", FITTING)
def test_every_setting_with_another_value_survives_the_file(name: str, tmp_path: Path) -> None:
    """The file gives the changed values back."""
    config = build(other_settings(FITTING[name]))
    (tmp_path / "config.toml").write_text(to_toml(config), encoding="utf-8")
    assert read_config(tmp_path / "config.toml") == config


@pytest.mark.parametrize("guard", GUARDS)
def test_every_setting_of_a_guard_survives_the_file_and_has_its_default_written(guard: str, tmp_path: Path) -> None:
    fields = GUARDS[guard].settings.model_fields
    for told in ({}, {key: changed(field.default, field.annotation) for key, field in fields.items()}):
        config = parse({"task": {"labels": ["a"]}, "continual": {"guards": [guard], guard: told}})
        (tmp_path / "config.toml").write_text(to_toml(config), encoding="utf-8")
        written = tomllib.loads((tmp_path / "config.toml").read_text())
        assert parse(written) == config
        assert written["continual"][guard].keys() == fields.keys()


def test_no_setting_is_left_out_of_the_test_above() -> None:
    plain = build({"task": {"labels": ["a"]}, "data": {"train": "x"}}).model_dump()
    kept = set(known_keys(guards=False))
    for fitting in FITTING.values():
        for name, section in build(other_settings(fitting)).model_dump().items():
            if isinstance(section, dict):
                kept -= {f"{name}.{key}" for key, value in section.items() if value != plain[name].get(key)}
                told = [key for arrival in fitting.get("stream", {}).get("arrival", {}).values() for key in arrival]
                kept -= {f"stream.arrival.{key}" for key in told}
            elif section != plain[name]:
                kept -= {name} | {key for key in known_keys() if key.startswith(f"{name}.")}
    assert kept == {"data.train"}  # without it there is no configuration to compare with


@given(
    TEXTS,
    st.dictionaries(TEXTS, TEXTS, max_size=3),
    st.lists(TEXTS.filter(bool), min_size=1, max_size=3),
    FLOATS,
    st.integers(0, 2**32 - 1),
)
def test_any_text_and_number_survives_the_file(
    title: str, columns: dict[str, str], labels: list[str], lr: float, seed: int
) -> None:
    config = build(
        {
            "title": title,
            "seed": seed,
            "data": {"train": "x", "columns": columns},
            "task": {"labels": labels},
            "train": {"lr": lr, "lr_final": lr},
        }
    )
    assert build(tomllib.loads(to_toml(config))) == config


@given(st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1) | st.booleans() | TEXTS)
def test_a_number_keeps_its_type(value: float | bool | str) -> None:
    back = tomllib.loads(table_to_toml({"a": value}))["a"]
    assert back == value
    assert type(back) is type(value)
