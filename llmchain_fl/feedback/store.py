"""The feedback store of one site: what was told, who agreed, who has taken it back, and which editions were frozen.

Everything that belongs together is one transaction; a file that follows from the store (an edition) is marked as not
written first and written after, so that whatever breaks off is made good by the next one who opens the store
(:meth:`Store.settle`). ``(tenant, person)`` is whose a record is: no tenant can agree, or take back, for another's.

===========================================  ==============================================================
case                                         result
===========================================  ==============================================================
the same feedback again                      kept once
other feedback on the same answer            refused: the first one holds
a person has ``per_day`` rows of this day    refused
no consent to ``train``                      kept for its person, never in an edition
a person takes consent to ``train`` back     every row is deleted, frozen editions are written without them
an edition of this name exists               it is written anew from the same rows
===========================================  ==============================================================
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llmchain_fl.feedback.record import ACCEPTED, DOWN, PENDING, REJECTED, UP, Record, Told
from llmchain_fl.feedback.schema import open_file

TRAIN, MONITOR = "train", "monitor"
SCOPES = (TRAIN, MONITOR)
DAY = 86_400.0
_COLUMNS = "tenant, person, model, adapter, task, request, input, output, kind, correction, at"


class Full(Exception):
    """A person has left as many rows as a day may have."""


class Already(Exception):
    """There is other feedback on this answer."""


class Store:
    """One file. Safe from several threads and processes; open it with a path."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.RLock()
        self._made = open_file(path)
        self.key = bytes(self._made.execute("SELECT value FROM meta WHERE name = 'key'").fetchone()[0])

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            self._made.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it, or nothing."""
        with self._lock:
            self._made.execute("BEGIN IMMEDIATE")
            try:
                yield self._made
                self._made.execute("COMMIT")
            except BaseException:
                self._made.execute("ROLLBACK")
                raise

    def add(self, entry: Told, per_day: int) -> bool:
        """Keep what somebody said; False: the same was kept already.

        Raises:
            Full, Already: see the table of this file.
        """
        answer = hashlib.sha256(f"{len(entry.input)}\n{entry.input}{entry.output}".encode("utf-8", "surrogatepass"))
        same = (entry.tenant, entry.request, answer.hexdigest())
        with self.writing() as made:
            query = "SELECT person, kind, correction FROM rows WHERE tenant = ? AND request = ? AND answer = ?"
            there = made.execute(query, same).fetchone()
            if there is not None:
                if there != (entry.person, entry.kind, entry.correction):
                    raise Already
                return False
            since = entry.at - entry.at % DAY
            of_day = "SELECT COUNT(*) FROM rows WHERE tenant = ? AND person = ? AND at >= ? AND at < ?"
            if made.execute(of_day, (entry.tenant, entry.person, since, since + DAY)).fetchone()[0] >= per_day:
                raise Full
            marks = ", ".join("?" * 13)
            made.execute(
                f"INSERT INTO rows ({_COLUMNS}, state, answer) VALUES ({marks})",
                (*(getattr(entry, name) for name in _COLUMNS.split(", ")), PENDING, answer.hexdigest()),
            )
        return True

    def records(self, where: str = "1", values: Sequence[object] = ()) -> list[Record]:
        """Those that fit a condition of this package, in the order of ids."""
        query = f"SELECT id, state, edition, {_COLUMNS} FROM rows WHERE {where} ORDER BY id"
        with self._lock:
            rows = self._made.execute(query, tuple(values)).fetchall()
        return [Record(number, Told(*fields), state, edition) for number, state, edition, *fields in rows]

    def persons(self, task: str, model: str) -> list[tuple[str, str]]:
        """(tenant, person) of records of this task and model name who agree to training, sorted."""
        query = (
            "SELECT DISTINCT r.tenant, r.person FROM rows r JOIN consents c "
            "ON c.tenant = r.tenant AND c.person = r.person AND c.scope = ? "
            "WHERE r.task = ? AND (r.model = ? OR r.model LIKE ? ESCAPE '\\') ORDER BY 1, 2"
        )
        with self._lock:
            return list(self._made.execute(query, (TRAIN, task, model, f"{_escaped(model)}@%")))

    def agree(self, tenant: str, person: str, scope: str, version: str, at: float) -> None:
        """A person has agreed; an earlier withdrawal ends."""
        with self.writing() as made:
            made.execute("INSERT OR REPLACE INTO consents VALUES (?, ?, ?, ?, ?)", (tenant, person, scope, version, at))
            if scope == TRAIN:
                made.execute("DELETE FROM tombstones WHERE mark = ?", (self.mark(tenant, person),))

    def agrees(self, tenant: str, person: str, scope: str) -> bool:
        """Whether a person has agreed to ``scope`` and not taken it back."""
        query = "SELECT COUNT(*) FROM consents WHERE tenant = ? AND person = ? AND scope = ?"
        return bool(self._one(query, (tenant, person, scope)))

    def withdraw(self, tenant: str, person: str, scope: str, at: float) -> int:
        """A person takes consent back; rows deleted. With ``train`` a keyed mark stays, which imports look at."""
        with self.writing() as made:
            made.execute(
                "DELETE FROM consents WHERE tenant = ? AND person = ? AND (scope = ? OR ? = ?)",
                (tenant, person, scope, scope, TRAIN),
            )
            if scope != TRAIN:
                return 0
            made.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?)", (self.mark(tenant, person), at))
            made.execute(
                "UPDATE editions SET written = 0 WHERE number IN "
                "(SELECT edition FROM rows WHERE tenant = ? AND person = ? AND edition > 0)",
                (tenant, person),
            )
            deleted = made.execute("DELETE FROM rows WHERE tenant = ? AND person = ?", (tenant, person)).rowcount
        with self._lock:
            self._made.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(deleted)

    def mark(self, tenant: str, person: str) -> str:
        """Of somebody who has taken consent back: says nothing without the store's key."""
        return hmac.new(self.key, f"{len(tenant)}\n{tenant}{person}".encode(), hashlib.sha256).hexdigest()

    def withdrawn(self, tenant: str, person: str) -> bool:
        """Whether a person has taken consent back."""
        return bool(self._one("SELECT COUNT(*) FROM tombstones WHERE mark = ?", (self.mark(tenant, person),)))

    def decide(self, number: int, accepted: bool, input: str | None = None, correction: str | None = None) -> bool:
        """A reviewer's word on one record, with other texts where something was struck out; False: none, or frozen."""
        state = ACCEPTED if accepted else REJECTED
        with self.writing() as made:
            done = made.execute(
                "UPDATE rows SET state = ?, input = COALESCE(?, input), correction = COALESCE(?, correction) "
                "WHERE id = ? AND edition = 0",
                (state, input, correction, number),
            )
            return done.rowcount == 1

    def votes(self) -> list[tuple[str, str, int, int]]:
        """(day, model, ups, downs) of persons who agree to ``monitor``, for this site's own monitor."""
        query = (
            "SELECT date(r.at, 'unixepoch'), r.model, SUM(r.kind = ?), SUM(r.kind = ?) FROM rows r JOIN consents c "
            "ON c.tenant = r.tenant AND c.person = r.person AND c.scope = ? GROUP BY 1, 2 ORDER BY 1, 2"
        )
        with self._lock:
            return list(self._made.execute(query, (UP, DOWN, MONITOR)))

    def _one(self, query: str, values: Sequence[object] = ()) -> object:
        with self._lock:
            row = self._made.execute(query, tuple(values)).fetchone()
        return row[0] if row else None


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
