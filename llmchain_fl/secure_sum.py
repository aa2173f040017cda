"""The server's side of the secure sum: carry signed messages between the members, open the sum of those who stayed.

One :class:`SecureRound` a round. It knows no identities but those that the keys themselves name, and keeps no secret.
Its checks find faults early and say whose they are; what keeps the numbers private is checked by the sites
(``core/secure``). Each question closes the step before it::

    hear("key") ... directory -> hear("share") ... shared, shares_for -> hear("upload") ... survivors, statements_for
        -> [if confirms: hear("survivors") ... confirmations] -> hear("answer") ... opened

``state`` at any moment, ``load_state`` in another process: a server that was killed goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from llmchain_fl.core.secure.checks import refuse
from llmchain_fl.core.secure.directory import Directory, read_directory
from llmchain_fl.core.secure.exchange import mask_key, sealed_bytes
from llmchain_fl.core.secure.identity import Signed, digest, read, unhex
from llmchain_fl.core.secure.shamir import SHARE
from llmchain_fl.core.secure.survivors import needs_quorum
from llmchain_fl.core.secure.words import Numbers, check_packed, low_bits, signed, unpacked
from llmchain_fl.secure_opening import NotOpened, Secrets, open_secrets, take_masks_away

__all__ = ["Kind", "NotOpened", "Opened", "SecureRound"]

Kind = Literal["key", "share", "upload", "survivors", "answer"]


@dataclass(frozen=True)
class Opened:
    """The exact sum over ``sites``; the shares that ``liars`` gave did not fit, and others made good for them."""

    total: Numbers
    sites: tuple[str, ...]
    liars: tuple[str, ...] = ()


class SecureRound:
    """What the server has heard in one round.

    Args:
        run, number: the round.
        context: digest of the plan.
        size: numbers in a vector.
        bits: the modulus.
        all_pairs, neighbours: as in the sites' policies.
    """

    def __init__(
        self, run: str, number: int, context: str, size: int, bits: int, *, all_pairs: int = 50, neighbours: int = 20
    ) -> None:
        self._place, self._context, self._size, self._bits = (run, number), context, size, bits
        self._shape = (all_pairs, neighbours)
        self._heard: dict[str, dict[str, bytes]] = {}
        self._closed: dict[str, list[str]] = {}

    def hear(self, kind: Kind, site: str, data: bytes) -> None:
        """Take in what ``site`` has answered. The same again is free.

        ===================================================  ==================
        answer                                               refused
        ===================================================  ==================
        after its step was closed, or of another round       round
        a second, different one                              twice
        of a site that did not take the step before          stranger
        not signed by the identity of the site's key         signature
        anything else that other members would refuse        form, share, plan, one-directory, one-shared-set
        ===================================================  ==================

        Raises:
            SecureSumError: see the table; nothing was taken in, and the site has no part in the next step.
        """
        known = self._heard.setdefault(kind, {})
        if known.get(site) == data:
            return
        if kind in self._closed:
            raise refuse("round", f"the answer of {site!r} came too late")
        if site in known:
            raise refuse("twice", f"{site!r} has answered before, and differently")
        _CHECKS[kind](self, site, data)
        known[site] = data

    def directory(self) -> list[bytes]:
        """Everybody's keys, for all who gave theirs."""
        keys = self._heard.get("key", {})
        return [keys[site] for site in self._close("key")]

    def waiting(self) -> list[str]:
        """Who is in the directory and has given no shares."""
        return [name for name in self.members.names if name not in self._heard.get("share", {})]

    def shared(self) -> list[str]:
        """Who gave shares: who goes on."""
        return self._close("share")

    def shares_for(self, site: str) -> list[bytes]:
        """What the neighbours of ``site`` gave for it."""
        shares = []
        for owner in set(self.members.neighbours(site)) & set(self.shared()):
            place = self.members.neighbours(owner).index(site)
            shares.append(self._heard["share"][owner].split(b"\n")[place])
        return shares

    def survivors(self) -> list[str]:
        """Who uploaded: whose numbers are in the sum."""
        return self._close("upload")

    def statements_for(self, site: str) -> list[bytes]:
        """The statements of the neighbours of ``site`` among the survivors."""
        near = set(self.members.neighbours(site)) & set(self.survivors())
        return [self._heard["upload"][other].partition(b"\n")[0] for other in near]

    @property
    def confirms(self) -> bool:
        """Whether the members ask for confirmations before they unmask."""
        members, shared, survivors = len(self.members.names), len(self.shared()), len(self.survivors())
        return needs_quorum(members, shared, survivors, self.floor, self.members.sparse)

    @property
    def quorum(self) -> int:
        """How many confirmations are enough."""
        return max((self._terms(site).whole("quorum") for site in self.shared()), default=0)

    @property
    def floor(self) -> int:
        """How many must have given shares, and uploaded, before it makes sense to go on."""
        return max((self._terms(site).whole("floor") for site in self.shared()), default=0)

    def confirmations(self) -> list[bytes]:
        """What the survivors confirmed."""
        return list(self._heard.get("survivors", {}).values())

    def secrets(self) -> Secrets | NotOpened:
        """What opens the masks, or why it cannot be had. May be asked again after more answers have come."""
        if not self.survivors():
            return NotOpened("few", tuple(self.members.names))
        thresholds = {site: self._terms(site).whole("threshold") for site in self.shared()}
        return open_secrets(self.members, self.survivors(), self._shares(), thresholds)

    def opened(self) -> Opened | NotOpened:
        """The sum, or why there is none."""
        secrets = self.secrets()
        if isinstance(secrets, NotOpened):
            return secrets
        survivors, total = self.survivors(), np.zeros(self._size, dtype=np.uint32)
        for site in survivors:
            total += unpacked(self._heard["upload"][site].partition(b"\n")[2], self._size, self._bits)
        take_masks_away(total, self.members, survivors, secrets)
        total &= low_bits(self._bits)
        return Opened(signed(total, self._bits), tuple(survivors), tuple(sorted(secrets.liars)))

    def state(self) -> tuple[dict[str, dict[str, list[str]]], dict[str, bytes]]:
        """(which steps are closed and with whom, as JSON can hold it; what was heard, by ``kind/site``)."""
        heard = {f"{kind}/{site}": data for kind, known in self._heard.items() for site, data in known.items()}
        return {"closed": {kind: list(sites) for kind, sites in self._closed.items()}}, heard

    def load_state(self, state: Mapping[str, Mapping[str, list[str]]], heard: Mapping[str, bytes]) -> None:
        """Go on where :meth:`state` was taken; what was heard is not checked again."""
        self._closed = {kind: list(sites) for kind, sites in state["closed"].items()}
        self._heard = {}
        for name, data in heard.items():
            kind, _, site = name.partition("/")
            self._heard.setdefault(kind, {})[site] = data
        self.__dict__.pop("members", None)

    @cached_property
    def members(self) -> Directory:
        """The directory, as the members read it."""
        return read_directory(self.directory(), self._place, None, *self._shape)

    def _close(self, kind: Kind) -> list[str]:
        return self._closed.setdefault(kind, sorted(self._heard.get(kind, {})))

    def _terms(self, site: str) -> Signed:
        return read(self._heard["share"][site].partition(b"\n")[0], "share")

    def _shares(self) -> dict[str, dict[int, int]]:
        """Owner -> point of a holder -> its share."""
        shares: dict[str, dict[int, int]] = {owner: {} for owner in self.shared()}
        for site, data in self._heard.get("answer", {}).items():
            digits, point = read(data, "answer").text("shares"), self.members.point(site)
            for place, owner in enumerate(self._owners(site)):
                shares[owner][point] = int(digits[2 * SHARE * place :][: 2 * SHARE], 16)
        return shares

    def _owners(self, site: str) -> list[str]:
        """Whose shares ``site`` gives, in this order."""
        return sorted(set(self.members.holders(site)) & set(self.shared()))

    def _check_key(self, site: str, data: bytes) -> None:
        key = read(data, "key")
        if (key.text("run"), key.whole("round")) != self._place or key.text("site") != site:
            raise refuse("round", f"the key of {site!r} is of another site, run or round")
        entry = read_directory([data], self._place, None, *self._shape).entries[site]
        for public in (entry.mask, entry.box):
            mask_key(os.urandom(32), public, "", site, "")

    def _check_shares(self, site: str, data: bytes) -> None:
        if site not in self._close("key"):
            raise refuse("stranger", f"{site!r} is not in the directory")
        messages, others = data.split(b"\n"), self.members.neighbours(site)
        if len(messages) != len(others):
            raise refuse("share", f"{site!r} gave {len(messages)} shares for {len(others)} neighbours")
        terms: set[tuple[int, ...]] = set()
        for message, other in zip(messages, others, strict=True):
            share = self._signed("share", site, message, {"to": other, "context": self._context})
            sealed_bytes(share.text("sealed"))
            terms.add(tuple(share.whole(name) for name in ("threshold", "quorum", "floor")))
        most = (len(others) + 1, len(self.members.names), len(self.members.names))
        if len(terms) > 1 or not all(0 < term <= bound for term, bound in zip(*terms, most, strict=True)):
            raise refuse("share", f"{site!r} gave shares under terms that cannot be met")

    def _check_upload(self, site: str, data: bytes) -> None:
        if site not in self.shared():
            raise refuse("stranger", f"{site!r} gave no shares")
        statement, _, words = data.partition(b"\n")
        self._signed("upload", site, statement, {"shared": digest(self.shared())})
        check_packed(words, self._size, self._bits)

    def _listed(self, kind: Kind, site: str, data: bytes) -> Signed:
        if site not in self.survivors():
            raise refuse("stranger", f"{site!r} has not uploaded")
        return self._signed(kind, site, data, {"shared": digest(self.shared()), "survivors": digest(self.survivors())})

    def _check_confirmation(self, site: str, data: bytes) -> None:
        self._listed("survivors", site, data)

    def _check_answer(self, site: str, data: bytes) -> None:
        unhex(self._listed("answer", site, data).text("shares"), SHARE * len(self._owners(site)))

    def _signed(self, kind: Kind, site: str, message: bytes, expected: Mapping[str, str]) -> Signed:
        signed = read(message, kind)
        signed.check(self.members.entries[site].identity)
        run, number = self._place
        place = {"run": run, "round": number, "site": site, "directory": self.members.digest, **expected}
        wrong = [name for name, value in place.items() if signed.body[name] != value]
        if wrong:
            raise refuse("form", f"the {kind} message of {site!r} has another {wrong[0]}")
        return signed


_CHECKS: Mapping[Kind, Callable[[SecureRound, str, bytes], None]] = {
    "key": SecureRound._check_key,
    "share": SecureRound._check_shares,
    "upload": SecureRound._check_upload,
    "survivors": SecureRound._check_confirmation,
    "answer": SecureRound._check_answer,
}
