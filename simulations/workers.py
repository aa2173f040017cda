"""Simulated sites in several processes: one frozen base in memory, copied by none of them.

A worker is forked from this process once the base is loaded: it has the same pages, and owns only what it writes itself
(the adapter, its sites' records). Each worker is a pool of one process (``concurrent.futures``), so that one that dies
takes no other with it. A site always goes to the same worker, which keeps its records; replies come in the order asked,
so that sums have the bits that they have with one worker. Noise can be forked with them: it has no state
(``core/privacy/noise.py``).

============================================  ======================================================================
case                                          then
============================================  ======================================================================
runs over the same texts share outputs        what a worker has computed is taken over when it ends, for the workers
                                              of the next run
a worker dies                                 a new one takes its place, and asks the site that was at work again; what
                                              that site had sealed is sent again, byte for byte, and not made anew
it dies at the same site again                that site gives no answer in this round (an error reply)
Ctrl-C                                        sites at work finish; nobody else is asked
this process is killed                        the workers end too
============================================  ======================================================================
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from llmchain_fl.core.remembered import Remembered
from simulations.grid import answered, broken, no_such_node
from simulations.seen import Seen, Watcher
from simulations.site_notes import only_into, point_to

AHEAD = 4
"""Sites that wait at each worker: enough that none is idle, few enough that memory does not grow with the sites."""
ATTEMPTS = 2

log = logging.getLogger("llmchain_fl")
Reply = tuple[Message, list[Seen]]


@dataclass(frozen=True)
class Serving:
    """What a worker process serves."""

    app: ClientApp
    watcher: Watcher
    notes: Path
    """What workers log."""
    shared: Remembered
    """What frozen layers give for a text, where runs share it."""
    known: int = 0
    """Of it, in a worker: what was there when it began."""


_SERVING: ContextVar[Serving] = ContextVar("serving")
"""Set in a worker process alone, when it begins."""


@dataclass
class _Asked:
    """A message on its way."""

    place: int
    message: Message
    context: Context
    future: Future[Reply]
    attempts: int = 1


@dataclass
class Workers:
    """``count`` worker processes, forked when the first site is asked.

    Args:
        serving: the app of all sites, and what watches them.
        count: how many.
    """

    serving: Serving
    count: int
    _pools: dict[int, ProcessPoolExecutor] = field(default_factory=dict)
    _waiting: deque[_Asked] = field(default_factory=deque)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._waiting:
            one.future.cancel()  # of all workers, before the first of them is waited for
        for pool in self._pools.values():
            if kind is None and self.serving.shared.limit_mb:
                self._take_over(pool)
            pool.shutdown(wait=True, cancel_futures=True)
        self._pools.clear()
        point_to(self.serving.notes)

    def _take_over(self, pool: ProcessPoolExecutor) -> None:
        with contextlib.suppress(BrokenProcessPool):  # then the next run computes it again
            outputs = torch.load(io.BytesIO(pool.submit(_computed).result()), weights_only=True)
            for key, output in outputs.items():
                self.serving.shared.put(key, output)

    def replies(self, requests: Iterable[tuple[Message, Context | None]]) -> Iterator[Reply]:
        """Of each message in turn; ``requests`` is taken as far ahead as keeps the workers busy."""
        waiting = self._waiting = deque()
        for message, context in requests:
            if context is None:
                yield from (self._reply(waiting) for _ in range(len(waiting)))
                yield no_such_node(message), []
                continue
            place = int(context.node_config["partition-id"]) % self.count
            waiting.append(_Asked(place, message, context, self._submit(place, message, context)))
            if len(waiting) > AHEAD * self.count:
                yield self._reply(waiting)
        while waiting:
            yield self._reply(waiting)

    def _submit(self, place: int, message: Message, context: Context) -> Future[Reply]:
        if place not in self._pools:
            fork = multiprocessing.get_context("fork")
            self._pools[place] = ProcessPoolExecutor(1, fork, initializer=_begin, initargs=(self.serving,))
        return self._pools[place].submit(_answer, message, context)

    def _reply(self, waiting: deque[_Asked]) -> Reply:
        """The first of ``waiting``, whose worker may have died over it."""
        first = waiting[0]
        while True:
            try:
                reply = first.future.result()
                break
            except BrokenProcessPool:
                if first.attempts == ATTEMPTS:
                    log.error("%s gives no answer: its worker process died again", _site(first))
                    reply = broken(first.message, "the worker process died"), []
                    self._restart(first.place, list(waiting)[1:])
                    break
                log.warning("the worker process of %s died (killed, or out of memory): asked again", _site(first))
                first.attempts += 1
                self._restart(first.place, waiting)
        waiting.popleft()
        return reply

    def _restart(self, place: int, waiting: Iterable[_Asked]) -> None:
        """A new worker in the place of a dead one, with all that waited for it."""
        self._pools.pop(place).shutdown(wait=True)
        for one in waiting:
            if one.place == place and not (one.future.done() and one.future.exception() is None):
                one.future = self._submit(place, one.message, one.context)


def _site(request: _Asked) -> str:
    return str(request.context.node_config["site-name"])


def _begin(serving: Serving) -> None:
    """In a new worker: hear nothing of Ctrl-C, end with the parent, say nothing to the terminal, use one thread."""
    only_into(serving.notes)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _SERVING.set(replace(serving, known=len(serving.shared)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _computed() -> bytes:
    """In a worker: what it has computed for texts that nobody knew."""
    serving, file = _SERVING.get(), io.BytesIO()
    torch.save(serving.shared.since(serving.known), file)
    return file.getvalue()


def _answer(message: Message, context: Context) -> Reply:
    """In a worker: one site's reply, and what was seen of it."""
    serving = _SERVING.get()
    reply = answered(serving.app, message, context)
    return reply, serving.watcher.taken()
