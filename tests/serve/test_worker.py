"""Each row of the table of ``worker.py``: a full queue, a share, deadlines, who leaves, a drain, a broken pass."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.serve.encoder import Row
from llmchain_fl.serve.refusals import ApiError
from llmchain_fl.serve.tickets import Busy, Draining, Failed, Gone, Late, Ticket
from llmchain_fl.serve.worker import Worker


class SlowEncoder:
    """Takes passes of at most two rows; each waits until it is let go."""

    def __init__(self) -> None:
        self.go, self.passes = threading.Event(), list[int]()

    def kind(self, row: Row) -> int:
        return len(row.ids)

    def room(self, kind: int) -> int:
        return 2

    def vectors(self, rows: list[Row]) -> list[torch.Tensor]:
        self.go.wait(10)
        self.passes.append(len(rows))
        if any(row.adapter == 13 for row in rows):
            raise RuntimeError("a record: Jane")
        return [torch.tensor([float(row.adapter)]) for row in rows]


@pytest.fixture
def slow() -> Iterator[tuple[Worker, SlowEncoder]]:
    encoder = SlowEncoder()
    worker = Worker(lambda: SimpleNamespace(encoder=encoder, decoder=None), 6, 0.5)  # type: ignore[arg-type, return-value]
    worker.start()
    worker.ready.wait(10)
    yield worker, encoder
    encoder.go.set()
    worker.drain(10)


class Asked:
    """A ticket and what it was given."""

    def __init__(self, tenant: str = "north", adapter: int = 1, length: int = 3, until: float = 60.0) -> None:
        self.got: list[Any] = []
        self.gone, self.there = threading.Event(), threading.Event()
        row = Row(np.zeros(length, dtype=np.int64), adapter, "mean")
        self.ticket = Ticket(tenant, lambda: row, self._give, time.monotonic() + until, self.gone)

    def _give(self, result: Any) -> None:
        self.got.append(result)
        self.there.set()

    def result(self) -> Any:
        assert self.there.wait(10)
        assert len(self.got) == 1
        return self.got[0]


def put(worker: Worker, *asked: Asked) -> None:
    worker.submit([one.ticket for one in asked])


def test_a_full_queue_and_a_full_share_refuse_before_anything_is_kept(slow: tuple[Worker, SlowEncoder]) -> None:
    worker, encoder = slow
    first, second = [Asked() for _ in range(3)], [Asked("south") for _ in range(3)]
    put(worker, *first)
    with pytest.raises(Busy):
        put(worker, Asked())
    with pytest.raises(Busy):
        put(worker, *second, Asked("south"))
    put(worker, *second)
    with pytest.raises(Busy):
        put(worker, Asked("west"))
    encoder.go.set()
    assert all(isinstance(one.result(), torch.Tensor) for one in (*first, *second))
    for _ in range(100):
        if worker.waiting == 0:
            break
        time.sleep(0.02)
    assert worker.waiting == 0
    put(worker, Asked())


def test_rows_of_a_kind_go_together_and_the_oldest_kind_first(slow: tuple[Worker, SlowEncoder]) -> None:
    worker, encoder = slow
    put(worker, held := Asked(adapter=9, length=9))
    time.sleep(0.1)
    rows = [Asked("south", adapter=n, length=length) for n, length in ((1, 4), (2, 5), (3, 4))]
    for one in rows:
        put(worker, one)
    encoder.go.set()
    assert [float(one.result()) for one in rows] == [1.0, 2.0, 3.0]
    assert float(held.result()) == 9.0
    assert encoder.passes == [1, 2, 1]


def test_a_row_whose_deadline_passes_or_whose_asker_is_gone_is_never_computed(slow: tuple[Worker, SlowEncoder]) -> None:
    worker, encoder = slow
    held, late, gone = Asked(length=9), Asked("south", until=0.05), Asked("south", adapter=2)
    put(worker, held)
    time.sleep(0.1)
    put(worker, late)
    put(worker, gone)
    gone.gone.set()
    time.sleep(0.1)
    encoder.go.set()
    assert isinstance(late.result(), Late)
    assert isinstance(gone.result(), Gone)
    held.result()
    assert encoder.passes == [1]


def test_a_drain_answers_what_waits_and_takes_nothing_new(slow: tuple[Worker, SlowEncoder]) -> None:
    worker, encoder = slow
    rows = [Asked(length=n) for n in (3, 4, 5)]
    put(worker, *rows)
    assert not worker.drain(0.05)
    with pytest.raises(Draining):
        put(worker, Asked("south"))
    encoder.go.set()
    assert worker.drain(10)
    assert all(isinstance(one.result(), torch.Tensor) for one in rows)


def test_a_pass_that_breaks_fails_its_rows_alone_and_the_log_quotes_nothing(
    slow: tuple[Worker, SlowEncoder], caplog: pytest.LogCaptureFixture
) -> None:
    worker, encoder = slow
    encoder.go.set()
    put(worker, broken := Asked(adapter=13))
    assert isinstance(broken.result(), Failed)
    put(worker, fine := Asked(adapter=4))
    assert float(fine.result()) == 4.0
    assert "RuntimeError" in caplog.text
    assert "Jane" not in caplog.text


def test_a_model_that_cannot_be_loaded_is_the_workers_fault() -> None:
    def fail() -> Any:
        raise ValueError("no base")

    worker = Worker(fail, 4, 1.0)
    worker.start()
    assert worker.ready.wait(10)
    assert isinstance(worker.fault, ValueError)
    assert not worker.takes


def test_a_service_waits_no_longer_than_the_deadline(slow: tuple[Worker, SlowEncoder], tools: Any) -> None:
    from llmchain_fl.serve.call import Call
    from llmchain_fl.serve.service import Service
    from llmchain_fl.serve.tasks import SERVED
    from llmchain_fl.serve.tenants import Caller

    worker, encoder = slow
    encoder.encode = lambda *told: Row(np.zeros(3, dtype=np.int64), 1, "mean")  # type: ignore[attr-defined]
    service = Service(tools.settings({"north": ["a1@1"]}), worker, lambda address: False, {})
    served = SimpleNamespace(number=1, task=SimpleNamespace(pooling="mean", max_tokens=8))
    call = Call(Caller("north", "", False), served, SERVED["classification"], 0.0, time.monotonic() + 0.1)  # type: ignore[arg-type]
    with pytest.raises(ApiError) as error:
        asyncio.run(service.vectors(call, ["card"]))
    assert error.value.status == 504
    assert call.gone.is_set()


def test_work_is_given_up_when_the_client_is_gone(tools: Any) -> None:
    from llmchain_fl.serve.attend import attended

    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(True)
            raise

    async def receive() -> dict[str, str]:
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    call = SimpleNamespace(gone=threading.Event())
    with pytest.raises(ApiError) as error:
        asyncio.run(attended(SimpleNamespace(receive=receive), call, work()))  # type: ignore[arg-type]
    assert error.value.status == 499
    assert call.gone.is_set()
    assert ended == [True]
