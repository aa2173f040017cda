"""A federation without processes: the real server loop and real sites, over a grid and a clock that are played.

A minute costs nothing here. What Flower does is played as it was measured: replies are looked for every three seconds,
a program that died is answered for after a minute, a node that has gone gives no answer. Loaded by ``conftest.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo

from llmchain_fl.core.messages import PROTOCOL, HelloReply
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.wire import write_hello
from simulations.grid import InProcessGrid

HUNG = 6 * 3600.0
"""Seconds of the played clock after which a run counts as hung: all here is over within half an hour, or never."""
DIED, AWAKE = 60.0, 5.0
"""Seconds until Flower answers for a program that died; that a round takes at a site."""
SITE_EVENTS = ("begun", "reserving", "reserved", "sealing", "sealed")


class SiteKilled(BaseException):
    """The program of a site is gone at this point."""


class ServerKilled(BaseException):
    """The process of the run is gone at this point."""


class Hung(BaseException):
    """Nothing happens any more."""


@dataclass
class Clock:
    """For ``time`` in the files of the server that wait."""

    now: float = 0.0

    def monotonic(self) -> float:
        """Seconds since the beginning."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Nothing but that."""
        self.now += seconds
        if self.now > HUNG:
            raise Hung


@dataclass
class Trigger:
    """Calls ``action`` with the site at an event, ``times`` times, in rounds from ``round`` on."""

    event: str
    action: Callable[[str], None]
    site: str = ""
    round: int = 2
    times: int = 1

    def fits(self, event: str, site: str, number: int) -> bool:
        return self.times > 0 and event == self.event and self.site in ("", site) and number >= self.round


@dataclass
class _Asked:
    message: Message
    at: float
    """When its reply is there."""
    reply: Message | None = None


class World(InProcessGrid):
    """A grid; ``sites``: name -> node. Time passes for a message when the server looks for its reply."""

    def __init__(self, app: Any, sites: Iterable[str], clock: Clock) -> None:
        names = list(sites)
        super().__init__(app, names)
        self.clock, self.nodes = clock, dict(zip(names, super().get_node_ids(), strict=True))
        self.gone: dict[int, float] = {}
        """Node -> until when it is not connected."""
        self.slow: dict[str, float] = {}
        """Site -> seconds that a round takes there."""
        self.odd: dict[int, str] = {}
        """Node -> ``mute`` or ``older``; further nodes that are no sites."""
        self.triggers: list[Trigger] = []
        self.down = 0.0
        """Until when the SuperLink does not answer."""
        self.left: dict[str, set[tuple[int, str]]] = {name: set() for name in names}
        """What has left each site, as (round, digest): the count that no book of ours takes part in."""
        self.begun: dict[str, list[int]] = {name: [] for name in names}
        self._asked: dict[str, _Asked] = {}
        self._now: tuple[str, int] = ("", 0)

    # -- the plot -----------------------------------------------------------------------------------------------------

    def happens(self, event: str, site: str = "", number: int = 0) -> None:
        """Whatever was to happen at this point."""
        for one in self.triggers:
            if one.fits(event, site, number):
                one.times -= 1
                one.action(site)

    def leave(self, site: str, seconds: float) -> None:
        """Its node is not connected for a while."""
        self.gone[self.nodes[site]] = self.clock.now + seconds

    def here(self, node: int) -> bool:
        return self.clock.now >= self.gone.get(node, 0.0)

    # -- Flower -------------------------------------------------------------------------------------------------------

    def get_nodes(self) -> list[NodeInfo]:
        """Who is connected."""
        self._answers()
        known = {**{node: name for name, node in self.nodes.items()}, **self.odd}
        return [NodeInfo(node_id=node, name=known[node]) for node in known if self.here(node)]

    def get_node_ids(self) -> list[int]:
        return [info.node_id for info in self.get_nodes()]

    def _answers(self) -> None:
        """Sites do what they were asked, whether or not anybody still waits for it."""
        for one in list(self._asked.values()):
            node = one.message.metadata.dst_node_id
            known = node in self.nodes.values() or self.odd.get(node) == "older"
            if known and one.reply is None and self.clock.now >= one.at and self.here(node):
                one.reply = self._played(one)
        if self.clock.now < self.down:
            raise httpx.ConnectError("the SuperLink is gone")

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        self._answers()
        told = list(messages)
        number = int(told[0].metadata.group_id or 0) if told else 0
        self.happens("asking", number=number)
        found = []
        for message in told:
            site = self._site(message)
            takes = self.slow.get(site, AWAKE)
            name = f"m{len(self._asked)}"
            message.metadata.__dict__["_message_id"] = name
            self._asked[name] = _Asked(message, self.clock.now + takes)
            self.happens("asked", site, int(message.metadata.group_id or 0))
            found.append(name)
        self.happens("all asked", number=number)
        return found

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self._answers()
        found = []
        for name in message_ids:
            one = self._asked[name]
            if one.reply is not None and self.clock.now >= one.at:
                site, number = self._site(one.message), int(one.message.metadata.group_id or 0)
                del self._asked[name]
                self.happens("pulled", site, number)
                found.append(one.reply)
        return found

    def _played(self, one: _Asked) -> Message | None:
        """What a site makes of a message; None: later, when Flower answers for it, or never."""
        message, node = one.message, one.message.metadata.dst_node_id
        if self.clock.now > one.at + message.metadata.ttl:
            return self._lost(one)
        if self.odd.get(node) == "older":
            return Message(write_hello(HelloReply("west", protocol=PROTOCOL - 1)), reply_to=message)
        site, number = self._site(message), int(message.metadata.group_id or 0)
        self._now = (site, number)
        try:
            self.happens("begun", site, number)
            reply = self._deliver(message, message.metadata.message_id)
            self._count(site, number, reply)
            self.happens("answered", site, number)
        except SiteKilled:
            if not self.here(node):
                return self._lost(one)
            one.at = self.clock.now + DIED
            return Message(Error(ErrorCode.CLIENT_APP_CRASHED, "stopped responding"), reply_to=message)
        finally:
            self._now = ("", 0)
        return reply if self.here(node) else self._lost(one)

    def _lost(self, one: _Asked) -> None:
        one.at = float("inf")

    def _count(self, site: str, number: int, reply: Message) -> None:
        if reply.has_content() and reply.content.array_records:
            data = b"".join(a.data for r in reply.content.array_records.values() for a in r.values())
            self.left[site].add((number, hashlib.sha256(data).hexdigest()))

    def _site(self, message: Message) -> str:
        node = message.metadata.dst_node_id
        return next((name for name, number in self.nodes.items() if number == node), "")

    # -- a site's disk ------------------------------------------------------------------------------------------------

    def watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """A method of the ledger with an event before and after it."""
        before, after = {"reserve": ("reserving", "reserved"), "seal": ("sealing", "sealed")}[name]

        def played(ledger: FileLedger, *values: Any, **named: Any) -> Any:
            self.happens(before, *self._now)
            if name == "reserve":
                self.begun[self._now[0]].append(self._now[1])
            done = real(ledger, *values, **named)
            self.happens(after, *self._now)
            return done

        return played


@dataclass(frozen=True)
class Fault:
    """One scenario: what it does to the world; how the run may end, in the words of ``ending``."""

    name: str
    arrange: Callable[[World], None]
    ends: tuple[str, ...] = ("completed",)
    limits: Mapping[str, float] = field(default_factory=dict)
    """Site (or "", for all) -> how many rounds its own budget pays for."""
