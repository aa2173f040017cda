"""Flower's own simulation engine: the same ServerApp loop and ClientApp on Ray actors, each with its own base model.

Done here because Flower 1.41 does not: an order of replies that does not depend on the machine
(``ordered_grid.py``), an end on Ctrl-C, one ClientApp an actor instead of a new one for each message, and nothing left
behind.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import telemetry

from client.app import make_app
from client.site import read_site
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import RunError
from llmchain_fl.progress import Progress
from llmchain_fl.run_dir import RunDir
from server.app import run_all
from simulations.baselines import baselines
from simulations.ordered_grid import OrderedGrid, Stop
from simulations.site_notes import SITES_LOG, note_into, point_to

SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
LONGEST_FOLDER = 40
"""Ray puts sockets under its folder, and a socket's path has at most 107 characters."""

log = logging.getLogger("llmchain_fl")


class SitesApp(ClientApp):
    """All sites of a simulation. It travels as file names: an actor makes its app once and keeps what it has read."""

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__()
        self._files = tuple(files)

    def __call__(self, message: Message, context: Context) -> Message:
        """Hand the message to this process's app."""
        return _app_of(self._files)(message, context)


@functools.lru_cache(maxsize=1)
def _app_of(files: tuple[Path, ...]) -> ClientApp:
    """The ClientApp of this actor; refusals are explained in ``sites.log`` beside the sites' folders."""
    log.addHandler(note_into(files[0].parent.parent / SITES_LOG))
    return make_app(lambda context: read_site(files[int(context.node_config["partition-id"])]))


def run_on_ray(config: RunConfig, run: RunDir, files: Sequence[Path], progress: Progress) -> None:
    """Play ``config`` on Ray, one CPU an actor, at most one actor a site.

    Args:
        files: the site file of each site, in the order of their partition numbers.

    Raises:
        LlmchainError: what the run raised; a RunError if Ray itself failed.
        KeyboardInterrupt: after Ctrl-C, once the sites that were at work are done and Ray is down.
    """
    stop, failures, threads = Stop(), list[Exception](), list[threading.Thread]()
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, _context: Context) -> None:
        threads.append(threading.current_thread())
        try:
            opening = baselines(config, run.sites, [file.parent.name for file in files])
            run_all(config, run, OrderedGrid(grid, stop, progress), progress, opening)
        except Exception as error:
            failures.append(error)
            raise

    resources = _resources(config, len(files))
    with _silent_flower(), _ray_folder() as folder, _until_ctrl_c(stop):
        from flwr.simulation import run_simulation  # sets environment variables when it is imported

        if folder is not None:
            resources["init_args"]["_temp_dir"] = folder
        try:
            run_simulation(server_app, SitesApp(files), num_supernodes=len(files), backend_config=resources)
        except Exception as error:
            if stop.wanted:
                raise KeyboardInterrupt from None
            if failures:
                raise failures[0] from failures[0].__cause__
            raise _engine_error(error) from error
        finally:
            stop.wanted = True
            for thread in threads:
                thread.join()
            _shut_down()
            point_to(run.sites / SITES_LOG)


def _resources(config: RunConfig, sites: int) -> dict[str, dict[str, Any]]:
    """What Ray may use: one actor a CPU, no more actors than sites, the GPUs (if they are wanted) shared out evenly."""
    actors = max(1, min(sites, os.cpu_count() or 1))
    gpus = torch.cuda.device_count() if config.model.device != "cpu" else 0
    start: dict[str, Any] = {
        "num_cpus": actors,
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "include_dashboard": False,
    }
    return {"client_resources": {"num_cpus": 1, "num_gpus": min(1.0, gpus / actors)}, "init_args": start}


def _engine_error(error: BaseException) -> RunError:
    """The innermost reason why Flower's engine or Ray stopped."""
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    first = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
    return RunError(
        f"Flower's simulation engine stopped: {first[:300]}",
        remedy="run it with --backend in-process, which needs no engine",
    )


@contextlib.contextmanager
def _silent_flower() -> Iterator[None]:
    """Flower and Ray report to nobody and print nothing; environment and log level are put back afterwards."""
    logger = logging.getLogger("flwr")
    before, level, passes_on = dict(os.environ), logger.level, logger.propagate
    reports = telemetry.FLWR_TELEMETRY_ENABLED
    os.environ.update(SWITCHES)
    telemetry.FLWR_TELEMETRY_ENABLED = "0"  # Flower reads its switch once, when it is imported
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.propagate = passes_on
        telemetry.FLWR_TELEMETRY_ENABLED = reports
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _ray_folder() -> Iterator[str | None]:
    """A folder for Ray that is gone afterwards; None (Ray's own choice) where temporary folders have long names."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield folder if len(folder) <= LONGEST_FOLDER else None


@contextlib.contextmanager
def _until_ctrl_c(stop: Stop) -> Iterator[None]:
    """The first Ctrl-C sets ``stop``; a second one interrupts. Ray does not survive an interrupt at any odd moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def once(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        stop.wanted = True

    before = signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _shut_down() -> None:
    """End Ray's processes, also where Flower was interrupted before it could."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
