"""What a tracker is told: rounds and scores of the global adapter, nothing of a site; offline unless asked."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.run_dir import RunDir
from llmchain_fl.track.copy import copy_run, flat, released
from llmchain_fl.track.sinks import SINKS

ROWS = [
    {"round": 0, "metric": "accuracy", "value": 0.5, "task": "cards", "scope": "global"},
    {"round": 1, "metric": "accuracy", "value": 0.7, "task": "cards"},
    {"round": 1, "metric": "recall", "value": 0.6, "task": "cards", "label": "lost"},
    {"round": 1, "metric": "loss", "value": float("nan"), "task": "cards"},
    {"round": 1, "metric": "update_norm", "value": 3.0, "site": "north-clinic", "scope": "site"},
    {"round": 1, "metric": "epsilon", "value": 1.0, "site": "north-clinic"},
]


class Fake(ModuleType):
    """Writes down every call."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []
        self.__spec__ = SimpleNamespace(name=name)  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "a stand-in"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*values: Any, **named: Any) -> Fake:
            self.calls.append((name, (values, named)))
            return self

        return call


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    from llmchain_fl.config.read import build
    from llmchain_fl.config.write import to_toml

    config = build({"data": {"train": "/srv/clinic/secret.csv"}, "task": {"labels": ["lost", "other"]}})
    made = RunDir.create(tmp_path / "run", to_toml(config))
    made.append_rows(ROWS)
    return made


def test_only_what_a_hub_would_publish_is_copied() -> None:
    found = released(ROWS)
    assert found == {0: {"cards/accuracy": 0.5}, 1: {"cards/accuracy": 0.7, "cards/recall/lost": 0.6}}
    assert flat({"a": {"b": 1, "c": [1]}, "d": "x"}) == {"a.b": 1, "a.c": "[1]", "d": "x"}


@pytest.mark.parametrize("name", SINKS)
def test_each_sink_is_told_rounds_in_order_stays_on_this_machine_and_hears_of_no_site_and_no_path(
    name: str, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(name)
    monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setenv("TRACKIO_DIR", "")
    assert copy_run(run.path, name) == 2
    steps = [named["step"] for what, (_, named) in fake.calls if what.startswith("log") and "step" in named]
    assert steps == [0, 1]
    told = repr(fake.calls)
    assert "north-clinic" not in told
    assert "secret" not in told
    assert fake.calls[-1][0] in ("finish", "end_run")
    offline = {
        "wandb": lambda: "'mode': 'offline'" in told,
        "mlflow": lambda: "sqlite:///" in told,
        "trackio": lambda: "'space_id': None" in told,
    }
    assert offline[name]()


def test_a_sink_that_is_not_known_or_not_installed_is_said(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean wandb"):
        copy_run(run.path, "wandbb")
    monkeypatch.setattr("llmchain_fl.extras.lacking", lambda extra: ["wandb"])
    with pytest.raises(ConfigError, match="wandb not installed"):
        copy_run(run.path, "wandb")
