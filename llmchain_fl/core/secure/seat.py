"""One member in one round: shares that it gives and takes, and the mask that it puts on. Nothing here is remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmchain_fl.core.secure.checks import refuse
from llmchain_fl.core.secure.directory import Directory
from llmchain_fl.core.secure.exchange import Secrets, mask_key, mask_sign, seal, sealed_bytes, unseal
from llmchain_fl.core.secure.identity import Body, Identity, Signed, read
from llmchain_fl.core.secure.policy import Terms
from llmchain_fl.core.secure.shamir import SHARE, split
from llmchain_fl.core.secure.stream import add_stream
from llmchain_fl.core.secure.words import Words, check_words, low_bits, packed


@dataclass(frozen=True)
class Taken:
    """What a member has after it took its shares: owner -> two shares; the largest quorum and floor of all owners."""

    held: Mapping[str, str]
    quorum: int
    floor: int


@dataclass(frozen=True)
class Seat:
    """A member of a round, its keys, and under which directory and plan."""

    name: str
    run: str
    number: int
    identity: Identity
    secrets: Secrets
    directory: Directory
    context: str

    def give(self, terms: Terms) -> tuple[bytes, str]:
        """(one sealed and signed message for each neighbour, a line each; this member's own two shares)."""
        holders = self.directory.holders(self.name)
        points = {holder: self.directory.point(holder) for holder in holders}
        pairs = [
            split(secret, terms.threshold, list(points.values()))
            for secret in (self.secrets.self_seed, self.secrets.mask)
        ]
        plain = {
            holder: b"".join(shares[point].to_bytes(SHARE, "big") for shares in pairs)
            for holder, point in points.items()
        }
        messages = [self._sealed(other, plain[other], terms) for other in holders if other != self.name]
        return b"\n".join(messages), plain[self.name].hex()

    def take(self, messages: Sequence[bytes], shared: Sequence[str], listed: Mapping[str, str], own: Terms) -> Taken:
        """Open what the neighbours gave.

        Args:
            messages: one from each neighbour that gave shares, in any order.
            shared: everybody who gave shares.
            listed: identities by name.
            own: this member's terms.

        Raises:
            SecureSumError: twice, stranger, own-shares, few-peers, signature, round, one-directory, plan, share.
        """
        self._check_shared(shared, own)
        expected = set(shared) & set(self.directory.neighbours(self.name))
        held: dict[str, str] = {}
        quorum, floor = own.quorum, own.floor
        for message in messages:
            share = read(message, "share")
            owner = share.text("site")
            if owner not in expected:
                raise refuse("stranger", f"{owner!r} is no neighbour that gave shares")
            if owner in held:
                raise refuse("twice", f"two messages of {owner!r}")
            held[owner] = self._opened(share, listed[owner]).hex()
            quorum, floor = max(quorum, share.whole("quorum")), max(floor, share.whole("floor"))
        if set(held) != expected:
            raise refuse("share", f"those of {', '.join(map(repr, sorted(expected - set(held))))} are missing")
        return Taken(held, quorum, floor)

    def masked(self, words: Words, bits: int, shared: Sequence[str]) -> bytes:
        """y = words + PRG(self seed) + sum over neighbours j of sign(i, j) PRG(k_ij), modulo 2**bits, packed.

        Bonawitz et al. 2017, CCS, 4.1, with the neighbours of ``directory.py`` among those who gave shares. Without
        the self seed, or without the keys of the pairs with members that the server cannot open, y is uniform.

        Args:
            words: uint32 [d] below 2**bits; left as they are.
            bits: the modulus.
            shared: everybody who gave shares.

        Raises:
            SecureSumError: words.
        """
        check_words(words, bits)
        total = words.copy()
        add_stream(total, self.secrets.self_seed)
        for other in set(shared) & set(self.directory.neighbours(self.name)):
            public = self.directory.entries[other].mask
            key = mask_key(self.secrets.mask, public, self.directory.digest, self.name, other)
            add_stream(total, key, mask_sign(self.name, other))
        total &= low_bits(bits)
        return packed(total, bits)

    def _sealed(self, other: str, plain: bytes, terms: Terms) -> bytes:
        header: Body = {"run": self.run, "round": self.number, "site": self.name, "to": other}
        header |= {"directory": self.directory.digest, "context": self.context}
        header |= {"threshold": terms.threshold, "quorum": terms.quorum, "floor": terms.floor}
        sealed = seal(self.secrets.box, self.directory.entries[other].box, header, plain)
        return self.identity.signed("share", {**header, "sealed": sealed.hex()})

    def _check_shared(self, shared: Sequence[str], own: Terms) -> None:
        if len(set(shared)) < len(shared):
            raise refuse("twice", "a site stands twice among those who gave shares")
        if not set(shared) <= set(self.directory.names):
            raise refuse("stranger", "somebody who is not in the directory gave shares")
        if self.name not in shared:
            raise refuse("own-shares", f"{self.name!r} gave shares and is left out")
        near = len(set(shared) & set(self.directory.holders(self.name)))
        if len(shared) < own.floor or near < own.threshold:
            raise refuse("few-peers", f"{len(shared)} gave shares, {near} of them hold shares of {self.name!r}")

    def _opened(self, share: Signed, public: str) -> bytes:
        owner = share.text("site")
        share.check(public)
        if (share.text("run"), share.whole("round")) != (self.run, self.number):
            raise refuse("round", f"the share of {owner!r} is of another run or round")
        if share.text("directory") != self.directory.digest:
            raise refuse("one-directory", f"{owner!r} gave its share under another directory")
        if share.text("context") != self.context:
            raise refuse("plan", f"{owner!r} gave its share under another plan")
        if share.text("to") != self.name:
            raise refuse("share", f"that of {owner!r} is meant for somebody else")
        most = len(self.directory.names)
        if not all(0 < share.whole(name) <= most for name in ("threshold", "quorum", "floor")):
            raise refuse("share", f"that of {owner!r} asks for more members than there are")
        header = {name: value for name, value in share.body.items() if name != "sealed"}
        return unseal(self.secrets.box, self.directory.entries[owner].box, header, sealed_bytes(share.text("sealed")))
