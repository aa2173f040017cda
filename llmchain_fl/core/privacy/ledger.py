"""What this site has spent, on its own disk: reserve before training, seal before sending, resend equal bytes.

One ledger, one register of people and one key for a site, over all its data sets, runs and federations. One round::

    acknowledge(what the server echoed) -> reserve(release, people) -> train who may take part -> seal(key, payload)
        -> send payload and receipt(), as often as needed

A crash before the seal lets the round be computed again under the same reservation, because nothing has left the
machine; after the seal never again: two different updates of one round would be two releases for the price of one.

Promised by :class:`FileLedger`: what is trained is on disk first; a crash at any point neither loses a reservation nor
charges one twice; who takes part is registered by the very line that pays for the round, so a refused round registers
nobody; each person pays what all groups of that person pay (``totals.py``); the limit is enforced before anything is
written, and whether a release is refused depends on what was released alone, not on who is registered; an edited, cut,
missing or rolled-back log is refused (``book.py``, ``anchor.py``); processes of one machine may share it (lock). A
backup restored over log and anchor together, or a copy of the folder that went on elsewhere, is refused as soon as the
server hands back a receipt of what it lacks (``receipt.py``): of two copies that both went on, each is refused when it
meets a receipt of the other.

NOT promised, because nothing at the site can find it:

* a folder deleted together with its anchor, under a server that echoes no receipt, is a fresh budget;
* a copy that never meets a receipt of the other (two servers, or one that hides it) is a second budget;
* somebody who may write the folder and the anchor and read the key can write another past: no third party signs;
* a person whose name is written in two ways, or differs between data sets, is two persons;
* a disk that says "flushed" without doing it can lose what it confirmed. POSIX and a local file system only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accounting import Spent
from llmchain_fl.core.privacy.book import Book
from llmchain_fl.core.privacy.durable import content, remove, replace
from llmchain_fl.core.privacy.entry import Door, Moves
from llmchain_fl.core.privacy.groups import check_group
from llmchain_fl.core.privacy.receipt import Receipt, mark, read_receipt, write_receipt
from llmchain_fl.core.privacy.register import hashed
from llmchain_fl.core.privacy.release import Mask, Part, Release, Terms
from llmchain_fl.core.privacy.site_key import derive
from llmchain_fl.core.privacy.store import Store
from llmchain_fl.core.privacy.totals import Totals

KEPT_PAYLOADS = 2
"""How many sealed updates stay on disk for a resend: the last ones, those not acknowledged first."""


class Account(NamedTuple):
    """The ledger has ``seq`` lines, the last one with the hash ``head``, and has spent so much."""

    seq: int
    head: str
    spent: Spent


class FileLedger:
    """A ledger in a folder (``store.py``), made when missing: one for each site, for all that it will ever release.

    ============================================  ========================================================
    case                                          result
    ============================================  ========================================================
    same release again, not sealed                free
    same key with anything else different         :class:`PrivacyError`
    reserving a sealed key                        :class:`PrivacyError`: send ``sealed(key)`` again
    epsilon would pass the limit                  :class:`BudgetExhausted`: nobody is registered, nothing written
    ... only of those who are in several groups   they are left out, the release is made
    somebody of a group that excludes this one    left out (``groups.py``)
    people under a group that does not pay        :class:`PrivacyError`
    sealing twice                                 free with the same bytes, otherwise :class:`PrivacyError`
    ``sealed`` of a key whose bytes are gone      :class:`PrivacyError`, never None: it must not be retrained
    acknowledging twice, or "nothing yet"         free
    a receipt of a later or of another history    :class:`PrivacyError`: rolled back
    a receipt that cannot be read                 :class:`PrivacyError`: the folder was replaced
    torn last line, not anchored                  dropped: its call had not returned
    another unit, site or adjacency               :class:`PrivacyError` on every call
    the ledger of an earlier format               :class:`PrivacyError` with a remedy
    anything missing, damaged or rolled back      :class:`PrivacyError` on every call
    ============================================  ========================================================

    ``anchor``: a file outside the folder, best on another disk or under another backup.
    """

    def __init__(self, path: Path, anchor: Path, terms: Terms) -> None:
        self._store, self._terms = Store(path, anchor, terms), terms
        self._store.make()

    def afford(self, release: Release) -> None:
        """Whether :meth:`reserve` would take ``release``; writes nothing.

        Raises:
            BudgetExhausted: by what was released so far alone, whoever is registered.
            PrivacyError: the key is sealed, or reserved for something else.
        """
        with self._store.opened() as book:
            self._affordable(book, release)

    def reserve(self, release: Release, people: Sequence[Part] = ()) -> list[Mask]:
        """Book ``release`` and who joins by it, in one line, before anything is trained; see the table of the class.

        Returns for each part who of its people may take part, in their order (``entry.py``); who is named in several
        is let into the first that does not exclude another.
        """
        charged = tuple(dict.fromkeys(charge.group for charge in release.charges))
        if not {group for group, _ in people} <= set(charged):
            raise PrivacyError(
                f"people of a group that does not pay for {release.key!r}", remedy="charge every group that takes part"
            )
        with self._store.opened() as book:
            totals = self._affordable(book, release)
            known, line = release.key in book.reserved, book.next
            secret = self._store.secret()
            parts = [(group, hashed(secret, names)) for group, names in people]
            door = Door(totals.fits, charged, 0 if known else line)
            moves, may = door.decide(self._store.register.people(book.members), parts)
            if known and moves.joined:
                self._store.append(book, "admit", key=release.key, **self._files(book, moves, "members"))
            elif not known:
                self._store.append(book, "reserve", **release.to_dict(), **self._files(book, moves, "members", "left"))
            return [np.array(part, dtype=np.bool_) for part in may]

    def sealed(self, key: str) -> bytes | None:
        """The update sealed for ``key``, byte for byte; None when nothing was sealed for it."""
        with self._store.opened() as book:
            if key not in book.seals:
                return None
            payload = content(self._file(key))
            if payload is None or hashlib.sha256(payload).hexdigest() != book.seals[key]:
                raise PrivacyError(
                    f"{key!r} was sealed, but its bytes are not here any more",
                    remedy=f"go on with a newer round; only the last {KEPT_PAYLOADS} are kept, and none is made twice",
                )
            return payload

    def seal_of(self, key: str) -> str:
        """Hex SHA-256 of what was sealed for ``key``, whether or not the bytes are kept; "" when nothing was."""
        with self._store.opened() as book:
            return book.seals.get(key, "")

    def latest(self, run: str) -> int:
        """The newest round of ``run`` that was reserved here; 0 for none."""
        with self._store.opened() as book:
            return book.latest(run)

    def seal(self, key: str, payload: bytes) -> None:
        """Write ``payload`` as the only update of ``key``; returns when both it and its seal are on disk."""
        with self._store.opened() as book:
            digest = hashlib.sha256(payload).hexdigest()
            if key not in book.reserved:
                raise PrivacyError(f"{key!r} was never reserved", remedy="reserve before training")
            if book.seals.get(key, digest) != digest:
                raise PrivacyError(f"{key!r} is sealed with other bytes", remedy="send the sealed update")
            if key not in book.seals:
                replace(self._file(key), payload)
                self._store.append(book, "seal", key=key, sha256=digest)
                newest = {self._file(name) for name in book.newest(KEPT_PAYLOADS)}
                for file in set(self._store.sealed.iterdir()) - newest:
                    remove(file)

    def receipt(self) -> str:
        """A note of the present state that only this site can read; take it after the seal it is to travel with."""
        with self._store.opened() as book:
            last = next(reversed(book.seals), "")
            return write_receipt(self._store.secret(), Receipt(len(book.hashes), book.head, mark(last)))

    def acknowledge(self, receipt: str) -> None:
        """Take back what :meth:`receipt` gave: it must lie in this ledger's past."""
        if not receipt:
            return
        with self._store.opened() as book:
            known = read_receipt(self._store.secret(), receipt)
            if not book.holds(known.seq, known.head):
                raise PrivacyError(
                    "the ledger was rolled back: the server has seen a later state of it",
                    remedy="put back the latest state folder and anchor; if they are lost, these records are spent",
                )
            for key in book.seals.keys() - book.acks:
                if mark(key) == known.sealed:
                    self._store.append(book, "ack", key=key)

    def key_for(self, purpose: str) -> bytes:
        """32 secret bytes for one purpose of this site, the same for ever; they never leave it."""
        with self._store.opened():
            return derive(self._store.secret(), purpose)

    def spent(self) -> Spent:
        """Everything on disk, composed."""
        with self._store.opened() as book:
            return self._account(book).spent

    def account(self, known: str = "") -> Account | None:
        """How the ledger stands; None where its head is still ``known``: nothing is composed then."""
        with self._store.opened() as book:
            return None if book.head == known else self._account(book)

    def _account(self, book: Book) -> Account:
        people = set(self._store.register.people(book.members).values())
        return Account(len(book.hashes), book.head, Totals(self._terms, book.paid).spent(people))

    def _affordable(self, book: Book, release: Release) -> Totals:
        """What was paid with ``release`` on top; see :meth:`afford`."""
        if release.key in book.seals:
            raise PrivacyError(f"{release.key!r} is sealed", remedy="send the sealed update, do not train again")
        if book.reserved.get(release.key, release) != release:
            raise PrivacyError(f"{release.key!r} is reserved for something else", remedy="keep one plan a round")
        for charge in release.charges:
            check_group(charge.group)
        new = () if release.key in book.reserved else release.charges
        totals = Totals(self._terms, book.paid, new, book.next)
        totals.afford()
        return totals

    def _files(self, book: Book, moves: Moves, *kinds: str) -> dict[str, dict[str, str]]:
        """Who moves, as files on the disk: kind -> group -> digest."""
        named = {"members": moves.joined, "left": moves.left}
        people = [(kind, group, hashes) for kind in kinds for group, hashes in named[kind].items()]
        digests = self._store.register.write([hashes for *_, hashes in people], book.members) if people else []
        files: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
        for (kind, group, _), digest in zip(people, digests, strict=True):
            files[kind][group] = digest
        return files

    def _file(self, key: str) -> Path:
        return self._store.sealed / f"{mark(key)}.bin"
