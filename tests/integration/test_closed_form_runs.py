"""Heads in closed form through whole runs: one round a stage, nothing forgotten, the same for every split and order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.app import make_app
from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.progress import Logged
from llmchain_fl.run_dir import RunDir
from server.app import run_all
from simulations.grid import InProcessGrid
from simulations.prepare import prepare_sites

pytestmark = pytest.mark.usefixtures("without_pages")

STAGES = [{"name": "first", "rounds": 1}, {"name": "second", "rounds": 1}]


def played(tiny: Any, folder: Path, **sections: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A run, and the arrays of its adapter."""
    base = {
        "train": {"method": "closed-form", "steps": 1},
        "continual": {"guards": []},
        "task": {"features": 20},
        "stage": STAGES,
    }
    return tiny.played(folder, **{**base, "sites": {"count": 3, "held_out": 0.0}, **sections})


def test_what_a_closed_form_needs_is_usual(tiny: Any) -> None:
    config = tiny.config(train={"method": "closed-form", "steps": 1}, continual={"guards": []})
    assert (config.task.head, config.aggregation.rule, config.secure.sum) == ("trained", "head-only", True)
    assert config.task.features > 0


def test_every_split_and_order_gives_the_head_of_all_records_in_one_place(tiny: Any, tmp_path: Path) -> None:
    joint = played(tiny, tmp_path / "joint", sites={"count": 1, "held_out": 0.0}, secure={"sum": False})[1]
    turned = {"stream": {"order": ["second", "first"]}}
    fine = {"secure": {"sum": True, "largest": 64.0}}  # a coarse grid shows where sixty records leave G near singular
    cases: dict[str, dict[str, Any]] = {
        "plain": {"secure": {"sum": False}},
        "turned": {**turned, "secure": {"sum": False}},
        "masked": fine,
        "four": {"sites": {"count": 4, "held_out": 0.0, "partition": "dirichlet"}, **fine},
    }
    for name, sections in cases.items():
        arrays = played(tiny, tmp_path / name, **sections)[1]
        np.testing.assert_allclose(arrays["head.weight"], joint["head.weight"], rtol=0.01, atol=2e-3, err_msg=name)
        np.testing.assert_allclose(arrays["head.bias"], joint["head.bias"], rtol=0.01, atol=2e-3, err_msg=name)


def test_a_run_that_was_stopped_goes_on_with_its_sums(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = played(tiny, tmp_path / "whole")[1]
    config = tiny.config(
        train={"method": "closed-form", "steps": 1},
        continual={"guards": []},
        task={"features": 20},
        stage=STAGES,
        sites={"count": 3, "held_out": 0.0},
    )
    run = RunDir.create(tmp_path / "run", to_toml(config))
    by_name = {site.name: site for site in prepare_sites(config, run.sites)}
    app = make_app(lambda context: by_name[str(context.node_config["site-name"])])

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("server.loop.Loop._close", stop)  # after round 1 is played, before it is kept
        with pytest.raises(KeyboardInterrupt):
            run_all(config, run, InProcessGrid(app, by_name), Logged())
    run_all(config, run, InProcessGrid(app, by_name), Logged())
    for name, value in read_adapter(run.adapter)[1].items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"privacy": {"enabled": True, "epsilon": 3.0}}, "no differential privacy"),
        ({"stage": [{"name": "only", "rounds": 2}]}, "one round a stage"),
        ({"continual": {"guards": ["ema"]}}, "forgets nothing"),
        ({"aggregation": {"rule": "ffa"}}, 'aggregation.rule = "head-only"'),
        ({"task": {"head": "label-text"}}, 'task.head = "trained"'),
    ],
)
def test_what_makes_no_sense_in_closed_form_is_refused_with_the_reason(
    tiny: Any, sections: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError) as error:
        tiny.config(
            **{"train": {"method": "closed-form", "steps": 1}, "continual": {"guards": []}, "stage": STAGES, **sections}
        )
    assert any(text in fault for fault in error.value.faults)
