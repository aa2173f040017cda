"""Shared by the guards' tests: what a server half is shown, and an adapter as a dense matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from llmchain_fl.guards.protocol import View


def _view(task: Any = None, **changes: Any) -> View:
    told = {
        "round": 3,
        "stage": 0,
        "stages": ("first", "second", "third"),
        "last": True,
        "scale": 2.0,
        "seed": 7,
        "before": {},
        "probe": lambda arrays: {},
        "task": task,
    }
    return View(**{**told, **changes})


def _dense(arrays: Any, module: str, scale: float = 2.0) -> np.ndarray:
    """Delta W, formed: float64 [d_out, d_in]."""
    get = {name: np.asarray(arrays[f"{module}.{name}"], np.float64) for name in ("lora_A", "lora_B")}
    core = np.asarray(arrays.get(f"{module}.lora_R", np.eye(get["lora_A"].shape[0])), np.float64)
    whole = scale * get["lora_B"] @ core @ get["lora_A"]
    if f"{module}.fold_A" in arrays:
        whole = whole + arrays[f"{module}.fold_B"].astype(np.float64) @ arrays[f"{module}.fold_A"].astype(np.float64)
    return whole


@pytest.fixture(scope="session")
def view() -> Callable[..., View]:
    """(task, changes) -> a view of the last round of the first of three stages."""
    return _view


@pytest.fixture(scope="session")
def dense() -> Callable[..., np.ndarray]:
    """(arrays, module, scale) -> Delta W."""
    return _dense
