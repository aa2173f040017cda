"""``olora`` at a site: turns A away from the rows of earlier stages.

The formula: ``llmchain_fl/guards/olora.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards.site_guard import Adds, Settings, SiteGuard
from llmchain_fl.core.ranges import Bound, Range
from llmchain_fl.core.tasks.base import Task

OLD = "olora-rows"
Form = Literal["squared", "l1"]


class OloraSite(SiteGuard):
    """Turns A away from the old rows, where A is trained."""

    bounds: ClassVar[Mapping[str, Bound]] = {"strength": Range(0, 1e9), "form": get_args(Form)}
    adds: ClassVar[Adds] = "pull"

    def __init__(self, settings: Settings, payload: Arrays) -> None:
        self._strength, self._form = float(settings["strength"]), str(settings["form"])
        prefix = f"{OLD}."
        self._rows = {name.removeprefix(prefix): v for name, v in payload.items() if name.startswith(prefix)}
        self._turned: dict[str, tuple[Tensor, Tensor]] = {}

    def penalty(self, task: Task) -> Tensor | None:
        """``l1``: strength x sum |A A_i^T| over all adapted layers."""
        if self._form != "l1" or self._strength == 0:
            return None
        pairs = [(task.resident.parameters[name], self._rows[module]) for name, module in self._trained(task)]
        parts = [(a @ torch.from_numpy(rows).to(a.device).T).abs().sum() for a, rows in pairs]
        return self._strength * torch.stack(parts).sum() if parts else None

    def pull(self, task: Task, lr: float) -> None:
        """``squared``: the proximal step."""
        if self._form != "squared" or self._strength * lr == 0:
            return
        for name, module in self._trained(task):
            a = task.resident.parameters[name].data
            values, vectors = self._directions(module, a)
            share = values / (1.0 / (self._strength * lr) + values)
            a.sub_(((a.double() @ vectors.T) * share @ vectors).to(a.dtype))

    def _trained(self, task: Task) -> list[tuple[str, str]]:
        return [
            (f"{module}.lora_A", module)
            for module in sorted(self._rows)
            if f"{module}.lora_A" in task.resident.trained_names
        ]

    def _directions(self, module: str, like: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues and -vectors (as rows) of S, without its null space."""
        if module not in self._turned:
            rows = torch.from_numpy(self._rows[module]).double().to(like.device)
            _, values, vt = torch.linalg.svd(rows, full_matrices=False)
            nonzero = values > 1e-6 * values.max()
            self._turned[module] = values[nonzero].square(), vt[nonzero]
        return self._turned[module]
