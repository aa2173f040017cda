"""A secure sum in one process: members with their folders, a server, and who goes when. For tests and benchmarks.

Each function asks some members for one step and hands the server what they answer; whoever refuses is only counted.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llmchain_fl.core.errors import SecureSumError
from llmchain_fl.core.secure.identity import make_identity
from llmchain_fl.core.secure.member import Member
from llmchain_fl.core.secure.policy import Policy
from llmchain_fl.core.secure.store import OnceFile, SecretStore
from llmchain_fl.core.secure.words import Numbers, wrapped
from llmchain_fl.secure_sum import Kind, NotOpened, Opened, SecureRound

Pattern = dict[str, int]
"""Member -> how far it comes: 0 gives no shares, 1 no upload, 2 does not unmask, 3 stays."""
RUN, PLAN, BITS = "drill", "00" * 32, 20


@dataclass
class Club:
    """Some members, each with a folder under ``home``, and the server of one round."""

    home: Path
    policy: Policy
    server: SecureRound
    number: int = 1
    members: dict[str, Member] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    """Words of the checks that refused, at members and at the server."""

    def reopen(self) -> None:
        """All members from their disks."""
        self.members = {name: open_member(self.home / name, name, self.policy) for name in sorted(self.policy.peers)}

    def copy(self, home: Path) -> Club:
        """The same club once more, which then goes its own way; its files take the place of those of the same name."""
        shutil.copytree(self.home, home, dirs_exist_ok=True)
        twin = Club(home, self.policy, new_server(self.policy, self.number), self.number)
        twin.server.load_state(*self.server.state())
        twin.reopen()
        return twin

    def ask(self, kind: Kind, names: Iterable[str], step: Callable[[str, Member], bytes]) -> None:
        """One step of the members ``names``."""
        for name in names:
            try:
                self.server.hear(kind, name, step(name, self.members[name]))
            except SecureSumError as refusal:
                self.refused[refusal.check] += 1


def open_member(home: Path, name: str, policy: Policy) -> Member:
    """A member from its folder, made when missing."""
    home.mkdir(parents=True, exist_ok=True)
    once = OnceFile(home / "record" / "once.jsonl")
    return Member(name, make_identity(home / "identity.key"), policy, SecretStore(home / "store"), once)


def new_server(policy: Policy, number: int = 1, size: int = 16) -> SecureRound:
    """A server for one round."""
    shape = {"all_pairs": policy.all_pairs, "neighbours": policy.neighbours}
    return SecureRound(RUN, number, PLAN, size, BITS, **shape)


def new_club(
    home: Path,
    count: int,
    *,
    size: int = 16,
    min_peers: int = 2,
    colluders: int = 0,
    survivors: int = 0,
    all_pairs: int = 50,
    neighbours: int = 20,
) -> Club:
    """``count`` members that list each other."""
    names = [f"site-{number:02}" for number in range(count)]
    peers: dict[str, str] = {}
    for name in names:
        (home / name).mkdir(parents=True)
        peers[name] = make_identity(home / name / "identity.key").public
    policy = Policy(peers, min_peers, colluders, survivors=survivors, all_pairs=all_pairs, neighbours=neighbours)
    club = Club(home, policy, new_server(policy, size=size))
    club.reopen()
    return club


def next_round(club: Club, size: int = 16) -> None:
    """The same members under a new server."""
    club.number += 1
    club.server = new_server(club.policy, club.number, size)


def give_keys(club: Club) -> None:
    """Everybody's keys."""
    club.ask("key", club.members, lambda _, member: member.key(RUN, club.number))


def give_shares(club: Club, names: Iterable[str]) -> None:
    """Shares of those who are still there."""
    directory = club.server.directory()
    club.ask("share", names, lambda _, member: member.shares(RUN, club.number, directory, PLAN))


def upload(club: Club, names: Iterable[str], numbers: Mapping[str, Numbers]) -> None:
    """Masked numbers of those who are still there."""
    server = club.server
    directory, shared = server.directory(), server.shared()
    club.ask(
        "upload",
        [name for name in names if name in shared],
        lambda name, member: member.masked(
            RUN, club.number, directory, shared, server.shares_for(name), wrapped(numbers[name], BITS), BITS
        ),
    )


def confirm(club: Club, names: Iterable[str]) -> None:
    """Confirmations, where they are needed."""
    server = club.server
    survivors = server.survivors()
    if server.confirms:
        club.ask(
            "survivors",
            [name for name in names if name in survivors],
            lambda name, member: member.confirm(RUN, club.number, survivors, server.statements_for(name)),
        )


def unmask(club: Club, names: Iterable[str]) -> None:
    """Shares of the survivors' neighbours."""
    server = club.server
    survivors, confirmations = server.survivors(), server.confirmations()
    club.ask(
        "answer",
        [name for name in names if name in survivors],
        lambda name, member: member.unmask(RUN, club.number, survivors, server.statements_for(name), confirmations),
    )


def every_pattern(
    home: Path, count: int, numbers: Mapping[str, Numbers], draw: random.Random, **policy: int
) -> Iterator[tuple[Pattern, Opened | NotOpened]]:
    """What comes of a round in which each member goes at some time or stays: all 4**count patterns, in random order.

    Members that have been asked the same until then share their folders: one for each set of those who gave shares, one
    for each list of survivors. Those who are gone by the end are gone before they confirm.
    """
    club = new_club(home / "all", count, **policy)
    names = sorted(club.members)
    give_keys(club)
    directory = club.server.directory()
    shares = {name: member.shares(RUN, club.number, directory, PLAN) for name, member in club.members.items()}
    clubs: dict[tuple[str, ...], Club] = {}
    pairs = [(shared, some) for shared in _subsets(names) for some in _subsets(shared)]
    draw.shuffle(pairs)
    for shared, some in pairs:
        if shared not in clubs:
            clubs[shared] = club.copy(home / "-".join(("shared", *shared)))
            for name in shared:
                clubs[shared].server.hear("share", name, shares[name])
        listed = clubs[shared].copy(home / "listed")
        upload(listed, some, numbers)
        closed, before = listed.server.state()
        confirm(listed, some)
        confirmed = listed.server.state()[1]
        for there in _subsets(some):
            keys = {f"survivors/{name}" for name in there}
            heard = {name: data for name, data in confirmed.items() if name in before or name in keys}
            listed.server.load_state(closed, heard)
            unmask(listed, there)
            rank = {name: sum(name in step for step in (shared, some, there)) for name in names}
            yield rank, listed.server.opened()


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [some for size in range(len(names) + 1) for some in itertools.combinations(names, size)]


def some_numbers(names: Sequence[str], size: int = 16, seed: int = 0) -> dict[str, Numbers]:
    """Numbers of 16 bits for each name."""
    draw = np.random.default_rng(seed)
    return {name: draw.integers(-(2**15), 2**15, size) for name in names}
