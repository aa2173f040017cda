"""The roster's keys in the SuperLink: entered again at every start. Flower's control API: ``control.py``.

======================================================  ============================================================
key                                                     outcome
======================================================  ============================================================
on the roster, unknown to the SuperLink                 registered under its name: ``registered``
on the roster, known to it                              left as it is: ``known``
on the roster, unregistered once (code 23)              ConfigError: it can never return, ``reissue`` gives another
revoked, known to the SuperLink                         unregistered: ``unregistered``
revoked, unknown to it                                  nothing
known to the SuperLink, never on the roster             left, and told: ``strangers``
======================================================  ============================================================

Asked a second time, nothing changes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.onprem.certificates import ending, utc_now
from llmchain_fl.onprem.control import Control, ask, code_of, control_of, refused
from llmchain_fl.onprem.keys import node_pem
from llmchain_fl.onprem.kit import AUTHORITY, ROSTER, read_coordinator_kit
from llmchain_fl.onprem.roster import Roster, read_roster

log = logging.getLogger("llmchain_fl.register")

GONE = "unregistered"
"""Flower's word for the status of such a node."""
USED = 23
"""Flower's code of a key that was registered before."""
TAKE = "take the roster"


@dataclass(frozen=True)
class Outcome:
    """Names of sites by what was done; ``strangers``: numbers of nodes."""

    registered: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    unregistered: list[str] = field(default_factory=list)
    strangers: list[int] = field(default_factory=list)


def register_all(roster: Roster, control: Control) -> Outcome:
    """See the table of the module.

    Raises:
        ConfigError: a site's key was unregistered once; every other key was seen to first.
        RunError: the SuperLink does not answer, or refuses.
    """
    outcome, lost = Outcome(), list[str]()
    nodes = {bytes(node.public_key): node for node in ask(TAKE, control.ListNodes, ListNodesRequest()).nodes_info}
    there = {key: node.node_id for key, node in nodes.items() if node.status != GONE}
    for past in roster.revoked:
        number = there.pop(node_pem(past.node_key), None)
        if number is not None:
            ask(TAKE, control.UnregisterNode, UnregisterNodeRequest(node_id=number))
            outcome.unregistered.append(past.name)
    for name, entry in roster.sites.items():
        key = node_pem(entry.node_key)
        if there.pop(key, None) is not None:
            outcome.known.append(name)
        elif key in nodes or not _registered(control, key, name):
            lost.append(name)
        else:
            outcome.registered.append(name)
    outcome.strangers.extend(there.values())
    if lost:
        raise _cannot_return(lost)
    return outcome


def _cannot_return(names: Iterable[str]) -> ConfigError:
    first, *_ = names = list(names)
    return ConfigError(
        [f"{name}: its key was unregistered once, and Flower never takes such a key again" for name in names],
        remedy=f"give it a new one: llmchain-fl provision reissue {first}",
    )


def _registered(control: Control, key: bytes, name: str) -> bool:
    """False where the SuperLink has had the key before."""
    try:
        control.RegisterNode(RegisterNodeRequest(public_key=key, name=name))
    except Exception as error:
        if code_of(error) == USED:
            return False
        raise refused(TAKE, error) from error
    return True


def register_kit(folder: Path) -> Outcome:
    """The roster of the coordinator's kit in ``folder`` into the SuperLink of this machine, told in the log; and which
    certificates end soon.

    Raises:
        ConfigError, RunError: no kit, or see ``register_all``.
    """
    reach = read_coordinator_kit(folder).reach
    for sentence in ending(folder, utc_now()):
        log.warning("%s", sentence)
    with control_of(reach, folder / AUTHORITY) as control:
        outcome = register_all(read_roster(folder / ROSTER), control)
    log.info("%d sites registered, %d known already", len(outcome.registered), len(outcome.known))
    for name in outcome.unregistered:
        log.warning("%s is revoked: its key was unregistered", name)
    if outcome.strangers:
        log.warning("nodes %s are connected by keys that were never on the roster", outcome.strangers)
    return outcome
