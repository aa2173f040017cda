"""Against dense steps; noise by drawing it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from llmchain_fl.continual.released_path import ReleasedPath

SHAPES = {"x.lora_A": (2, 6), "x.lora_B": (5, 2)}


def adapter(draw: np.random.Generator, size: float = 1.0) -> dict[str, Any]:
    return {name: (size * draw.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


def walk(draw: np.random.Generator, rounds: int, std: float, drift: Any = None) -> list[dict[str, Any]]:
    """Released adapters of consecutive rounds: what a round adds, and noise; A and B both move."""
    track = [adapter(draw)]
    for _ in range(rounds):
        clean = {n: v + (0.0 if drift is None else drift[n]) for n, v in track[-1].items()}
        track.append({n: (v + std * draw.normal(size=v.shape)).astype(np.float32) for n, v in clean.items()})
    return track


def path_of(track: list[dict[str, Any]], noise: float | None, scale: float = 2.0) -> Any:
    path = ReleasedPath()
    for before, after in pairwise(track):
        path.add(before, after, scale, noise)
    return path.finish(track[-1], scale)


def test_without_noise_it_is_the_mean_of_the_squared_dense_steps(dense: Any) -> None:
    track = walk(np.random.default_rng(1), 4, 1.0)
    steps = [dense(after, "x") - dense(before, "x") for before, after in pairwise(track)]
    rows, cols = path_of(track, 0.0)["x"]
    assert np.allclose(rows, np.mean([(step**2).sum(axis=1) for step in steps], axis=0))
    assert np.allclose(cols, np.mean([(step**2).sum(axis=0) for step in steps], axis=0))


def test_noise_of_unknown_size_leaves_the_products_of_different_rounds(dense: Any) -> None:
    drift = {name: np.full(shape, 0.5) for name, shape in SHAPES.items()}
    track = walk(np.random.default_rng(2), 4, 0.5, drift)
    steps = [dense(after, "x") - dense(before, "x") for before, after in pairwise(track)]
    pairs = sum(steps[i] * steps[j] for i in range(4) for j in range(4) if i != j) / 12
    rows, cols = path_of(track, None)["x"]
    assert np.allclose(rows, np.maximum(pairs.sum(axis=1), 0), atol=1e-4)
    assert np.allclose(cols, np.maximum(pairs.sum(axis=0), 0), atol=1e-4)
    assert rows.max() > 0


@pytest.mark.parametrize("noise", ["known", None])
def test_what_goes_one_way_is_found_under_noise_as_large_as_itself(dense: Any, noise: str | None) -> None:
    """One row of B moves on; over many runs the importance of the others stays near nothing."""
    std, found, plain = 0.05, [], []
    for seed in range(200):
        draw = np.random.default_rng(seed)
        drift = {"x.lora_A": 0.0, "x.lora_B": np.zeros((5, 2))}
        drift["x.lora_B"][3] = 0.1
        track = walk(draw, 6, std, drift)
        found.append(path_of(track, std if noise else None)["x"][0])
        plain.append(path_of(track, 0.0)["x"][0])
    mean, raw = np.mean(found, axis=0), np.mean(plain, axis=0)
    others = [0, 1, 2, 4]
    assert mean[3] > 8 * mean[others].max()
    assert raw[3] < 4 * raw[others].max()


def test_noise_alone_is_cut_at_zero() -> None:
    """Before the cut the mean is 0: about half of the entries are below."""
    zeros, all_rows = 0, 0
    for seed in range(100):
        for noise in (0.1, None):
            rows, cols = path_of(walk(np.random.default_rng(seed), 5, 0.1), noise)["x"]
            assert min(rows.min(), cols.min()) >= 0
            zeros, all_rows = zeros + int((rows == 0).sum()), all_rows + len(rows)
    assert 0.3 < zeros / all_rows < 0.8


def test_a_factor_that_did_not_move_has_no_noise(dense: Any) -> None:
    draw = np.random.default_rng(3)
    before = adapter(draw)
    after = before | {"x.lora_B": adapter(draw)["x.lora_B"]}
    rows, _ = path_of([before, after], 0.1)["x"]
    step = dense(after, "x") - dense(before, "x")
    energy = 4 * 0.1**2 * np.square(after["x.lora_A"].astype(np.float64)).sum()
    assert np.allclose(rows, np.maximum((step**2).sum(axis=1) - energy, 0))


def test_one_round_under_noise_of_unknown_size_tells_nothing() -> None:
    rows, cols = path_of(walk(np.random.default_rng(1), 1, 1.0), None)["x"]
    assert not np.concatenate([rows, cols]).any()


def test_no_round_tells_nothing_and_a_stage_starts_anew() -> None:
    assert ReleasedPath().finish(adapter(np.random.default_rng(1)), 2.0) == {}
    path, track = ReleasedPath(), walk(np.random.default_rng(1), 2, 1.0)
    path.add(track[0], track[1], 2.0, 0.0)
    path.finish(track[1], 2.0)
    path.add(track[1], track[2], 2.0, 0.0)
    assert np.allclose(path.finish(track[2], 2.0)["x"][0], path_of(track[1:], 0.0)["x"][0])


def test_a_head_counts_by_its_weight() -> None:
    before = adapter(np.random.default_rng(1)) | {"head.weight": np.zeros((2, 3), np.float32)}
    after = before | {"head.weight": np.array([[1, 2, 3], [0, 0, 4]], np.float32), "head.bias": np.ones(2, np.float32)}
    rows, cols = path_of([before, after], 0.5)["head"]
    assert np.allclose(rows, [14 - 0.75, 16 - 0.75])
    assert np.allclose(cols, [0.5, 3.5, 24.5])


@pytest.mark.parametrize("noise", [0.0, 0.1, None])
def test_a_stage_cut_in_the_middle_goes_on_from_its_state(noise: float | None) -> None:
    track = walk(np.random.default_rng(5), 4, 1.0)
    path = ReleasedPath()
    for number in range(4):
        again = ReleasedPath()
        again.load_state(path.state())
        path = again
        path.add(track[number], track[number + 1], 2.0, noise)
    whole = path_of(track, noise)["x"]
    assert all(np.array_equal(a, b) for a, b in zip(path.finish(track[-1], 2.0)["x"], whole, strict=True))
