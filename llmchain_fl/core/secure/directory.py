"""The members of a round and their keys, as everybody who was given the same signed keys reads them.

Who masks whom, and who holds whose shares: all pairs, or above a number of members a graph in which each has k
neighbours (Bell et al. 2020, CCS, "Secure single-server aggregation with (poly)logarithmic overhead"). Members stand
in a ring in the order of SHA-256 of (digest of the directory, name); neighbours of one are the k / 2 before it and the
k / 2 behind it: the Harary graph H(k, n), symmetric, and connected unless k members or more are taken out. Bell et al.
rely on a random ring and a share of colluders; here whoever makes the directory can try many until a ring suits it, so
nothing in ``policy.py`` relies on chance: it counts every colluder among the neighbours of every member.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmchain_fl.core.secure.checks import refuse
from llmchain_fl.core.secure.identity import KEY, Signed, digest, read, unhex


@dataclass(frozen=True)
class Entry:
    """One member: its identity, its public keys of the round (X25519), and the digest of its self seed."""

    identity: str
    mask: bytes
    box: bytes
    self_digest: str


class Directory:
    """The members of one round.

    Args:
        entries: name -> keys.
        told: digest of all signed keys.
        all_pairs: most members that are all neighbours of each other.
        neighbours: neighbours of each where there are more members; even.
    """

    def __init__(self, entries: Mapping[str, Entry], hexdigest: str, all_pairs: int, neighbours: int) -> None:
        self.entries, self.digest, self.names = dict(entries), hexdigest, sorted(entries)
        self.sparse = len(entries) > max(all_pairs, neighbours + 1)
        self._points = {name: place for place, name in enumerate(self.names, start=1)}
        self._reach = neighbours // 2
        self._ring = sorted(self.names, key=lambda name: digest([hexdigest, name]))
        self._places = {name: place for place, name in enumerate(self._ring)}

    def point(self, name: str) -> int:
        """Where the shares that ``name`` holds lie on every polynomial: from 1."""
        return self._points[name]

    def holders(self, name: str) -> list[str]:
        """``name`` and its neighbours, sorted: who holds its shares, and whose shares it holds."""
        if not self.sparse:
            return self.names
        place, count = self._places[name], len(self._ring)
        return sorted(self._ring[(place + step) % count] for step in range(-self._reach, self._reach + 1))

    def neighbours(self, name: str) -> list[str]:
        """The others among its holders, sorted: whom ``name`` masks against."""
        return [other for other in self.holders(name) if other != name]


def read_directory(
    messages: Sequence[bytes],
    place: tuple[str, int],
    listed: Mapping[str, str] | None,
    all_pairs: int,
    neighbours: int,
) -> Directory:
    """The directory of a run and a round from signed keys, in any order.

    ========================================================  =======================
    case                                                      result
    ========================================================  =======================
    the same keys in another order                            the same directory
    a key that the listed identity has not signed             refused: signature
    a name that is not listed                                 refused: stranger
    a name twice, or more keys than names listed              refused: twice
    a key of another run or round                             refused: round
    ``listed`` is None (the server, which knows no list)      each key vouches for itself
    ========================================================  =======================

    Args:
        messages: messages of kind ``key``.
        place: run and round.
        listed: identities by name.
        all_pairs, neighbours: see :class:`Directory`.

    Raises:
        SecureSumError: see the table; form.
    """
    if listed is not None and len(messages) > len(listed):
        raise refuse("twice", f"{len(messages)} keys in a directory of {len(listed)} listed sites")
    entries: dict[str, Entry] = {}
    for message in messages:
        key = read(message, "key")
        name = key.text("site")
        if listed is not None and listed.get(name) != key.text("identity"):
            raise refuse(
                "stranger" if name not in listed else "signature", f"the key of {name!r} is not of a listed identity"
            )
        key.check(key.text("identity"))
        if (key.text("run"), key.whole("round")) != place:
            raise refuse("round", f"the key of {name!r} is of another run or round")
        if name in entries:
            raise refuse("twice", f"{name!r} stands in the directory twice")
        entries[name] = _entry(key)
    hexdigest = digest([message.decode("ascii") for message in sorted(messages)])
    return Directory(entries, hexdigest, all_pairs, neighbours)


def _entry(key: Signed) -> Entry:
    keys = [unhex(key.text(name), KEY) for name in ("mask", "box", "self")]
    return Entry(key.text("identity"), keys[0], keys[1], keys[2].hex())
