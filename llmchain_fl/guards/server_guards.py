"""The server halves of all guards of a run, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.guards import GUARDS
from llmchain_fl.guards.protocol import ServerGuard, View


@dataclass(frozen=True)
class Note:
    """One number that a guard tells of a round, and what it is."""

    guard: str
    key: str
    value: float
    what: str


class ServerGuards:
    """In the order given. A setting that a spec leaves out has its declared default."""

    def __init__(self, specs: Sequence[GuardSpec]) -> None:
        self._specs = tuple(specs)
        self._guards: dict[str, ServerGuard] = {}
        self.start_anew()

    def start_anew(self) -> None:
        """As before the first round: nothing is remembered."""
        self._guards = {spec.name: _server_half(spec) for spec in self._specs}

    @property
    def serve_another(self) -> bool:
        """Whether what is served is another adapter than the one that sites go on training."""
        return any(GUARDS[spec.name].serves_another for spec in self._specs)

    @property
    def start_new_pairs(self) -> bool:
        """Whether a stage starts on a new pair, so that a server optimizer's moments are of the old one."""
        return any(GUARDS[spec.name].new_pairs for spec in self._specs)

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

    def notes(self) -> list[Note]:
        """What each guard did in this round."""
        return [
            Note(name, key, float(value), GUARDS[name].notes.get(key, key.replace("_", " ")))
            for name, guard in self._guards.items()
            for key, value in guard.notes().items()
        ]

    def state(self) -> dict[str, Arrays]:
        """By guard."""
        return {name: guard.state() for name, guard in self._guards.items()}

    def load_state(self, state: Mapping[str, Arrays]) -> None:
        """By guard; a guard without saved state keeps its start."""
        for name, guard in self._guards.items():
            if name in state:
                guard.load_state(state[name])


def _server_half(spec: GuardSpec) -> ServerGuard:
    guard = GUARDS[spec.name]
    return guard.server(guard.given(spec).plain())
