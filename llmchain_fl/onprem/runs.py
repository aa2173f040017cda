"""Runs of the coordinator: started, looked at, stopped and gone on with. ``follow.py`` watches one to its end.

What is submitted is the installed app, and its bundle must be one that the sites of the kit approve.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.run_pb2 import Run
from flwr.proto.transport_pb2 import Scalar

from llmchain_fl.core.errors import ConfigError, RunError
from llmchain_fl.onprem.code import bundle_bytes
from llmchain_fl.onprem.control import Control, ask, code_of, control_of
from llmchain_fl.onprem.keys import node_pem
from llmchain_fl.onprem.kit import AUTHORITY, ROSTER, SCENARIO, CoordinatorKit, read_coordinator_kit
from llmchain_fl.onprem.roster import read_roster
from llmchain_fl.run_dir import RunDir, fresh
from llmchain_fl.scenario import find_scenario

RUNS = "runs"
UNKNOWN = 16
"""Flower's code of a run that it does not know (any more)."""
FINISHED, ONLINE = "finished", "online"


@dataclass(frozen=True)
class Wish:
    """What a run is started with: a scenario and changes to it, or a run folder to go on with."""

    out: Path
    scenario: Path | None = None
    changes: Sequence[str] = ()

    def config(self, *, again: bool) -> dict[str, Scalar]:
        """The keys of ``flwr run --run-config``."""
        entries = {"out": Scalar(string=str(self.out))}
        if again or self.scenario is None:
            return entries | {"resume": Scalar(bool=True)}
        changes = Scalar(string=shlex.join(self.changes))
        return entries | {"scenario": Scalar(string=str(self.scenario)), "set": changes}


@dataclass(frozen=True)
class Status:
    """What Flower says of a run."""

    number: int
    word: str
    """``pending``, ``starting``, ``running``, ``completed``, ``failed`` or ``stopped``."""
    over: bool
    details: str
    out: str


class Runs:
    """The runs of the coordinator whose kit is in ``kit``."""

    def __init__(self, kit: Path, root: Path) -> None:
        self.kit, self._root = kit.absolute(), root
        self.told: CoordinatorKit = read_coordinator_kit(self.kit)

    def bundle(self) -> bytes:
        """What Flower ships.

        Raises:
            ConfigError: no site would take part in a run of it.
        """
        data = bundle_bytes(self._root)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if digest not in self.told.bundles:
            raise ConfigError(
                [f"the code that is installed here is bundle {digest}, and the kits approve another"],
                remedy="install the version of the kits, or provision them again and have the sites add this digest to "
                "[approved] bundles of their site files",
            )
        return data

    def wish(self, scenario: str, changes: Sequence[str]) -> Wish:
        """A new run, in a folder of the kit.

        Raises:
            ConfigError: no such scenario.
        """
        file = find_scenario(scenario) if scenario else self.kit / SCENARIO
        name = file.stem if scenario else self.told.federation
        return Wish(fresh(self.kit / RUNS, name), file.absolute(), changes)

    def start(self, control: Control, bundle: bytes, wish: Wish, *, again: bool) -> int:
        """Submit it; its number."""
        fab = Fab(hash_str=hashlib.sha256(bundle).hexdigest(), content=bundle)
        request = StartRunRequest(fab=fab, override_config=wish.config(again=again))
        response = ask("start the run", control.StartRun, request)
        if not response.HasField("run_id"):
            raise RunError("the SuperLink did not start the run", remedy="see its log")
        return int(response.run_id)

    def look(self, control: Control, number: int) -> Status | None:
        """What Flower says of it; None where it knows nothing of it, as after a restart of the SuperLink."""
        try:
            runs = ask("tell of the run", control.ListRuns, ListRunsRequest(run_id=number)).run_dict
        except RunError as error:
            if code_of(error.__cause__) == UNKNOWN:
                return None
            raise
        return next(map(_status, runs.values()), None)

    def all(self, control: Control) -> list[Status]:
        """The latest runs of this SuperLink, the newest first."""
        runs = ask("tell of its runs", control.ListRuns, ListRunsRequest(limit=20)).run_dict.values()
        return [_status(run) for run in sorted(runs, key=lambda run: run.pending_at, reverse=True)]

    def find(self, control: Control, name: str) -> Status:
        """The run of this number or folder that is not over; "" the only one.

        Raises:
            ConfigError: there is none, or there are several.
        """
        going = [one for one in self.all(control) if not one.over]
        fits = [one for one in going if not name or str(one.number) == name or _same(one.out, name)]
        if len(fits) != 1:
            listed = ", ".join(f"{one.number} ({one.out})" for one in going) or "none"
            problem = f"no run {name} is going on" if name else f"{len(fits)} runs are going on"
            raise ConfigError([f"{problem}: {listed}"], remedy="name one by its number or its folder")
        return fits[0]

    def going(self, control: Control, out: Path) -> int | None:
        """The number of the run that is played into ``out`` at this moment."""
        return next((one.number for one in self.all(control) if not one.over and _same(one.out, str(out))), None)

    def stop(self, control: Control, name: str) -> Status:
        """End a run; what it has learned stays, and it can be gone on with."""
        status = self.find(control, name)
        ask("stop the run", control.StopRun, StopRunRequest(run_id=status.number))
        return status

    def sites(self, control: Control) -> dict[str, bool]:
        """Site of the roster -> whether it is connected."""
        nodes = ask("tell of its sites", control.ListNodes, ListNodesRequest()).nodes_info
        here = {bytes(node.public_key) for node in nodes if node.status == ONLINE}
        return {name: node_pem(one.node_key) in here for name, one in read_roster(self.kit / ROSTER).sites.items()}

    def control(self) -> AbstractContextManager[Control]:
        """The SuperLink of this machine."""
        return control_of(self.told.reach, self.kit / AUTHORITY)

    def latest(self) -> RunDir | None:
        """The run of the kit whose rows are the newest."""
        runs = [RunDir(file.parent) for file in (self.kit / RUNS).glob("*/metrics.jsonl")]
        return max(runs, key=lambda run: run.metrics.stat().st_mtime, default=None)


def _status(run: Run) -> Status:
    over = run.status.status == FINISHED
    out = run.override_config["out"].string if "out" in run.override_config else ""
    return Status(
        run.run_id, run.status.sub_status if over else run.status.status, over, run.status.details.strip(), out
    )


def _same(one: str, other: str) -> bool:
    return bool(one) and Path(one).resolve() == Path(other).resolve()
