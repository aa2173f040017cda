"""Whole runs whose updates travel compressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.planning.budget import budget
from llmchain_fl.planning.work import codec_from
from llmchain_fl.progress import RoundReport, Silent
from llmchain_fl.run_dir import RunDir
from simulations.run import simulate

pytestmark = pytest.mark.usefixtures("without_pages")

MEMORY = {"up": "top-k", "share": 0.1, "feedback": True}
STREAM = [{"name": "first", "rounds": 2}, {"name": "second", "rounds": 2}]


class StopAfter(Silent):
    """Pulls the plug after a round."""

    def __init__(self, number: int) -> None:
        self._number = number

    def round_finished(self, report: RoundReport) -> None:
        if report.round == self._number:
            raise KeyboardInterrupt


def config_of(tiny: Any, compression: dict[str, Any], **sections: Any) -> RunConfig:
    told = {"sites": {"held_out": 0.0}, "stage": STREAM, **sections}
    return tiny.config(compression=compression, **told)  # type: ignore[no-any-return]


def play(config: RunConfig, path: Path) -> RunDir:
    run = RunDir.create(path, to_toml(config))
    simulate(config, run, Silent())
    return run


def adapter_of(run: RunDir) -> dict[str, Any]:
    return load_file(run.adapter / "adapter_model.safetensors")


def same(first: RunDir, second: RunDir) -> bool:
    ours, theirs = adapter_of(first), adapter_of(second)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("compression", [{"up": "bf16"}, {"up": "int4", "feedback": True}, MEMORY])
def test_every_codec_plays_a_run_in_the_bytes_it_promised(
    tiny: Any, tmp_path: Path, compression: dict[str, Any]
) -> None:
    config = config_of(tiny, compression)
    run = play(config, tmp_path / "run")
    sent = {name: value.shape for name, value in adapter_of(run).items() if "lora_B" in name}
    rows = run.rows()
    assert {row["value"] for row in rows if row["metric"] == "bytes_up"} == {budget(sent, codec_from(config))}
    assert len([row for row in rows if row["metric"] == "update_norm"]) == 12
    assert not [row for row in rows if row["metric"] == "refused"]
    assert any(value.any() for name, value in adapter_of(run).items() if "lora_B" in name)


@pytest.mark.thorough
def test_int4_ends_near_float32_and_a_memory_changes_what_is_sent(tiny: Any, tmp_path: Path) -> None:
    runs = {
        name: adapter_of(play(config_of(tiny, told), tmp_path / name))
        for name, told in {
            "plain": {},
            "int4": {"up": "int4"},
            "top": {**MEMORY, "feedback": False},
            "memory": MEMORY,
        }.items()
    }
    plain, int4, top, memory = ({k: v for k, v in run.items() if "lora_B" in k} for run in runs.values())
    moved = sum(float(np.square(value).sum()) for value in plain.values())
    assert 0 < sum(float(np.square(int4[k] - v).sum()) for k, v in plain.items()) < 0.1 * moved
    assert any(not np.array_equal(top[k], memory[k]) for k in top)


def stopped(config: RunConfig, path: Path, after: int) -> RunDir:
    run = RunDir.create(path, to_toml(config))
    with pytest.raises(KeyboardInterrupt):
        simulate(config, run, StopAfter(after))
    return run


def lose_last_round(run: RunDir) -> None:
    """The sites have been through it; the server has not."""
    sorted(run.state.glob("round-*"))[-1].unlink()


def test_a_stopped_run_with_a_memory_resumes_to_the_same_result_also_where_the_server_lost_a_round(
    tiny: Any, tmp_path: Path
) -> None:
    config = config_of(tiny, MEMORY)
    whole, run = play(config, tmp_path / "whole"), stopped(config, tmp_path / "stopped", 2)
    simulate(config, run, Silent())
    assert same(run, whole)
    again = stopped(config, tmp_path / "lost", 3)
    lose_last_round(again)
    simulate(config, again, Silent())
    assert same(again, whole)


@pytest.mark.thorough
def test_a_private_round_that_is_asked_again_is_sent_again_and_leaves_the_memory_alone(
    tiny: Any, tmp_path: Path
) -> None:
    config = config_of(tiny, MEMORY, privacy={"enabled": True, "noise_multiplier": 1.0, "unit": "record"})
    run = stopped(config, tmp_path / "private", 2)
    arrays = load_file(sorted(run.state.glob("round-*"))[-1])
    memories = {path: path.read_bytes() for path in run.sites.rglob(".memory/*.safetensors")}
    lose_last_round(run)
    with pytest.raises(KeyboardInterrupt):
        simulate(config, run, StopAfter(2))
    assert {path: path.read_bytes() for path in run.sites.rglob(".memory/*.safetensors")} == memories
    assert len(memories) == 3
    resent = load_file(sorted(run.state.glob("round-*"))[-1])
    assert all(np.array_equal(resent[name], value) for name, value in arrays.items())
    simulate(config, run, Silent())
    assert {path: path.read_bytes() for path in memories} != memories


@pytest.mark.parametrize(
    ("compression", "sections", "words"),
    [
        ({"up": "top-k"}, {"aggregation": {"rule": "fedsvd"}, "continual": {"guards": []}}, "turns its factors"),
        (
            {**MEMORY},
            {"privacy": {"enabled": True, "unit": "site", "noise_multiplier": 1.0}, "sites": {"minimum": 3}},
            "no noise has covered",
        ),
        ({"link_kbit": 1.0, "max_seconds": 2.0}, {}, "compression.max_seconds = 2"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_round(
    tiny: Any, tmp_path: Path, compression: dict[str, Any], sections: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        play(config_of(tiny, compression, **sections), tmp_path / "run")
    assert not list((tmp_path / "run").glob("state/*"))
