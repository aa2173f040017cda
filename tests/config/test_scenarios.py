from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from llmchain_fl.config.read import read_config
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.scenario import find_scenario, shipped, titles


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_scenario_can_be_read_and_opens_with_its_command(name: str) -> None:
    config = read_config(shipped()[name])
    assert config.title == titles()[name] != ""
    assert shipped()[name].read_text(encoding="utf-8").splitlines()[0].split()[:4] == [
        "#",
        "llmchain-fl",
        "simulate",
        name,
    ]


def test_the_demo_is_shipped() -> None:
    assert "demo" in shipped()


@pytest.mark.parametrize("name", shipped())
def test_a_scenario_named_in_another_exists(name: str) -> None:
    words = shipped()[name].read_text(encoding="utf-8").split()
    named = {after for before, after in pairwise(words) if before == "simulate"}
    assert named <= set(shipped())


def test_a_scenario_is_found_by_name_or_by_path() -> None:
    assert find_scenario("demo") == shipped()["demo"]
    assert find_scenario("my/own.toml") == Path("my/own.toml")


def test_an_unknown_scenario_is_told_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"did you mean demo\?"):
        find_scenario("demmo")
