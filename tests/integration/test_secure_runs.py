"""Masked rounds through whole runs: the same adapter as without masks, and shared noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.app import make_app
from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.config.write import to_toml
from llmchain_fl.progress import Logged
from llmchain_fl.run_dir import RunDir
from server.app import run_all
from simulations.grid import InProcessGrid
from simulations.prepare import prepare_sites


def played(tiny: Any, folder: Path, **sections: Any) -> tuple[RunDir, dict[str, np.ndarray]]:
    """A run, and the arrays of its adapter."""
    config = tiny.config(**sections)
    run = RunDir.create(folder, to_toml(config))
    by_name = {site.name: site for site in prepare_sites(config, run.sites)}
    app = make_app(lambda context: by_name[str(context.node_config["site-name"])])
    run_all(config, run, InProcessGrid(app, by_name), Logged())
    return run, read_adapter(run.adapter)[1]


LOCKSTEP = {
    "train": {"method": "lockstep", "steps": 1, "sampling_rate": 0.6, "batch_size": 8.0, "lr": 0.02},
    "sites": {"count": 3, "held_out": 0.0},
    "task": {"head": "trained"},
    "continual": {"guards": []},
    "stage": [{"name": "only", "rounds": 4}],
}


def test_without_noise_the_masked_run_ends_where_the_plain_one_does_up_to_the_grid(tiny: Any, tmp_path: Path) -> None:
    linear = {**LOCKSTEP, "train": {**LOCKSTEP["train"], "optimizer": "sgd", "momentum": 0.0, "lr": 0.05}}
    plain = played(tiny, tmp_path / "plain", **linear)[1]
    masked = played(tiny, tmp_path / "masked", **linear, secure={"sum": True})[1]
    assert plain.keys() == masked.keys()
    assert any(np.abs(value).max() > 1e-3 for name, value in plain.items() if name.endswith("lora_B"))
    for name, value in plain.items():
        np.testing.assert_allclose(masked[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_shared_noise_keeps_every_site_within_the_budget(tiny: Any, tmp_path: Path) -> None:
    privacy = {"enabled": True, "epsilon": 3.0, "noise": "sum", "clip_norm": 1.0}
    run, _ = played(tiny, tmp_path / "run", **LOCKSTEP, secure={"sum": True}, privacy=privacy)
    found = [row["value"] for row in run.rows() if row["metric"] == "epsilon" and row["round"] == 4]
    assert len(found) == 3
    assert all(2.9 <= value <= 3.0 for value in found)


@pytest.mark.parametrize("rule", ["ffa", "fedit"])
def test_local_steps_may_be_masked_too(tiny: Any, tmp_path: Path, rule: str) -> None:
    sections = {"aggregation": {"rule": rule}, "continual": {"guards": []}}
    plain = played(tiny, tmp_path / "plain", **sections)[1]
    masked = played(tiny, tmp_path / "masked", **sections, secure={"sum": True})[1]
    for name, value in plain.items():
        np.testing.assert_allclose(masked[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
