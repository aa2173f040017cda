"""The grid of ``llmchain-fl simulate``: sites in this process, or in worker processes once that pays.

Whether it pays is measured where nobody says how many workers there are to be: the first sites are played here, and
workers are started when what is left of the run would take them ``WORTH`` seconds less. Both ways give the same bits.

==============================================  ====================================================================
``workers``                                     sites are played
==============================================  ====================================================================
1                                               here
n > 1                                           in n processes (but for a site's name, which is asked here)
0, one core, a GPU, or a trainer of one's own   here: a fork has no GPU, and leaves nothing in the trainer's variables
0, else                                         here until it pays, then in one process a core, at most one a site
==============================================  ====================================================================
"""

from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence

import torch
from flwr.app import Context, Message, MessageType

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.base_model import choose_device
from llmchain_fl.core.errors import ConfigError
from simulations.grid import InProcessGrid, numbered_copy
from simulations.seen import Teller
from simulations.workers import Reply, Serving, Workers

WORTH = 5.0
"""Seconds that workers must save: starting them, and reading records again, takes about one."""
WARM = 2
"""Sites that are played before the time of one is believed."""
AT_ONCE = 64
"""Messages that are entered in the audit log by one write."""


class Pays:
    """When workers are worth their start.

    Args:
        count: how many there would be.
        asked: how often sites will be asked to train in the whole run.
    """

    def __init__(self, count: int, messages: int) -> None:
        self._count, self._left, self._played, self._fastest = count, messages, 0, float("inf")

    def note(self, seconds: float) -> None:
        """A site was played here."""
        self._left, self._played = self._left - 1, self._played + 1
        if self._played > 1:  # the first one reads the base, and tries its shapes
            self._fastest = min(self._fastest, seconds)

    @property
    def now(self) -> bool:
        """Whether they pay from here on."""
        return self._played >= WARM and self._fastest * self._left * (1 - 1 / self._count) > WORTH


def processes(config: RunConfig, workers: int, *, own_trainer: bool) -> int:
    """How many processes there may be; see the table of the module.

    Raises:
        ConfigError: several, where the base is on a GPU.
    """
    on_gpu = choose_device(config.model.device).type != "cpu"
    if workers > 1 and on_gpu:
        raise ConfigError(["--workers: the base is on a GPU, which a forked process cannot use"])
    most = config.sites.cohort or config.sites.count
    cores = 1 if on_gpu or own_trainer else os.cpu_count() or 1
    return min(workers or cores, most)


class SimulationGrid(InProcessGrid):
    """An in-process grid that can hand sites to workers.

    Args:
        here: what is played in this process.
        several: the worker processes, none of them started yet; None: there are none.
        sites: site names.
        teller: hears what was seen of each site.
        pays: asked before each site whether it goes to a worker; None: all do.
    """

    at_once = AT_ONCE

    def __init__(
        self, here: Serving, several: Workers | None, sites: Sequence[str], teller: Teller, pays: Pays | None
    ) -> None:
        super().__init__(here.app, sites)
        self._watcher, self._workers, self._teller, self._pays = here.watcher, several, teller, pays

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies one by one, in the order of ``messages``, which are taken as they are needed."""
        threads = torch.get_num_threads()
        try:
            for reply, seen in self._replies(iter(messages)):
                self._teller.tell(seen)
                yield reply
        finally:
            torch.set_num_threads(threads)  # sites take their own number; scores are the server's
        self._teller.end()

    def _replies(self, messages: Iterator[Message]) -> Iterator[Reply]:
        for message in messages:
            named = message.metadata.message_type == MessageType.QUERY
            if self._workers is None or named or not (self._pays is None or self._pays.now):
                yield self._here(message)
            else:
                yield from self._workers.replies(map(self._addressed, itertools.chain([message], messages)))

    def _here(self, message: Message) -> Reply:
        started = time.monotonic()
        reply = self._deliver(message, uuid.uuid4().hex)
        if self._pays is not None and message.metadata.message_type == MessageType.TRAIN:
            self._pays.note(time.monotonic() - started)
        return reply, self._watcher.taken()

    def _addressed(self, message: Message) -> tuple[Message, Context | None]:
        context = self._context(message)
        return (message if context is None else numbered_copy(message, uuid.uuid4().hex)), context
