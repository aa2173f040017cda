"""A run of more sites than anybody would read of one by one: one row a round for all, stopped and gone on with."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.metrics_file import MOST_SITES
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from simulations.run import simulate

SITES = MOST_SITES + 5


class StopsAfter(Silent):
    """Ctrl-C while a round is played."""

    def __init__(self, answers: int) -> None:
        self._left = answers

    def site_finished(self, site: str, tokens: int, seconds: float) -> None:
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


def a_step(model: torch.nn.Module, records: Any, spec: Any) -> None:
    """A made-up trainer that costs nothing: what is told here is told of the rounds around it."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1e-4 * sum(map(len, (record["input_ids"] for record in records))))


def play(config: RunConfig, folder: Path, watching: Silent | None = None) -> RunDir:
    run = RunDir.open(folder) if folder.exists() else RunDir.create(folder, to_toml(config))
    simulate(config, run, watching or Silent(), own_trainer=a_step)
    return run


def adapter(run: RunDir) -> dict[str, np.ndarray]:
    return dict(load_file(run.adapter / "adapter_model.safetensors"))


@pytest.fixture(scope="module")
def many(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    file = tmp_path_factory.mktemp("many") / "train.jsonl"
    lines = tiny.train.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[i % len(lines)] for i in range(SITES)))
    config: RunConfig = tiny.config(
        data={"train": str(file), "test": ""},
        sites={"count": SITES, "held_out": 0.0, "partition": "iid"},
        adapter={"last_layers": 1, "targets": ["query"]},
        train={"steps": 1, "sampling_rate": 1.0},
        continual={"guards": []},
        aggregation={"rule": "fedit"},
        stage=[{"name": "all", "rounds": 2}],
    )
    return config


def test_a_run_of_very_many_sites_that_was_stopped_goes_on_to_the_same_bits_and_stays_readable(
    many: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.strategy.product_error", lambda *_: pytest.fail("the factors of all sites were held"))
    whole = play(many, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        play(many, tmp_path / "stopped", StopsAfter(SITES + SITES // 2))
    rows = Counter((row["round"], row["metric"]) for row in RunDir.open(tmp_path / "stopped").rows())
    assert max(number for number, _ in rows) == 1
    stopped = play(many, tmp_path / "stopped")
    here, there = adapter(whole), adapter(stopped)
    assert here.keys() == there.keys()
    assert all(np.array_equal(value, there[name]) for name, value in here.items())
    assert any(value.any() for name, value in here.items() if "lora_B" in name)
    for run in (whole, stopped):
        rows = Counter((row["round"], row["metric"]) for row in run.rows())
        assert rows[1, "bytes_up"] == rows[2, "bytes_up"] == rows[2, "update_norm"] == 1
        assert len(set(re.findall(r"site-\d+", (run.path / "report.html").read_text()))) <= 100
