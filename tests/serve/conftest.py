"""Adapters over the tiny models, as if they had been verified, and a server over them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.base_model import load_base
from llmchain_fl.serve.decoder import Decoder, Prompt
from llmchain_fl.serve.engine import Engine, open_engine
from llmchain_fl.serve.served import Opened
from llmchain_fl.serve.service import Service
from llmchain_fl.serve.settings import Queue, ServedAdapter, ServeSettings, Tenant
from llmchain_fl.serve.tokens import token_hash
from llmchain_fl.serve.worker import Worker

fresh_base = load_base.__wrapped__
"""A base of its own: that of this process may carry the adapter of a run."""


@dataclass(frozen=True)
class Plain:
    """What the hub gives for a verified adapter, without a hub."""

    label: str
    arrays: Arrays
    parent: str = ""

    @property
    def address(self) -> str:
        return hashlib.sha256((self.label + digest(self.arrays)).encode()).hexdigest()

    def to_load(self) -> Arrays:
        return dict(self.arrays)


def adapters(small: Any, count: int, kind: str = "classification", **settings: Any) -> list[Opened]:
    """``count`` adapters of different numbers, ``a1@1``, ``a2@1``, ..., over the tiny model of this kind."""
    found = []
    for number in range(1, count + 1):
        rank = settings.get("rank", 1 + number % 3)
        work = small.work(kind, **{**settings, "rank": rank})
        task = small.task(kind, **{**settings, "rank": rank})
        draw = np.random.default_rng(number)
        arrays = {name: (value + 0.2 * draw.normal(size=value.shape)).astype(np.float32)
                  for name, value in task.resident.arrays().items()}  # fmt: skip
        found.append(Opened(Plain(f"a{number}@1", arrays), work.base, work.task, work.adapter.scale))
    return found


TOKENS = {"north": "lfl_north", "south": "lfl_south"}


def settings(labels: dict[str, list[str]], **changes: Any) -> ServeSettings:
    """Tenant -> labels; tokens as in ``TOKENS``."""
    tenants = {name: Tenant(adapters=own, tokens=[token_hash(TOKENS[name])]) for name, own in labels.items()}
    told = {"queue": Queue(batch=4), "adapter": [ServedAdapter(folder="x")], "tenant": tenants, "threads": 1}
    return ServeSettings(**{**told, **changes})


@contextmanager
def running(
    opened: list[Opened],
    told: ServeSettings,
    revoked: Callable[[str], bool] = lambda address: False,
    thresholds: dict[str, float] | None = None,
    engine: Callable[[], Engine] | None = None,
) -> Iterator[Service]:
    """A service over these adapters, ready."""
    worker = Worker(
        engine or (lambda: open_engine(opened, told.queue.batch, fresh_base)), told.queue.rows, told.queue.tenant_share
    )
    service = Service(told, worker, revoked, thresholds or {})
    worker.start()
    assert worker.ready.wait(60)
    if worker.fault is not None:
        raise worker.fault
    try:
        yield service
    finally:
        worker.drain(20)
        if worker.engine is not None:
            worker.engine.bank.close()


def written(decoder: Decoder, rows: Sequence[Prompt]) -> list[str]:
    """What prompts that begin together become."""
    texts = [""] * len(rows)
    for place, row in enumerate(rows):

        def told(piece: Any, place: int = place) -> None:
            texts[place] += piece.text

        row.told = told
    group = decoder.begin(rows)
    while not group.over:
        decoder.step(group)
    return texts


class Tools:
    """The functions of this file, for tests."""

    adapters, settings, running, written = map(staticmethod, (adapters, settings, running, written))
    fresh_base = staticmethod(fresh_base)


@pytest.fixture(scope="session")
def tools() -> type[Tools]:
    """See ``Tools``."""
    return Tools


@pytest.fixture
def made(small: Any) -> Callable[..., list[Opened]]:
    """Adapters over the tiny models."""
    return lambda count, kind="classification", **told: adapters(small, count, kind, **told)
