"""Who is connected: sites of a run of years come late, leave, and restart their SuperNode in between.

A site is known by its name; Flower's node ids are of a connection. A SuperNode that starts again with the same
authentication key keeps its id, one without a key has a new one. Where the operator has registered a key under a name
(``flwr supernode register KEY.pub lab --name north``), the node with that key can have no other name than that.

==============================================  ===================================================================
at the start of the server                      then
==============================================  ===================================================================
every site is connected                         name -> node id
a site's calendar begins later, or has ended    it may be missing: ``AWAY``
a run that goes on, without one of its sites    it may be missing after ``wait_seconds``, if ``minimum`` sites are there
fewer                                           RunError; nothing is lost
two connected nodes with the same name          RunError
a node that gives no name a site can have       not admitted, and asked less and less often (``nameless.py``)
a node that does not answer, or speaks another  the same: the run begins as soon as all named sites are there
protocol
a node whose key is registered by another name  RunError
==============================================  ===================================================================

==============================================  ===================================================================
before each round                               then
==============================================  ===================================================================
everybody is where they were                    nothing is asked
a site is not connected                         ``AWAY``: it is not asked, so it pays nothing; the others go on
a node with the name of a site that is away     the site is there again, or at last
a node with the name of a connected site        not admitted: the one that is connected stays (it is asked again later)
a node with any other name                      not admitted in this run
a node that gives no name a site can have       not admitted; it is asked less and less often
a node whose key is registered by another name  not admitted in this run
fewer than ``minimum`` of those who should be   the server waits ``wait_seconds`` for them; then RunError
==============================================  ===================================================================
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from llmchain_fl.config.schema import SitesConfig
from llmchain_fl.core.errors import LlmchainError, RunError, WireError
from llmchain_fl.core.printable import printable
from llmchain_fl.replies import read_hello
from llmchain_fl.run_ends import RunPaused
from server.handled import handled
from server.nameless import Nameless
from server.state import AWAY

log = logging.getLogger("llmchain_fl")


class RollCall:
    """Finds the sites on a grid, at the start and again before each round.

    Args:
        config: how many sites there are, how many a round needs, how long to wait.
        known: names of the sites of a run that goes on; empty for a new one.
        later: sites that need not be connected now, because they join later or have left.
    """

    def __init__(self, config: SitesConfig, known: Collection[str] = (), later: Collection[str] = ()) -> None:
        self._config, self._known, self._later = config, set(known), set(later)
        self._strangers: set[int] = set()
        self._nameless = Nameless(config.wait_seconds)
        self.nodes: dict[str, int] = {}
        """Name -> node id, or ``AWAY``, of every site of the run, by name."""

    def first(self, grid: Grid) -> dict[str, int]:
        """Wait for the sites and ask their names; see the head of this file.

        Raises:
            RunError: too few sites in time, or two with the same name.
        """
        deadline, names = time.monotonic() + self._config.wait_seconds, dict[int, str]()
        while True:
            ids = _registered(grid)
            names |= self._names(grid, ids.keys() - names.keys(), ids)
            _check_registered(names, ids)
            here = [names[node] for node in ids if node in names]
            missing = self._missing(here)
            if missing <= 0:
                break
            if time.monotonic() > deadline:
                self._check_late(here, missing, self._nameless.words(ids))
                break
            time.sleep(min(1.0, self._config.wait_seconds / 10))
        self.nodes = self._roll({names[node]: node for node in ids if node in names})
        return self.nodes

    def _missing(self, here: Sequence[str]) -> int:
        """How many of the sites that must be connected now are not."""
        for name in sorted(name for name, times in Counter(here).items() if times > 1):
            raise RunError(f"two sites call themselves {name}", remedy="give every site its own name in its site file")
        if self._known:
            return len(self._known - self._later - set(here))
        return self._config.count - len(self._later) - len(set(here) - self._later)

    def _check_late(self, here: Sequence[str], missing: int, nameless: Sequence[str]) -> None:
        """Whether a run can go on with those who are there: one that has begun before, from ``minimum`` on."""
        if self._known and len(self._known.intersection(here)) >= self._config.minimum:
            return
        message = f"{len(here)} of {len(here) + missing} sites connected within {self._config.wait_seconds:g} s"
        if nameless:
            message += f"; connected, and no site: {'; '.join(nameless)}"
        raise RunPaused(message, remedy="start the missing SuperNodes, or set sites.count and sites.wait_seconds")

    def _roll(self, nodes: Mapping[str, int]) -> dict[str, int]:
        """Every site of the run, by name. Where all places are taken, a later name is no site: the caller says so."""
        full = len(nodes) >= self._config.count
        names = self._known or ({*nodes} if full else {*nodes, *self._later})
        if not self._known and not full and len(names) > self._config.count:
            raise RunError(
                f"{len(names)} names for {self._config.count} sites: {', '.join(sorted(names))}",
                remedy="give every site the name that the run knows it by, or set sites.count",
            )
        return {name: nodes.get(name, AWAY) for name in sorted(names)}

    def again(self, grid: Grid, due: Collection[str]) -> dict[str, int]:
        """Who is connected now; ``due``: those who can be asked in this round if they are there.

        Raises:
            RunError: fewer than ``sites.minimum`` of them, for ``sites.wait_seconds``.
        """
        deadline = time.monotonic() + self._config.wait_seconds
        needed = min(self._config.minimum, len(due))
        while True:
            self._look(grid)
            here = [site for site in due if self.nodes[site] != AWAY]
            if len(here) >= needed:
                return self.nodes
            if time.monotonic() > deadline:
                message = f"{len(here)} of {len(due)} sites are connected, a round needs {needed}"
                raise RunPaused(message, remedy="start their SuperNodes")
            time.sleep(min(1.0, self._config.wait_seconds / 10))

    def _look(self, grid: Grid) -> None:
        """One look at the grid: who has gone, who is new."""
        connected = _registered(grid)
        gone = {name for name, node in self.nodes.items() if node != AWAY and node not in connected}
        if gone:
            log.warning("not connected: %s", ", ".join(sorted(gone)))
        nodes = {name: AWAY if name in gone else node for name, node in self.nodes.items()}
        new = connected.keys() - set(nodes.values()) - self._strangers
        for node, name in self._names(grid, new, connected).items():
            if connected[node] not in ("", name):
                self._strangers.add(node)
                log.warning('the node registered as "%s" calls itself "%s": it is not asked', connected[node], name)
            elif name not in nodes:
                self._strangers.add(node)
                log.warning('a node calls itself "%s", which is no site of this run: it is not asked', name)
            elif nodes[name] != AWAY:
                log.warning('a second node calls itself "%s": the first one stays', name)
            else:
                nodes[name] = node
                log.info("connected: %s", name)
        self.nodes = nodes

    def _names(self, grid: Grid, nodes: Collection[int], keys: Mapping[int, str]) -> dict[int, str]:
        """Node -> the name it gives, of those of ``nodes`` that are asked now and give one that a site can have."""
        names, why = dict[int, str](), dict[int, str]()
        due = self._nameless.due(nodes)
        for reply in _ask_names(grid, due, self._nameless.seconds(due)) if due else ():
            node = reply.metadata.src_node_id
            try:
                names[node] = handled(f"node {node}", partial(_name, reply))
            except LlmchainError as error:
                why[node] = error.what
        self._nameless.answered(due, names, keys, why)
        return names


def connected(nodes: Mapping[str, int]) -> set[str]:
    """The sites that are connected."""
    return {name for name, node in nodes.items() if node != AWAY}


def _registered(grid: Grid) -> dict[int, str]:
    """The connected nodes -> the name under which the operator has registered the node's key; empty without one."""
    return {info.node_id: printable(info.name) for info in grid.get_nodes()}


def _check_registered(names: Mapping[int, str], registered: Mapping[int, str]) -> None:
    for node, name in names.items():
        if registered.get(node, "") not in ("", name):
            raise RunError(
                f'the node whose key is registered as "{registered[node]}" calls itself "{name}"',
                remedy="let the site file's name be the one of flwr supernode register --name",
            )


def _ask_names(grid: Grid, nodes: Iterable[int], seconds: float) -> Iterable[Message]:
    questions = [Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in sorted(nodes)]
    return grid.send_and_receive(questions, timeout=seconds)


def _name(reply: Message) -> str:
    if reply.has_error():
        raise WireError("its program failed when it was asked its name", remedy="look at its log")
    return read_hello(reply.content).site
