"""What this site has spent, on its own disk: admit, reserve before training, seal before sending, resend equal bytes.

One round at a site::

    acknowledge(what the server echoed) -> admit(group, people) -> reserve(release) -> train -> seal(key, payload)
        -> send payload and receipt(), as often as needed

A crash before the seal lets the round be computed again under the same reservation, because nothing has left the
machine; after the seal never again: two different updates of one round would be two releases for the price of one.

Promised by :class:`FileLedger`: what is trained is on disk first; a crash at any point neither loses a reservation nor
charges one twice; nobody is in two groups; the limit is enforced before anything is written; an edited, cut, missing or
rolled-back log is refused (``book.py``, ``anchor.py``), and a backup restored over log and anchor together is refused
as soon as the server has handed back a newer receipt (``receipt.py``); processes of one machine may share it (lock).

NOT promised: nothing stops somebody who may write the folder and the anchor and read the site's key, and hides the
server's receipts: there is no signature of a third party. A disk that says "flushed" without doing it can lose what
it confirmed. POSIX and a local file system only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.errors import BudgetExhausted, PrivacyError
from llmchain_fl.privacy.accounting import Event, Spent, groups_epsilon, merge
from llmchain_fl.privacy.durable import content, remove, replace
from llmchain_fl.privacy.receipt import Receipt, mark, read_receipt, write_receipt
from llmchain_fl.privacy.register import admitted, hashed, read_members, write_members
from llmchain_fl.privacy.release import Charge, Release, Terms, by_group, check_texts
from llmchain_fl.privacy.site_key import derive
from llmchain_fl.privacy.store import Store

__all__ = ["KEPT_PAYLOADS", "Charge", "FileLedger", "Ledger", "NullLedger", "Release", "Terms", "renew_anchor"]

KEPT_PAYLOADS = 2
"""How many sealed updates stay on disk for a resend: the last ones, those not acknowledged first."""


class Ledger(Protocol):
    """What a site asks before it trains and tells before it sends.

    * ``admit``: for each of ``people``, whether that person may take part in ``group``; durable
    * ``reserve`` books a release durably, free when it is reserved and not sealed; raises BudgetExhausted
    * ``sealed`` gives the bytes sealed for ``key``, to be sent again; None when it is not sealed
    * ``seal`` fixes the only bytes that will ever be sent under ``key``
    * ``receipt`` is to travel with what was sealed last; ``acknowledge`` takes what the server echoes ("": nothing yet)
    * ``spent`` is everything reserved so far, sealed or not
    * ``would_spend`` is what ``spent`` would be after reserving ``charges`` under a new key
    """

    def admit(self, group: str, people: Sequence[str]) -> NDArray[np.bool_]: ...
    def reserve(self, release: Release) -> None: ...
    def sealed(self, key: str) -> bytes | None: ...
    def seal(self, key: str, payload: bytes) -> None: ...
    def receipt(self) -> str: ...
    def acknowledge(self, receipt: str) -> None: ...
    def key_for(self, purpose: str) -> bytes: ...
    def spent(self) -> Spent: ...
    def would_spend(self, charges: Sequence[Charge]) -> Spent: ...


class NullLedger:
    """For runs without noise: records nothing, admits that epsilon is infinite, refuses a private release."""

    def admit(self, group: str, people: Sequence[str]) -> NDArray[np.bool_]:
        """Everybody may take part in everything."""
        return np.ones(len(people), dtype=np.bool_)

    def reserve(self, release: Release) -> None:
        """Accept only a release without noise."""
        noise = max(charge.event.noise_multiplier for charge in release.charges)
        if noise > 0:
            raise PrivacyError(
                f"a release with noise multiplier {noise:g} would not be recorded",
                remedy="use a FileLedger for a private run",
            )

    def sealed(self, key: str) -> bytes | None:
        """Nothing is kept: a round without noise may be trained again."""

    def seal(self, key: str, payload: bytes) -> None:
        """Nothing is kept."""

    def receipt(self) -> str:
        """There is nothing to roll back."""
        return ""

    def acknowledge(self, receipt: str) -> None:
        """Whatever comes back, it was not ours."""

    def key_for(self, purpose: str) -> bytes:
        """No secret: a run without noise is repeatable, and whoever knows its settings knows its draws."""
        return hashlib.sha256(purpose.encode()).digest()

    def spent(self) -> Spent:
        """Infinite: without noise there is no finite epsilon at any delta."""
        return Spent(math.inf, 0.0, "none", "none", ())

    def would_spend(self, charges: Sequence[Charge]) -> Spent:
        """Infinite as well."""
        return self.spent()


class FileLedger:
    """A ledger in a folder (``store.py``), made when missing: one for each data set, for all its runs and federations.

    ============================================  ========================================================
    case                                          result
    ============================================  ========================================================
    same release again, not sealed                free
    same key with anything else different         :class:`PrivacyError`
    reserving a sealed key                        :class:`PrivacyError`: send ``sealed(key)`` again
    epsilon would pass the limit                  :class:`BudgetExhausted`, the log is unchanged
    sealing twice                                 free with the same bytes, otherwise :class:`PrivacyError`
    ``sealed`` of a key whose bytes are gone      :class:`PrivacyError`, never None: it must not be retrained
    acknowledging twice, or "nothing yet"         free
    a receipt of a later or of another history    :class:`PrivacyError`: rolled back
    a receipt that cannot be read                 :class:`PrivacyError`: the folder was replaced
    torn last line, not anchored                  dropped: its call had not returned
    another unit, data set or adjacency           :class:`PrivacyError` on every call
    anything missing, damaged or rolled back      :class:`PrivacyError` on every call
    ============================================  ========================================================

    Args:
        path: the folder.
        anchor: file for the anchor, outside the folder, best on another disk or under another backup.
        terms: whose budget, how it is counted, and its limit.
    """

    def __init__(self, path: Path, anchor: Path, terms: Terms) -> None:
        self._store, self._terms = Store(path, anchor, terms), terms
        self._store.make()

    def admit(self, group: str, people: Sequence[str]) -> NDArray[np.bool_]:
        """Register who is new under ``group``, durably; True for those who belong to it (``register.py``)."""
        check_texts({"group": group})
        with self._store.opened() as book:
            groups = read_members(self._store.members, book.members)
            may, new = admitted(groups, group, hashed(self._store.secret(), people))
            if new:
                digest = write_members(self._store.members, new, book.members)
                self._store.append(book, "admit", group=group, members=digest)
            return np.array(may, dtype=np.bool_)

    def reserve(self, release: Release) -> None:
        """Book ``release`` on disk before anything is trained; see the table of the class."""
        with self._store.opened() as book:
            if release.key in book.seals:
                raise PrivacyError(f"{release.key!r} is sealed", remedy="send the sealed update, do not train again")
            if release.key not in book.reserved:
                self._afford([*book.charges, *release.charges])
                self._store.append(book, "reserve", **release.to_dict())
            elif book.reserved[release.key] != release:
                raise PrivacyError(f"{release.key!r} is reserved for something else", remedy="keep one plan a round")

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
                kept = {self._file(name) for name in book.newest(KEPT_PAYLOADS)}
                for file in set(self._store.sealed.iterdir()) - kept:
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
        return self.would_spend(())

    def would_spend(self, charges: Sequence[Charge]) -> Spent:
        """The total with ``charges`` on top, whether or not the limit allows it. Writes no entry."""
        with self._store.opened() as book:
            groups = by_group([*book.charges, *charges])
        merged = tuple((group, merge(events)) for group, events in sorted(groups.items()))
        return Spent(self._epsilon(groups), self._terms.delta, self._terms.unit, self._terms.accountant, merged)

    def _epsilon(self, groups: Mapping[str, Sequence[Event]]) -> float:
        return groups_epsilon(groups, self._terms.delta, self._terms.accountant)

    def _afford(self, charges: Sequence[Charge]) -> None:
        terms = self._terms
        total = 0.0 if terms.epsilon_limit == math.inf else self._epsilon(by_group(charges))
        if total > terms.epsilon_limit:
            raise BudgetExhausted(
                f"the next release would bring epsilon to {total:.4g}, the site's limit is {terms.epsilon_limit:.4g} "
                f"(delta {terms.delta:g}, unit {terms.unit}, accountant {terms.accountant})",
                remedy="nothing was spent on it; stop here, or let the data holder decide on a higher limit",
            )

    def _file(self, key: str) -> Path:
        return self._store.sealed / f"{mark(key)}.bin"


def renew_anchor(path: Path, anchor: Path, terms: Terms) -> None:
    """Make a new anchor for a ledger whose anchor is gone or damaged: the data holder vouches that it is the latest.

    The log's chain, data set, unit and key are verified, and an ``anchor-renewed`` line tells for ever what was done.
    A good anchor is left alone, and a ledger that does not contain what a good anchor names stays refused.

    Raises:
        PrivacyError: the log is gone, damaged, rolled back or of another data set.
    """
    Store(path, anchor, terms).renew_anchor()
