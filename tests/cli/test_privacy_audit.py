"""``llmchain-fl privacy audit`` with the settings of a run: whose are played, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmchain_fl.cli import privacy_audit
from llmchain_fl.cli.privacy_audit import SMALL, Asked, own_settings, show_audit
from llmchain_fl.config.read import build
from llmchain_fl.core.errors import ConfigError, LlmchainError
from llmchain_fl.privacy.audit.finding import Finding
from llmchain_fl.run_dir import RunDir

GOOD = Finding("noise size", True, 1.001, (0.99, 1.01), "As promised.")
PRIVATE = "[privacy]\nenabled = true\nnoise_multiplier = 1.0\n"
TEXT = '[task]\nlabels = ["a", "b"]\n[data]\ntrain = "x"\n[[stage]]\nname = "cards"\n'


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the gate was asked for, each time."""
    seen: list[Any] = []
    real = privacy_audit.app_module

    def run_gate(effort: str, **told: Any) -> list[Finding]:
        seen.append((effort, told))
        return [GOOD]

    def module(name: str) -> Any:
        return SimpleNamespace(run_gate=run_gate) if name == "simulations.audit.gate" else real(name)

    monkeypatch.setattr(privacy_audit, "app_module", module)
    return seen


def scenario(folder: Path, text: str) -> str:
    file = folder / "own.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_without_a_scenario_the_gate_plays_settings_of_its_own(
    asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    show_audit(Asked("quick"), as_json=False)
    assert asked == [("quick", {})]
    printed = capsys.readouterr().out
    assert f"effort quick, with {SMALL}." in printed
    assert "1 of 1 checks passed. They took 0 s." in printed


def test_the_settings_of_a_scenario_are_those_that_its_sites_are_asked_to_train_with(
    asked: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = scenario(tmp_path, TEXT + PRIVATE)
    changes = ("train.optimizer=sgd", "train.steps=31", "compression.up=int8", "continual.guards=['distill']")
    show_audit(Asked("full", name, changes), as_json=True)
    ((effort, told),) = asked
    own, plain = told["settings"]
    work = own.work
    assert effort == "full"
    assert (work.train.optimizer, work.train.steps, work.codec.name) == ("sgd", 31, "int8")
    assert [guard.name for guard in work.guards] == ["distill"]
    assert work.plan.noise_multiplier == 1.0
    assert plain.work.codec.name == "none"
    assert json.loads(capsys.readouterr().out)["settings"] == name


def test_a_rule_that_keeps_a_factor_at_the_sites_is_played_so() -> None:
    tree = {"task": {"labels": ["a", "b"]}, "data": {"train": "x"}, "sites": {"held_out": 0.2}}
    config = build({**tree, "aggregation": {"rule": "fedsa"}, "privacy": {"enabled": True, "noise_multiplier": 1.0}})
    (own,) = own_settings(config)
    assert own.keeps == ("lora_B",)
    assert set(own.trains) == {"lora_A", "lora_B"}


def test_a_run_is_played_with_its_own_settings_where_its_sites_add_noise(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privacy_audit.membership, "attack", lambda path: None)
    site = PRIVATE + 'unit = "site"\n[sites]\nminimum = 2\n'
    for name, text, played in (("private", PRIVATE, True), ("open", "", False), ("site", site, False)):
        made = RunDir.create(tmp_path / name, TEXT + text)
        show_audit(Asked("quick", run=made.path), as_json=False)
        assert ("settings" in asked.pop()[1]) == played


def test_a_scenario_without_privacy_has_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="adds no noise"):
        show_audit(Asked("quick", scenario(tmp_path, TEXT)), as_json=False)


@pytest.mark.parametrize(
    ("told", "word"),
    [
        (Asked("quick", changes=("train.steps=3",)), "name one"),
        (Asked("quick", "demo", run=Path("runs/x")), "one of them"),
        (Asked("quick", "no-such-scenario"), "no-such-scenario"),
        (Asked("thorough"), "quick, full"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(
    told: Asked, word: str, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privacy_audit.membership, "attack", lambda path: None)
    with pytest.raises(LlmchainError, match=word):
        show_audit(told, as_json=False)
    assert asked == []
