"""``anchor`` at a site: pull the trained factors towards the Delta W of the last stage, where it mattered.

The formula: ``llmchain_fl/guards/anchor.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from llmchain_fl.core.adapter.product import modules, with_start
from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards.product_pull import pulled, pulled_dense
from llmchain_fl.core.guards.site_guard import Adds, Settings, SiteGuard
from llmchain_fl.core.ranges import Bound, Range
from llmchain_fl.core.tasks.base import Task

STAR, ROW, COL = "anchor", "anchor-row", "anchor-col"
HEAD = "head"


@dataclass(frozen=True)
class _Target:
    """Delta W* of one module and its importance, float64."""

    left: Tensor
    right: Tensor
    importance: tuple[Tensor, Tensor]


class AnchorSite(SiteGuard):
    """Pulls the trained factors after each step."""

    bounds: ClassVar[Mapping[str, Bound]] = {"strength": Range(0, 1e9)}
    adds: ClassVar[Adds] = "pull"

    def __init__(self, settings: Settings, payload: Arrays) -> None:
        self._strength = float(settings["strength"])
        self._payload = {name: value for name, value in payload.items() if name.startswith(f"{STAR}")}
        self._targets: dict[str, _Target] = {}

    def pull(self, task: Task, lr: float) -> None:
        """Proximal step of Omega with step size ``lr``."""
        if not self._payload or self._strength * lr == 0:
            return
        resident = task.resident
        with torch.no_grad():
            for module, target in self._targets_of(resident).items():
                for ending in ("lora_B", "lora_A", "lora_R"):
                    if f"{module}.{ending}" in resident.trained_names:
                        _move(resident, module, ending, target, self._strength * lr)
            self._pull_head(resident, self._strength * lr)

    def _targets_of(self, resident: Resident) -> dict[str, _Target]:
        """Made once a round."""
        if not self._targets:
            star = {n.removeprefix(f"{STAR}."): v for n, v in self._payload.items() if n.startswith(f"{STAR}.")}
            star = with_start(star, resident.shapes, resident.spec.adapter.seed)
            for module in modules(star):
                left, right = (_on(resident, star[f"{module}.{name}"]) for name in ("lora_B", "lora_A"))
                sizes = (left.shape[0], right.shape[1])
                self._targets[module] = _Target(left, right, self._importance(resident, module, sizes))
        return self._targets

    def _importance(self, resident: Resident, module: str, sizes: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(row, col) with F = row col^T: what came has one mean in both, so one of them is divided by it."""
        row, col = (self._payload.get(f"{kind}.{module}") for kind in (ROW, COL))
        if row is None or col is None:
            return (_on(resident, np.ones(sizes[0])), _on(resident, np.ones(sizes[1])))
        weights = _on(resident, col)
        return _on(resident, row), weights / weights.mean()

    def _pull_head(self, resident: Resident, strength: float) -> None:
        for name in ("head.weight", "head.bias"):
            target = self._payload.get(f"{STAR}.{name}")
            if target is None or name not in resident.trained_names:
                continue
            parameter = resident.parameters[name].data
            rows, cols = self._importance(resident, HEAD, (len(target), target.shape[-1]))
            weight = rows[:, None] * cols if target.ndim == 2 else rows  # the input of a bias is 1
            parameter.copy_(pulled_dense(parameter, _on(resident, target), weight, strength))


def _move(resident: Resident, module: str, ending: str, target: _Target, strength: float) -> None:
    """One factor of one module, in place."""
    values = {e: resident.parameters.get(f"{module}.{e}") for e in ("lora_A", "lora_B", "lora_R")}
    a, b, core = (None if v is None else v.data.double() for v in values.values())
    scale = resident.spec.adapter.scale
    left = None if ending == "lora_B" or b is None else scale * (b if core is None or ending == "lora_R" else b @ core)
    right = None if ending == "lora_A" or a is None else (a if core is None or ending == "lora_R" else core @ a)
    if left is None and right is not None:
        right = scale * right
    parameter = resident.parameters[f"{module}.{ending}"].data
    rest = target.left.neg(), target.right
    if module in resident.fold.pairs:
        fold_a, fold_b = resident.fold.pairs[module]
        rest = torch.cat([fold_b.double(), rest[0]], dim=1), torch.cat([fold_a.double(), rest[1]])
    parameter.copy_(pulled(parameter, left, right, rest, target.importance, strength))


def _on(resident: Resident, values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64)).to(resident.theta.device)
