"""The table of guards: name -> parts. ``none`` is an empty list of guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from llmchain_fl.adapter.value import Arrays
from llmchain_fl.continual.guards.agem import AgemServer, AgemSite
from llmchain_fl.continual.guards.anchor import AnchorServer, AnchorSite
from llmchain_fl.continual.guards.distill import DistillServer, DistillSite
from llmchain_fl.continual.guards.ema import EmaServer
from llmchain_fl.continual.guards.gate import GateServer
from llmchain_fl.continual.guards.merge import MergeServer
from llmchain_fl.continual.guards.olora import OloraServer, OloraSite
from llmchain_fl.continual.guards.protocol import GuardParts, ServerGuard, SiteGuard, View
from llmchain_fl.continual.guards.replay import ReplayServer, ReplaySite
from llmchain_fl.continual.guards.route import RouteServer
from llmchain_fl.continual.guards.slots import SlotsServer
from llmchain_fl.tasks.base import Examples, Output, Task
from llmchain_fl.work import GuardSpec

__all__ = ["GUARDS", "ServerGuards", "SiteGuards", "View"]

GUARDS: Mapping[str, GuardParts] = MappingProxyType(
    {
        "agem": GuardParts("post-processing", AgemServer, AgemSite),
        "anchor": GuardParts("post-processing", AnchorServer, AnchorSite),
        "distill": GuardParts("in-step", DistillServer, DistillSite),
        "ema": GuardParts("post-processing", EmaServer),
        "gate": GuardParts("post-processing", GateServer),
        "merge": GuardParts("post-processing", MergeServer),
        "olora": GuardParts("post-processing", OloraServer, OloraSite),
        "rehearsal": GuardParts("charged", funded=lambda plan: plan.rehearsal != "none"),
        "replay": GuardParts("post-processing", ReplayServer, ReplaySite),
        "route": GuardParts("post-processing", RouteServer),
        "slots": GuardParts("post-processing", SlotsServer),
    }
)


class SiteGuards:
    """The site halves of all guards of a run; see ``protocol.py`` for where each hook stands in a step."""

    def __init__(self, specs: Sequence[GuardSpec], payload: Arrays) -> None:
        parts = [(GUARDS[spec.name].site, dict(spec.settings)) for spec in specs]
        self._guards: list[SiteGuard] = [make(settings, payload) for make, settings in parts if make is not None]

    def example_loss(self, task: Task, examples: Examples, index: Sequence[int], output: Output) -> Tensor:
        """Sum over guards, float32 [n]."""
        total = torch.zeros(len(index), device=output.logits.device)
        for guard in self._guards:
            added = guard.example_loss(task, examples, index, output)
            total = total if added is None else total + added
        return total

    def penalty_gradient(self, task: Task) -> Tensor | None:
        """Gradient of the sum of all penalties, float32 [P]; None where no guard has one now."""
        total: Tensor | None = None
        for guard in self._guards:
            penalty = guard.penalty(task)
            if penalty is not None:
                total = penalty if total is None else total + penalty
        if total is None or not total.requires_grad:
            return None
        resident = task.resident
        trained = [resident.parameters[name] for name in resident.trained_names]
        found = torch.autograd.grad(total, trained, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(trained, found, strict=True)]
        return torch.cat([part.reshape(-1) for part in parts])

    def steer(self, task: Task, gradient: Tensor) -> Tensor:
        """Each guard turns what the one before it made."""
        for guard in self._guards:
            gradient = guard.steer(task, gradient)
        return gradient

    def pull(self, task: Task, lr: float) -> None:
        """One after the other, in place."""
        for guard in self._guards:
            guard.pull(task, lr)


class ServerGuards:
    """The server halves of all guards of a run, one after the other."""

    def __init__(self, specs: Sequence[GuardSpec]) -> None:
        self._specs = tuple(specs)
        self._guards: dict[str, ServerGuard] = {}
        self.start_anew()

    def start_anew(self) -> None:
        """As before the first round: nothing is remembered."""
        self._guards = {spec.name: GUARDS[spec.name].server(dict(spec.settings)) for spec in self._specs}

    def payload(self) -> Arrays:
        """What all guards send to the sites."""
        return {name: value for guard in self._guards.values() for name, value in guard.payload().items()}

    def step(self, view: View, current: Arrays) -> Arrays:
        """What the run goes on with."""
        for guard in self._guards.values():
            current = guard.step(view, current)
        return current

    def serve(self, view: View, current: Arrays) -> Arrays:
        """The serving adapter: each guard acts on what the one before it made."""
        serving = current
        for guard in self._guards.values():
            serving = guard.serve(view, serving)
        return serving

    def on_stage_end(self, view: View, current: Arrays, serving: Arrays) -> Arrays:
        """What the next stage starts from."""
        for guard in self._guards.values():
            current = guard.on_stage_end(view, current, serving)
        return current

    def notes(self) -> dict[str, float]:
        """``<guard>_<key>`` -> number, of this round."""
        return {f"{name}_{key}": value for name, guard in self._guards.items() for key, value in guard.notes().items()}

    def state(self) -> dict[str, Arrays]:
        """By guard."""
        return {name: guard.state() for name, guard in self._guards.items()}

    def load_state(self, state: Mapping[str, Arrays]) -> None:
        """By guard; a guard without saved state keeps its start."""
        for name, guard in self._guards.items():
            if name in state:
                guard.load_state(state[name])
