"""What a site asks for before it lets its numbers into a sum: its own to decide, never the server's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmchain_fl.core.secure.checks import refuse
from llmchain_fl.core.secure.identity import public_key


@dataclass(frozen=True)
class Terms:
    """What follows from a policy for one directory.

    ``threshold``: shares that open a secret of this site. ``quorum``: members that must say that they were given the
    same list of survivors. ``floor``: fewest members that must be masked against, and must survive.
    """

    threshold: int
    quorum: int
    floor: int


@dataclass(frozen=True)
class Policy:
    """The policy of one site.

    Args:
        peers: the identities that this site's own file lists, by name; with or without its own.
        min_peers: fewest members of a round, this site among them.
        colluders: how many members may tell the server all they know.
        survivors: fewest members of an opened sum, beyond what the rest asks for (the divisor of a shared noise).
        most_members: most members of a round; None: as many as are listed.
        all_pairs: most members that all mask each other and hold each other's shares.
        neighbours: with how many others a member does so where there are more (``directory.py``); even.
    """

    peers: Mapping[str, str]
    min_peers: int = 3
    colluders: int = 0
    survivors: int = 0
    most_members: int | None = None
    all_pairs: int = 50
    neighbours: int = 20

    def __post_init__(self) -> None:
        """Refuse a policy that is none."""
        for public in self.peers.values():
            public_key(public)
        if min(self.min_peers, self.colluders, self.survivors) < 0 or self.neighbours < 2 or self.neighbours % 2:
            raise refuse("threshold", "a policy counts from 0, and has an even number of neighbours from 2")

    def terms(self, members: int, holders: int) -> Terms:
        """The numbers for a directory of ``members``, ``holders`` of which hold shares of this site, itself included.

        With c colluders::

            threshold = floor((holders + c) / 2) + 1
            quorum    = floor((members + c) / 2) + 1
            floor     = max(quorum, min_peers, survivors, members - (holders - 1) + 1 + c)

        Threshold: 2 threshold > holders + c, so the honest holders, who answer once each, cannot make up threshold
        shares of the one secret and threshold shares of the other, whatever lists they are given (Bonawitz et al. 2017,
        CCS, 6.2); all c colluders are counted among the holders, wherever the graph has put them. Quorum: two lists of
        survivors that both have one share an honest member, who speaks for one. Floor, last term: each member has
        holders - 1 neighbours, and that many members must go before the graph falls apart (Harary 1962); so the honest
        survivors stay connected, and no sum of a part of them can be opened. With all pairs it says: two honest
        survivors at least.

        =========================================  ==========================
        members, holders, c                        threshold, quorum, floor
        =========================================  ==========================
        3, 3, 0 (min_peers = 3)                    2, 2, 3
        3, 3, 1                                    3, 3, 3
        3, 3, 2                                    refused: threshold
        10, 10, 0                                  6, 6, 6
        10, 10, 3                                  7, 7, 7
        100, 21, 0                                 11, 51, 81
        100, 21, 19                                21, 60, 100
        100, 21, 20                                refused: threshold
        2, 2, 0                                    refused: few-peers
        =========================================  ==========================

        Raises:
            SecureSumError: few-peers, threshold.
        """
        if members < max(self.min_peers, self.survivors):
            needed = max(self.min_peers, self.survivors)
            raise refuse("few-peers", f"{members} members; this site's policy asks for {needed}")
        if self.most_members is not None and members > self.most_members:
            raise refuse("few-peers", f"{members} members; this site's policy allows {self.most_members}")
        threshold, quorum = (holders + self.colluders) // 2 + 1, (members + self.colluders) // 2 + 1
        floor = max(quorum, self.min_peers, self.survivors, members - holders + 2 + self.colluders)
        if threshold > holders or floor > members:
            raise refuse(
                "threshold",
                f"{self.colluders} colluders among {members} members, {holders} of whom hold a site's shares",
            )
        return Terms(threshold, quorum, floor)
