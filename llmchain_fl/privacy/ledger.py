"""What this site has spent, on its own disk: reserve before training, seal before sending, resend identical bytes.

``reserve(key)`` -> train -> ``seal(key, payload)`` -> send, as often as needed. A crash before the seal lets the round
be computed again under the same reservation, because nothing has left the machine; after the seal never again: two
different updates of one round would be two releases for the price of one.

Promised by :class:`FileLedger`: what is trained is on disk first; a crash at any point neither loses a reservation nor
charges one twice; the limit is enforced before anything is written; processes of one machine may share it (lock file).
NOT yet promised: no hash chain (an edited line that still reads well is believed), no detection of a deleted or
rolled-back directory, no signature. POSIX only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.errors import BudgetExhausted, PrivacyError
from llmchain_fl.privacy.accounting import ACCOUNTANTS, Event, Spent, epsilon
from llmchain_fl.privacy.durable import append, disk_errors, locked, sync
from llmchain_fl.privacy.plan import UNITS

KEPT_PAYLOADS = 2
"""How many sealed updates stay on disk for a resend: the last ones sealed."""


class Ledger(Protocol):
    """What a site asks before it trains and tells before it sends. ``key`` names one round of one run.

    * ``reserve`` books ``event`` durably, free for a key that is reserved and not sealed; raises BudgetExhausted
    * ``sealed`` gives the bytes sealed for ``key``, to be sent again; None when it is not sealed
    * ``seal`` fixes the only update that ``key`` will ever send
    * ``spent`` is everything reserved so far, sealed or not
    * ``would_spend`` is what ``spent`` would be after reserving ``event`` under a new key
    """

    def reserve(self, key: str, event: Event, plan_digest: str) -> None: ...
    def sealed(self, key: str) -> bytes | None: ...
    def seal(self, key: str, payload: bytes) -> None: ...
    def spent(self) -> Spent: ...
    def would_spend(self, event: Event) -> Spent: ...


class NullLedger:
    """For runs without noise: records nothing, admits that epsilon is infinite, refuses a private event."""

    def reserve(self, key: str, event: Event, plan_digest: str) -> None:
        """Accept only an event without noise."""
        if event.noise_multiplier > 0:
            raise PrivacyError(
                f"a release with noise multiplier {event.noise_multiplier:g} would not be recorded",
                remedy="use a FileLedger for a private run",
            )

    def sealed(self, key: str) -> bytes | None:
        """Nothing is kept: a round without noise may be trained again."""

    def seal(self, key: str, payload: bytes) -> None:
        """Nothing is kept."""

    def spent(self) -> Spent:
        """Infinite: without noise there is no finite epsilon at any delta."""
        return Spent(math.inf, 0.0, "record", "none", ())

    def would_spend(self, event: Event) -> Spent:
        """Infinite as well."""
        return self.spent()


@dataclass
class _Book:
    """The readable content of ``events.jsonl``; ``size`` bytes of it are good, ``lead`` ends an unended line."""

    reserved: dict[str, tuple[Event, str]] = field(default_factory=dict)
    seals: dict[str, str] = field(default_factory=dict)
    size: int = 0
    lead: bytes = b""

    def add(self, line: bytes, unit: str) -> None:
        """Replay one line. Raises ValueError, KeyError, TypeError or PrivacyError for one that makes no sense."""
        entry = json.loads(line)
        key = entry["key"]
        if entry["type"] == "reserve" and key not in self.reserved:
            if entry["unit"] != unit:
                raise PrivacyError(f"it counts by {entry['unit']!r}, not {unit!r}", remedy="one unit per ledger")
            self.reserved[key] = (Event(**entry["event"]), entry["plan"])
        elif entry["type"] == "seal" and key in self.reserved and key not in self.seals:
            self.seals[key] = entry["sha256"]
        else:
            raise ValueError("out of order")

    def events(self) -> tuple[Event, ...]:
        return tuple(event for event, _ in self.reserved.values())


class FileLedger:
    """A ledger in a directory: append-only ``events.jsonl``, and ``sealed/<sha256 of key>.bin``.

    ============================================  ========================================================
    case                                          result
    ============================================  ========================================================
    same key again, not sealed                    free
    same key with another event or plan           :class:`PrivacyError`
    reserving a sealed key                        :class:`PrivacyError`: send ``sealed(key)`` again
    epsilon would pass the limit                  :class:`BudgetExhausted`, the file is unchanged
    sealing twice                                 free with the same bytes, otherwise :class:`PrivacyError`
    ``sealed`` of a key whose bytes are gone      :class:`PrivacyError`, never None: it must not be retrained
    torn last line (no line end)                  dropped when it is not whole: its call had not returned
    any other unreadable line, another unit       :class:`PrivacyError` on every call
    ============================================  ========================================================

    Args:
        path: directory, made when missing. One per data set, not per run: budgets do not reset with a run.
        delta: at which epsilon is stated and limited.
        unit: privacy unit, one of plan.UNITS.
        accountant: one of accounting.ACCOUNTANTS.
        epsilon_limit: never passed; ``math.inf`` only records.
    """

    def __init__(self, path: Path, delta: float, unit: str, accountant: str, epsilon_limit: float) -> None:
        if not 0 < delta < 1 or unit not in UNITS or accountant not in ACCOUNTANTS or not epsilon_limit >= 0:
            raise PrivacyError(
                f"no such ledger: delta={delta!r}, unit={unit!r}, accountant={accountant!r}, limit={epsilon_limit!r}",
                remedy=f"0 < delta < 1, unit in {sorted(UNITS)}, accountant in {sorted(ACCOUNTANTS)}, limit >= 0",
            )
        self._delta, self._unit, self._accountant, self._limit = delta, unit, accountant, epsilon_limit
        self._path, self._log, self._sealed = path, path / "events.jsonl", path / "sealed"
        with disk_errors():
            self._sealed.mkdir(parents=True, exist_ok=True)
            sync(path)
            sync(path.parent)
        self.spent()

    def reserve(self, key: str, event: Event, plan_digest: str) -> None:
        """Book ``event`` under ``key`` on disk before anything is trained; see the table of the class."""
        with self._locked():
            book = self._read()
            if key in book.seals:
                raise PrivacyError(f"round {key!r} is sealed", remedy="send the sealed update, do not train again")
            if key in book.reserved:
                if book.reserved[key] != (event, plan_digest):
                    raise PrivacyError(f"round {key!r} is reserved under another plan", remedy="keep one plan a round")
                sync(self._log)
                return
            self._afford(book, event)
            line = _line(type="reserve", key=key, unit=self._unit, plan=plan_digest, event=asdict(event))
            append(self._log, book.size, book.lead + line)

    def sealed(self, key: str) -> bytes | None:
        """The update sealed for ``key``, byte for byte; None when nothing was sealed for it."""
        with self._locked():
            book = self._read()
            if key not in book.seals:
                return None
            sync(self._log)
            payload = self._file(key).read_bytes() if self._file(key).exists() else None
            if payload is None or hashlib.sha256(payload).hexdigest() != book.seals[key]:
                raise PrivacyError(
                    f"round {key!r} was sealed, but its bytes are not here any more",
                    remedy=f"go on with a newer round; only the last {KEPT_PAYLOADS} are kept, and none is made twice",
                )
            return payload

    def seal(self, key: str, payload: bytes) -> None:
        """Write ``payload`` as the only update of ``key``; returns when both it and its seal are on disk."""
        with self._locked():
            book, digest = self._read(), hashlib.sha256(payload).hexdigest()
            if key not in book.reserved:
                raise PrivacyError(f"round {key!r} was never reserved", remedy="reserve before training")
            if book.seals.get(key, digest) != digest:
                raise PrivacyError(f"round {key!r} is sealed with other bytes", remedy="send the sealed update")
            if key in book.seals:
                sync(self._log)
                return
            atomic_write(self._file(key), payload)
            append(self._log, book.size, book.lead + _line(type="seal", key=key, sha256=digest))
            kept = [self._file(name) for name in [*book.seals, key][-KEPT_PAYLOADS:]]
            for file in set(self._sealed.iterdir()) - set(kept):
                file.unlink()

    def spent(self) -> Spent:
        """Everything on disk, composed."""
        with self._locked():
            return self._spent(self._read().events())

    def would_spend(self, event: Event) -> Spent:
        """The total with ``event`` on top, whether or not the limit allows it. Writes nothing."""
        with self._locked():
            return self._spent((*self._read().events(), event))

    def _spent(self, events: Sequence[Event]) -> Spent:
        total = epsilon(events, self._delta, self._accountant)
        return Spent(total, self._delta, self._unit, self._accountant, tuple(events))

    def _afford(self, book: _Book, event: Event) -> None:
        total = self._spent((*book.events(), event)).epsilon
        if total > self._limit:
            raise BudgetExhausted(
                f"the next round would bring epsilon to {total:.4g}, the site's limit is {self._limit:.4g} "
                f"(delta {self._delta:g}, unit {self._unit}, accountant {self._accountant})",
                remedy="nothing was spent on it; stop here, or let the data holder decide on a higher limit",
            )

    def _read(self) -> _Book:
        book, data = _Book(), self._log.read_bytes() if self._log.exists() else b""
        lines, book.size = data.split(b"\n"), len(data)
        if _is_json(lines[-1]):
            book.lead = b"\n"
        else:
            book.size -= len(lines.pop())
        for number, line in enumerate(lines, start=1):
            try:
                book.add(line, self._unit)
            except (ValueError, KeyError, TypeError, PrivacyError) as fault:
                raise PrivacyError(
                    f"line {number} of {self._log} cannot be trusted: {type(fault).__name__}",
                    remedy="restore the ledger from where it was kept; never delete lines, they are spent budget",
                ) from fault
        return book

    def _file(self, key: str) -> Path:
        return self._sealed / f"{hashlib.sha256(key.encode()).hexdigest()}.bin"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with disk_errors(), locked(self._path / "lock"):
            yield


def _line(**entry: object) -> bytes:
    return json.dumps(entry, sort_keys=True, allow_nan=False).encode() + b"\n"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
