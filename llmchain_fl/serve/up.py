"""A server from its serve file: adapters verified, the model loaded on its own thread, HTTP and gRPC until a signal.

The port is open while the model is loaded: ``/health`` says that the process lives, ``/ready`` when requests are
answered. On SIGTERM or Ctrl-C nothing new is taken, what waits is answered, at most for ``queue.drain_s`` seconds.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI

from llmchain_fl.core.base_model import Base, BaseSpec, load_base
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.hub import VerifiedAdapter
from llmchain_fl.serve.app import make_app
from llmchain_fl.serve.canary import Arms
from llmchain_fl.serve.door import Revocations, open_adapters
from llmchain_fl.serve.engine import Engine, open_engine
from llmchain_fl.serve.metrics import Metrics
from llmchain_fl.serve.oip_grpc import GrpcServer
from llmchain_fl.serve.passages import Passages
from llmchain_fl.serve.routes_feedback import Desk, feedback_routes
from llmchain_fl.serve.served import Opened
from llmchain_fl.serve.service import Service
from llmchain_fl.serve.settings import ServeSettings
from llmchain_fl.serve.tasks import check_thresholds
from llmchain_fl.serve.worker import Worker

LOOK_S = 0.05


@dataclass
class Running:
    """One server. ``told``: is given the addresses once requests are answered."""

    settings: ServeSettings
    service: Service
    worker: Worker
    desk: Desk | None = None
    told: Callable[[str, str], None] = lambda http, grpc: None
    grpc: GrpcServer | None = None
    http: uvicorn.Server | None = None
    _socket: socket.socket | None = field(default=None, repr=False)

    def run(self) -> None:
        """Until a signal.

        Raises:
            ConfigError: a port cannot be had; or what kept the model from being loaded.
        """
        app = make_app(
            self.service, *((self.desk.receipts, [feedback_routes(self.service, self.desk)]) if self.desk else ())
        )
        app.router.lifespan_context = self._lifespan
        self._socket = _listening(self.settings.host, self.settings.port)
        patience = max(1, round(self.settings.queue.drain_s))
        options = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=patience,
            lifespan="on", timeout_keep_alive=60, h11_max_incomplete_event_size=65536,
        )  # fmt: skip
        self.http = uvicorn.Server(options)
        try:
            self.http.run(sockets=[self._socket])
        finally:
            self.worker.drain(self.settings.queue.drain_s)
            if self.desk is not None:
                self.desk.close()
        if self.worker.fault is not None:
            raise self.worker.fault

    def stop(self) -> None:
        """As a signal does."""
        if self.http is not None:
            self.http.should_exit = True

    @asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        self.worker.start()
        if self.settings.grpc_port is not None:
            self.grpc = GrpcServer(self.service, self.settings.host, self.settings.grpc_port)
            await self.grpc.start()
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            if self.grpc is not None:
                await self.grpc.stop(self.settings.queue.drain_s)

    async def _watch(self) -> None:
        """Say when the model is ready; end the server where it cannot be loaded."""
        while not self.worker.ready.is_set():
            await asyncio.sleep(LOOK_S)
        if self.worker.fault is None:
            try:
                _ = self.service.tenants
            except ConfigError as fault:
                self.worker.fault = fault
        if self.worker.fault is not None:
            self.stop()
            return
        if self.grpc is not None:
            await self.grpc.tell(ready=True)
        assert self._socket is not None
        port = self._socket.getsockname()[1]
        host = self.settings.host
        self.told(f"http://{host}:{port}", f"{host}:{self.grpc.port}" if self.grpc is not None else "")


def _listening(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        what = f"the port {port} of {host} cannot be had: {error.strerror}"
        raise ConfigError([what], remedy="set another port in the serve file, or end what holds it") from None
    made.set_inheritable(True)
    return made


def open_server(
    settings: ServeSettings,
    opened: Callable[[], list[Opened]] | None = None,
    told: Callable[[str, str], None] = lambda http, grpc: None,
    load: Callable[[BaseSpec], Base] = load_base,
) -> Running:
    """Put a server together; nothing is loaded and no port is opened yet.

    Args:
        opened: the adapters; by default those of the serve file, verified now.
        told: is given the addresses of HTTP and gRPC once requests are answered.
        load: gives the base.

    Raises:
        HubError: an adapter that does not hold.
        ConfigError: a label that is served twice; a threshold of an adapter that cannot abstain.
        DataError: the passages cannot be read.
    """
    adapters = open_adapters(settings) if opened is None else opened()
    labels = [one.verified.label for one in adapters]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError([f"{twice[0]} is served twice"], remedy="name each adapter once under [[adapter]]")
    check_thresholds(adapters, settings.adapter)
    metrics = Metrics()

    def engine() -> Engine:
        torch.set_num_threads(settings.threads or max(1, (os.cpu_count() or 2) - 1))
        return open_engine(adapters, settings.queue.batch, load)

    share = 1.0 if len(settings.tenant) == 1 else settings.queue.tenant_share
    worker = Worker(engine, settings.queue.rows, share, lambda rows: metrics.see("pass_rows", rows))
    published = [one.verified for one in adapters if isinstance(one.verified, VerifiedAdapter)]
    revoked = Revocations(Path(settings.hub_home), published)
    thresholds = {one.verified.label: told.abstain_below for one, told in zip(adapters, settings.adapter, strict=False)}
    passages = Passages.read(settings.passages.file) if settings.passages.file else None
    arms = Arms.open(settings.canary.line, settings.hub_home, adapters) if settings.canary.line else None
    service = Service(settings, worker, revoked.holds, thresholds, metrics, passages, arms)
    desk = Desk.open(settings, adapters, metrics) if settings.feedback.store else None
    return Running(settings, service, worker, desk, told)
