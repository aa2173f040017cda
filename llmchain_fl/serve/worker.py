"""The one thread that owns the model: a bounded queue in front of it, batches as they come, drained at the end.

While a pass runs others wait, and those of one kind go through together in the next one: no window of time is waited
for. The kind whose oldest row waits longest comes first; groups of prompts take a step in between.

==========================================  ==============================================================
case                                        result
==========================================  ==============================================================
``most`` rows wait already                  :class:`Busy`, before anything is kept
one tenant has its share of the queue       :class:`Busy` for this tenant alone
a deadline passes while a row waits         :class:`Late`; the row is never computed
whoever asked is gone                       the row is never computed, a text is not written on
the server drains                           :class:`Draining` for new rows; those that wait are answered
a pass fails                                its rows fail, the thread lives on
==========================================  ==============================================================
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence

from llmchain_fl.serve.decoder import FAILED, Decoder, Group, Piece, Prompt
from llmchain_fl.serve.encoder import Encoder, Row
from llmchain_fl.serve.engine import Engine
from llmchain_fl.serve.tickets import Busy, Draining, Failed, Refused, Result, Ticket, Waiting

log = logging.getLogger("llmchain_fl.serve")
IDLE_S = 0.5


class Worker:
    """Runs an engine until it is drained.

    Args:
        open_engine: loads the model, on the thread that will own it.
        most: rows that may wait.
        share: part of them that one tenant may have.
        seen: is told the rows of each pass.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        most: int,
        share: float,
        seen: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._open, self._most, self._share, self._seen = open_engine, most, max(1, int(most * share)), seen
        self._new: deque[Ticket] = deque()
        self._held: Counter[str] = Counter()
        self._condition, self._draining = threading.Condition(), False
        self._rows, self._prompts, self._groups = Waiting(), Waiting(), list[Group]()
        self.engine: Engine | None = None
        self.fault: Exception | None = None
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin to load; ``ready`` is set when that has ended, well or with ``fault``."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait or are computed."""
        return self._held.total()

    @property
    def takes(self) -> bool:
        """Whether new rows are taken."""
        return self.engine is not None and not self._draining

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Take the rows of one request, all of them or none.

        Raises:
            Busy, Draining: none is taken.
        """
        with self._condition:
            if self._draining:
                raise Draining
            tenant, count = tickets[0].tenant, len(tickets)
            if self._held.total() + count > self._most or self._held[tenant] + count > self._share:
                raise Busy
            self._held[tenant] += count
            self._new.extend(tickets)
            self._condition.notify()

    def drain(self, patience: float) -> bool:
        """Take nothing new, answer what waits. Whether that was done within ``patience`` seconds."""
        with self._condition:
            self._draining = True
            self._condition.notify()
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.engine = self._open()
        except Exception as error:
            self.fault = error
        self.ready.set()
        while self.engine is not None and self._take_new():
            for ticket in self._arrived():
                self._put(self.engine, ticket)
            if self.engine.encoder is not None:
                self._vectors(self.engine.encoder)
            if self.engine.decoder is not None:
                self._write(self.engine.decoder)

    def _take_new(self) -> bool:
        """Wait until there is something to do; False: drained."""
        with self._condition:
            while not (self._new or self._rows or self._prompts or self._groups):
                if self._draining:
                    return False
                self._condition.wait(IDLE_S)
        return True

    def _arrived(self) -> list[Ticket]:
        with self._condition:
            new = list(self._new)
            self._new.clear()
        return new

    def _put(self, engine: Engine, ticket: Ticket) -> None:
        """Tokenize a row and put it to those of its kind."""
        try:
            row = ticket.row = ticket.make()
            if isinstance(row, Prompt) and engine.decoder is not None:
                row.told, row.unwanted = functools.partial(self._done, ticket), ticket.unwanted
                self._prompts.add(engine.decoder.kind(row), ticket)
            elif isinstance(row, Row) and engine.encoder is not None:
                self._rows.add(engine.encoder.kind(row), ticket)
            else:
                self._done(ticket, Failed())
        except Exception as error:
            self._failed([ticket], error)

    def _vectors(self, encoder: Encoder) -> None:
        tickets = self._next(self._rows, encoder.room)
        rows = [ticket.row for ticket in tickets if isinstance(ticket.row, Row)]
        if not rows:
            return
        try:
            found = encoder.vectors(rows)
        except Exception as error:
            self._failed(tickets, error)
            return
        self._seen(len(tickets))
        for ticket, vector in zip(tickets, found, strict=True):
            self._done(ticket, vector)

    def _write(self, decoder: Decoder) -> None:
        tickets = self._next(self._prompts, decoder.room)
        rows = [ticket.row for ticket in tickets if isinstance(ticket.row, Prompt)]
        if rows:
            try:
                self._groups.append(decoder.begin(rows))
                self._seen(len(rows))
            except Exception as error:
                log.error("a pass failed: %s", type(error).__name__)
                for row in rows:
                    row.end(FAILED)
        for group in list(self._groups):
            try:
                if not group.over:
                    decoder.step(group)
            except Exception as error:
                log.error("a pass failed: %s", type(error).__name__)
                group.end(FAILED)
            if group.over:
                self._groups.remove(group)

    def _next(self, waiting: Waiting, room: Callable[..., int]) -> list[Ticket]:
        """The rows of the next pass: those that are still waited for."""
        living = []
        for ticket in waiting.take(room):
            refused = ticket.refused()
            if refused is None:
                living.append(ticket)
            else:
                self._done(ticket, refused)
        return living

    def _failed(self, tickets: Sequence[Ticket], error: Exception) -> None:
        log.error("a pass failed: %s", type(error).__name__)
        for ticket in tickets:
            self._done(ticket, Failed())

    def _done(self, ticket: Ticket, result: Result) -> None:
        if not isinstance(result, Piece) or result.reason:
            with self._condition:
                self._held[ticket.tenant] -= 1
        ticket.give(result)


__all__ = ["Busy", "Draining", "Failed", "Refused", "Worker"]
