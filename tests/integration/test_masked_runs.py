"""Whole runs in which each stage trains over its own labels, with a trained head and whatever stands beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.config.write import to_toml
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from simulations.run import simulate

pytestmark = pytest.mark.usefixtures("without_pages")

HEAD = ("head.weight", "head.bias")
PRIVATE = {"enabled": True, "noise_multiplier": 1.5, "stages": "disjoint"}


def config(tiny: Any, *guards: str, labels: tuple[object, ...] = ("0:2", "2:4"), **sections: Any) -> Any:
    told = {
        "task": {"head": "trained"},
        "continual": {"guards": ["mask", *guards], "public": str(tiny.test)},
        "data": {"dev": str(tiny.train)},
        "sites": {"held_out": 0.0, "count": 2},
        "train": {"steps": 2},
        "stage": [{"name": "ab"[i], "rounds": 1, "labels": names} for i, names in enumerate(labels)],
    }
    return tiny.config(**{**told, **sections})


def play(settings: Any, folder: Path) -> tuple[RunDir, list[dict[str, np.ndarray]]]:
    """The run, and the adapter at each stage's end."""
    run = RunDir.create(folder, to_toml(settings))
    simulate(settings, run, Silent())
    return run, [read_adapter(stage / "adapter")[1] for stage in sorted(run.path.glob("stages/*"))]


def moved(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[int]:
    """The labels whose rows differ."""
    apart = [(one[name] != other[name]).reshape(len(one[name]), -1).any(axis=1) for name in HEAD]
    return np.flatnonzero(np.logical_or(*apart)).tolist()


@pytest.mark.parametrize("privacy", [{}, PRIVATE], ids=["plain", "private"])
def test_no_stage_moves_the_rows_of_another_stage_not_even_by_noise(tiny: Any, tmp_path: Path, privacy: Any) -> None:
    run, (first, second) = play(config(tiny, privacy=privacy), tmp_path / "run")
    assert moved(first, second) == [2, 3]
    back = [row["value"] for row in run.rows() if row["metric"] == "guard_mask_put_back"]
    assert all(value > 0 for value in back) == bool(privacy)
    assert len(back) == 2


def test_sites_at_different_stages_move_the_rows_of_both(tiny: Any, tmp_path: Path) -> None:
    apart = {"arrival": {"site-01": {"order": ["b", "a"]}}}
    _, (first, second) = play(config(tiny, stream=apart, privacy=PRIVATE), tmp_path / "run")
    assert moved(first, second) == [0, 1, 2, 3]


def test_stages_may_share_labels_and_have_records_of_each_other(tiny: Any, tmp_path: Path) -> None:
    _, (first, second) = play(config(tiny, labels=("0:3", "1:4")), tmp_path / "shared")
    assert moved(first, second) == [1, 2, 3]
    _, (first, second) = play(config(tiny, stream={"kind": "blurry", "blur": 0.4}), tmp_path / "blurry")
    assert moved(first, second) == [2, 3]


def test_a_joint_run_over_all_labels_is_the_one_without_the_mask(tiny: Any, tmp_path: Path) -> None:
    joint = config(tiny, stream={"play": "joint"})
    bare = config(tiny, stream={"play": "joint"}, continual={"guards": []})
    (_, masked), (_, plain) = play(joint, tmp_path / "masked")[1], play(bare, tmp_path / "plain")[1]
    assert masked.keys() == plain.keys()
    assert all(np.array_equal(masked[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    "guards",
    [("distill", "ema", "replay"), ("agem", "anchor", "gate"), ("slots", "route", "rehearsal")],
    ids=" ".join,
)
@pytest.mark.part(1)
def test_a_mask_goes_with_every_other_guard(tiny: Any, tmp_path: Path, guards: tuple[str, ...]) -> None:
    run, (first, second) = play(config(tiny, *guards, privacy=PRIVATE), tmp_path / "run")
    assert all(np.isfinite(value).all() for value in second.values())
    assert set(moved(first, second)) <= {2, 3} or "ema" in guards
    assert [row["value"] for row in run.rows() if row["metric"] == "guard_mask_put_back"]
