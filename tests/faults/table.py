"""The table of faults: kinds x phases. Loaded by ``conftest.py``, after ``world.py``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from llmchain_fl.core.errors import PrivacyError, TrainingError

world = sys.modules["faults_world"]
Fault, Trigger, World = world.Fault, world.Trigger, world.World
NORTH = "site-00"
SERVER_PHASES = ("asking", "all asked", "begun", "answered", "pulled", "saving", "saved")
"""Where the process of the run may die in a round."""


def killed(_site: str) -> None:
    raise world.SiteKilled


def server_killed(_site: str) -> None:
    raise world.ServerKilled


def full_disk(_site: str) -> None:
    raise PrivacyError("the disk is full", remedy="make room")


def broken(_site: str) -> None:
    raise TrainingError("it fails", remedy="")


def at(event: str, action: Callable[[str], None], **more: Any) -> Callable[[Any], None]:
    """Let something happen at the first site in round 2."""
    return lambda one: one.triggers.append(Trigger(event, action, **{"site": NORTH, **more}))


def goes(event: str, seconds: float) -> Callable[[Any], None]:
    """The node of the first site is gone from this point on; what it was doing is lost with it."""

    def arrange(one: Any) -> None:
        def leave(site: str) -> None:
            one.leave(NORTH, seconds)
            if event in world.SITE_EVENTS:
                raise world.SiteKilled

        one.triggers.append(Trigger(event, leave, site=NORTH if event != "asking" else ""))

    return arrange


def link_gone(event: str, seconds: float) -> Callable[[Any], None]:
    def arrange(one: Any) -> None:
        def fall(_site: str) -> None:
            one.down = one.clock.now + seconds
            raise httpx.ConnectError("gone")

        one.triggers.append(Trigger(event, fall))

    return arrange


def slow(seconds: float, rounds: int) -> Callable[[Any], None]:
    """It needs so long in so many rounds, from the second one on."""

    def arrange(one: Any) -> None:
        begun = [0]

        def asked(site: str) -> None:
            begun[0] += 1
            one.slow[site] = seconds if begun[0] <= rounds else world.AWAKE

        one.triggers.append(Trigger("asking", lambda _site: asked(NORTH), times=10**6))

    return arrange


def extra(kind: str, later: bool) -> Callable[[Any], None]:
    """A node more that is no site; ``later``: it comes in round 2."""

    def arrange(one: Any) -> None:
        one.odd[99] = kind
        if later:
            one.gone[99] = world.HUNG * 2
            one.triggers.append(Trigger("asking", lambda _site: one.gone.pop(99)))

    return arrange


def moved(one: Any) -> None:
    """The run's process dies, and when it is back every node has another number: the SuperLink lost its state."""

    def again(_site: str) -> None:
        one.nodes = {name: node + 50 for name, node in one.nodes.items()}
        one._first += 50
        raise world.ServerKilled

    one.triggers.append(Trigger("saved", again))


def dies_and_site_stays_away(event: str) -> Callable[[Any], None]:
    """The run's process dies in a round, and when it goes on one of the sites that were asked is not there."""

    def arrange(one: Any) -> None:
        def die(_site: str) -> None:
            one.leave(NORTH, 300.0)
            raise world.ServerKilled

        one.triggers.append(Trigger(event, die, site=NORTH if event in ("answered", "pulled") else ""))

    return arrange


def all_away(one: Any) -> None:
    def leave(_site: str) -> None:
        for name in one.nodes:
            one.leave(name, 400.0)

    one.triggers.append(Trigger("saved", leave))


def faults() -> Iterator[Any]:
    """All of them, for one method."""
    for event in world.SITE_EVENTS:
        yield Fault(f"site killed, {event}", at(event, killed))
        yield Fault(f"site gone for four minutes, {event}", goes(event, 240.0))
    yield Fault("site gone before it is asked", goes("asking", 240.0))
    yield Fault("site killed in every round", at("reserved", killed, times=10**6))
    for event in ("reserving", "sealing"):
        yield Fault(f"disk full at a site, {event}", at(event, full_disk))
        yield Fault(f"disk full at a site for ever, {event}", at(event, full_disk, times=10**6))
    yield Fault("site fails for ever before it pays", at("reserving", broken, times=10**6))
    yield Fault("site slow in one round", slow(200.0, 1))
    yield Fault("site slow for ever", slow(200.0, 10**6))
    for event in SERVER_PHASES:
        yield Fault(f"run's process killed, {event}", lambda one, event=event: one.triggers.append(
            Trigger(event, server_killed)))  # fmt: skip
    for event in ("answered", "pulled", "saving"):
        yield Fault(f"run's process killed, {event}, and a site stays away", dies_and_site_stays_away(event))
    for event in ("asking", "all asked", "pulled"):
        yield Fault(f"SuperLink gone, {event}", link_gone(event, 90.0))
    yield Fault("SuperLink lost its state", moved)
    yield Fault("every site away", all_away)
    for kind in ("mute", "older"):
        for later in (False, True):
            yield Fault(f"a node more, {kind}, {'later' if later else 'from the start'}", extra(kind, later))
    yield Fault("budget gone mid-run at a site", lambda one: None, limits={NORTH: 2.5})
    yield Fault("budget gone mid-run at all sites", lambda one: None, ("budget",), {"": 2.5})
    yield Fault("no budget at all", lambda one: None, ("failed",), {"": 0.5})
    yield Fault("no site ever trains", at("reserving", broken, site="", round=0, times=10**6), ("paused",))
