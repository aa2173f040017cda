"""Flower's own simulation engine: the same ServerApp loop and ClientApp on Ray actors, each with its own base model.

Flower 1.41 leaves four things to its caller, which are done here: replies come in the order in which sites finish
(here: in the order asked, so that a sum does not depend on the machine), a ServerApp that waits cannot be stopped, the
ClientApp is made anew for each message (here: once an actor), and Ray's folder stays behind.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import telemetry
from flwr.supercore.run import Run

from client.app import make_app
from client.site import read_site
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.errors import RunError
from llmchain_fl.progress import Progress
from llmchain_fl.run_dir import RunDir
from server.app import run_all

SITES_LOG = "sites.log"
SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
LONGEST_FOLDER = 40
"""Ray puts sockets under its folder, and a socket's path has at most 107 characters."""

log = logging.getLogger("llmchain_fl")


class OrderedGrid(Grid):
    """Flower's grid of a simulation; replies are handed on in the order asked, and waiting ends when ``stop`` is set.

    Args:
        grid: the grid that Flower made.
        stop: set from another thread to end the run.
        progress: told of every reply to a train message.
    """

    def __init__(self, grid: Grid, stop: threading.Event, progress: Progress) -> None:
        self._grid, self._stop, self._progress = grid, stop, progress

    def set_run(self, run: Run) -> None:
        """Flower's hook."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to one node."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are registered by now."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages to Flower."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are there."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies one by one, in the order of ``messages``; those that are missing after ``timeout`` are left out.

        Raises:
            RunError: the run was stopped.
        """
        asked = list(self._grid.push_messages(messages))
        end = float("inf") if timeout is None else time.monotonic() + timeout
        come: dict[str, Message] = {}
        missing, given = set(asked), 0
        while missing:
            for reply in self._grid.pull_messages(missing):
                come[reply.metadata.reply_to_message_id] = reply
                if reply.metadata.message_type == MessageType.TRAIN:
                    self._progress.site_finished("", 0, 0.0)
            missing -= come.keys()
            while given < len(asked) and asked[given] in come:
                yield come.pop(asked[given])
                given += 1
            if time.monotonic() > end:
                break
            if missing and self._stop.wait(0.05):
                raise RunError("the simulation was stopped", remedy="every finished round is kept; go on with --resume")
        yield from (come[number] for number in asked if number in come)


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
    notes = logging.FileHandler(files[0].parent.parent / SITES_LOG, delay=True)
    notes.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(notes)
    return make_app(lambda context: read_site(files[int(context.node_config["partition-id"])]))


def run_on_ray(config: RunConfig, run: RunDir, files: Sequence[Path], progress: Progress) -> None:
    """Play ``config`` on Ray, one CPU an actor, at most one actor a site.

    Args:
        files: the site file of each site, in the order of their partition numbers.

    Raises:
        LlmchainError: what the run raised; a RunError if Ray itself failed.
    """
    from flwr.simulation import run_simulation

    stop, failures, threads = threading.Event(), list[Exception](), list[threading.Thread]()
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, _context: Context) -> None:
        threads.append(threading.current_thread())
        try:
            run_all(config, run, OrderedGrid(grid, stop, progress), progress)
        except Exception as error:
            failures.append(error)
            raise

    with _silent_flower(), _ray_folder() as folder:
        try:
            run_simulation(
                server_app,
                SitesApp(files),
                num_supernodes=len(files),
                backend_config=_resources(config, len(files), folder),
            )
        except Exception as error:
            if failures:
                raise failures[0] from failures[0].__cause__
            raise _engine_error(error) from error
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            _shut_down()
    notes = run.sites / SITES_LOG
    if notes.is_file():
        log.warning("what the sites had to say: %s", notes)


def _resources(config: RunConfig, sites: int, folder: str | None) -> dict[str, dict[str, Any]]:
    """What Ray may use: one actor a CPU, no more actors than sites, the GPUs (if they are wanted) shared out evenly."""
    actors = max(1, min(sites, os.cpu_count() or 1))
    gpus = torch.cuda.device_count() if config.model.device != "cpu" else 0
    start: dict[str, Any] = {
        "num_cpus": actors,
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "include_dashboard": False,
    }
    if folder is not None:
        start["_temp_dir"] = folder
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
    before, level, reports = dict(os.environ), logger.level, telemetry.FLWR_TELEMETRY_ENABLED
    os.environ.update(SWITCHES)
    telemetry.FLWR_TELEMETRY_ENABLED = "0"  # Flower reads its switch once, when it is imported
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        telemetry.FLWR_TELEMETRY_ENABLED = reports
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _ray_folder() -> Iterator[str | None]:
    """A folder for Ray that is gone afterwards; None (Ray's own choice) where temporary folders have long names."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield folder if len(folder) <= LONGEST_FOLDER else None


def _shut_down() -> None:
    """End Ray's processes, also where Flower was interrupted before it could."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
