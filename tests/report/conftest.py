"""A run that never happened, with rows of the shape that a real one writes: 6 sites, 3 stages of 3 rounds."""

from __future__ import annotations

import random
from typing import Any

import pytest

TASKS = ("cards", "travel", "utility")
SITES = tuple(f"site-{k:02d}" for k in range(6))
CONFIG = """\
title = "Bank assistant: three departments, one after the other"
seed = 1

[privacy]
enabled = true
epsilon = 8.0

[[stage]]
name = "cards"
rounds = 3
"""


def _row(round: int, scope: str, task: str, metric: str, value: float, **more: Any) -> dict[str, Any]:
    stage = more.pop("stage", (round - 1) // 3)
    site, n = more.pop("site", None), more.pop("n", None)
    row = {"round": round, "stage": stage, "scope": scope, "site": site, "task": task, "metric": metric}
    return row | {"value": value, "n": n} | more


def _score(task: int, round: int, metric: str) -> float:
    """Rises while its stage is on and falls slowly afterwards."""
    begun, ended = min(max(round - 3 * task, 0), 3), max(round - 3 * (task + 1), 0)
    accuracy = 0.62 + 0.09 * task / 2 + (0.0, 0.13, 0.19, 0.23)[begun] - 0.013 * ended
    return accuracy if metric == "accuracy" else 4.0 - 2.0 * accuracy


def make_rows(
    metric: str = "accuracy", tasks: tuple[str, ...] = TASKS, rounds: int = 9, private: bool = True
) -> list[dict[str, Any]]:
    """The rows of a whole run; fewer ``rounds`` give a run that was stopped there."""
    rng = random.Random(7)
    rows = [_row(0, "global", t, metric, _score(j, 0, metric), stage=-1, n=150) for j, t in enumerate(tasks)]
    for round in range(1, rounds + 1):
        stage = (round - 1) // 3
        rows += [_row(round, "global", t, metric, _score(j, round, metric), n=150) for j, t in enumerate(tasks)]
        for k, site in enumerate(SITES):
            value = _score(stage, round, metric) * (1 - 0.02 * k if metric == "accuracy" else 1 + 0.02 * k)
            rows += [
                _row(round, "site", "all", metric, value, site=site, n=40),
                _row(round, "site", "all", "bytes_up", 147_968.0, site=site),
                _row(round, "site", "all", "bytes_down", 295_936.0, site=site),
                _row(round, "site", "all", "update_norm", 0.8 + 0.3 * rng.random(), site=site),
            ]
            if private:
                guarantee = {"delta": 1e-5, "unit": "record", "accountant": "pld"}
                spent = (1.1 + 0.08 * k) * round**0.6
                rows.append(_row(round, "site", "all", "epsilon", spent, site=site, **guarantee))
        rows += [_row(round, "run", "all", "seconds", 4.2), _row(round, "run", "all", "tokens_per_second", 21_500.0)]
        if round % 3 == 0:
            rows += [
                _row(round, "global", t, "r_matrix", _score(j, round, metric), n=150)
                for j, t in enumerate(tasks[: stage + 1])
            ]
    if rounds >= 5 and len(tasks) > 1:
        rows.append(_row(5, "site", "all", "refused", 1.0, site="site-04", reason="norm 41.2 above the bound 10"))
    return rows


def make_privacy(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """``privacy.json`` as it would stand beside ``rows``."""
    last = {r["site"]: r for r in rows if r["metric"] == "epsilon"}
    sites = {
        site: {"epsilon": r["value"], "epsilon_rdp": 1.13 * r["value"], "rounds": r["round"], "steps": 4 * r["round"]}
        for site, r in last.items()
    }
    plan = {"unit": "record", "delta": 1e-5, "accountant": "pld", "target_epsilon": 8.0, "noise_multiplier": 1.05}
    steps = {"clip_norm": 1.0, "sampling_rate": 0.05, "steps_per_round": 4}
    return plan | steps | {"sites": sites, "private": bool(sites)}


@pytest.fixture(name="make_rows", scope="session")
def _make_rows() -> Any:
    return make_rows


@pytest.fixture(name="make_privacy", scope="session")
def _make_privacy() -> Any:
    return make_privacy


@pytest.fixture(scope="session")
def config_toml() -> str:
    return CONFIG


def cell(stage: int, task: str, value: float, scope: str = "global", metric: str = "r_matrix", **more: Any) -> Any:
    """One row of a run of one round a stage."""
    base = {"round": stage + 1, "stage": stage, "scope": scope, "site": None, "task": task, "metric": metric}
    return base | {"value": value, "n": None} | more


def stream(*lines: list[float], metric: str = "accuracy", n: int | None = None, **more: Any) -> list[dict[str, Any]]:
    """Rows of a run of one round a stage; line 0 is before training, line i R after stage i."""
    names = "abcdefgh"[: len(lines[0])]
    rows = []
    for i, line in enumerate(lines):
        rows += [cell(i - 1, name, value, metric=metric, n=n, **more) for name, value in zip(names, line, strict=True)]
        if i:
            rows += [cell(i - 1, name, value) for name, value in zip(names, line, strict=True)]
    return rows


@pytest.fixture(name="cell", scope="session")
def _cell() -> Any:
    return cell


@pytest.fixture(name="stream", scope="session")
def _stream() -> Any:
    return stream
