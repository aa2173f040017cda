"""The table of guards: name -> parts. ``none`` is an empty list of guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.guards.agem import AgemServer
from llmchain_fl.guards.anchor import AnchorServer
from llmchain_fl.guards.distill import DistillServer
from llmchain_fl.guards.ema import EmaServer
from llmchain_fl.guards.gate import GateServer
from llmchain_fl.guards.merge import MergeServer
from llmchain_fl.guards.olora import OloraServer
from llmchain_fl.guards.protocol import GuardParts, ServerGuard, View
from llmchain_fl.guards.replay import ReplayServer
from llmchain_fl.guards.route import RouteServer
from llmchain_fl.guards.slots import SlotsServer

__all__ = ["GUARDS", "ServerGuards", "View"]

GUARDS: Mapping[str, GuardParts] = MappingProxyType(
    {
        "agem": GuardParts("post-processing", AgemServer),
        "anchor": GuardParts("post-processing", AnchorServer),
        "distill": GuardParts("in-step", DistillServer),
        "ema": GuardParts("post-processing", EmaServer),
        "gate": GuardParts("post-processing", GateServer),
        "merge": GuardParts("post-processing", MergeServer),
        "olora": GuardParts("post-processing", OloraServer),
        "rehearsal": GuardParts("charged"),
        "replay": GuardParts("post-processing", ReplayServer),
        "route": GuardParts("post-processing", RouteServer),
        "slots": GuardParts("post-processing", SlotsServer),
    }
)


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
