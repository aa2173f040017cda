"""The table of guards: name -> parts. ``none`` is an empty list of guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from llmchain_fl.adapter.value import Arrays
from llmchain_fl.continual.guards.distill import DistillServer, DistillSite
from llmchain_fl.continual.guards.ema import EmaServer
from llmchain_fl.continual.guards.protocol import GuardParts, ServerGuard, SiteGuard
from llmchain_fl.tasks.base import Examples, Output, Task
from llmchain_fl.work import GuardSpec

GUARDS: Mapping[str, GuardParts] = MappingProxyType(
    {
        "distill": GuardParts("in-step", DistillServer, DistillSite),
        "ema": GuardParts("post-processing", EmaServer),
    }
)


class SiteGuards:
    """The site halves of all guards of a run, added up."""

    def __init__(self, specs: Sequence[GuardSpec], payload: Arrays) -> None:
        parts = [(GUARDS[spec.name].site, dict(spec.settings)) for spec in specs]
        self._guards: list[SiteGuard] = [make(settings, payload) for make, settings in parts if make is not None]

    def example_loss(self, task: Task, examples: Examples, index: Sequence[int], output: Output) -> Tensor:
        """Sum over guards, float32 [n]."""
        total = torch.zeros(len(index), device=output.logits.device)
        for guard in self._guards:
            total = total + guard.example_loss(task, examples, index, output)
        return total


class ServerGuards:
    """The server halves of all guards of a run, one after the other."""

    def __init__(self, specs: Sequence[GuardSpec]) -> None:
        self._guards: dict[str, ServerGuard] = {
            spec.name: GUARDS[spec.name].server(dict(spec.settings)) for spec in specs
        }

    def payload(self) -> Arrays:
        """What all guards send to the sites."""
        return {name: value for guard in self._guards.values() for name, value in guard.payload().items()}

    def after_aggregate(self, current: Arrays) -> Arrays:
        """The serving adapter: each guard acts on what the one before it made."""
        serving = current
        for guard in self._guards.values():
            serving = guard.after_aggregate(serving)
        return serving

    def on_stage_end(self, current: Arrays, serving: Arrays) -> Arrays:
        """What the next stage starts from."""
        for guard in self._guards.values():
            current = guard.on_stage_end(current, serving)
        return current

    def state(self) -> dict[str, Arrays]:
        """By guard."""
        return {name: guard.state() for name, guard in self._guards.items()}

    def load_state(self, state: Mapping[str, Arrays]) -> None:
        """By guard; a guard without saved state keeps its start."""
        for name, guard in self._guards.items():
            if name in state:
                guard.load_state(state[name])
