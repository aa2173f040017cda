"""Flower's own simulation engine: the same ServerApp loop and ClientApp on Ray actors, each a process with its own base."""

from __future__ import annotations

import logging
import os
import sys

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.progress import Progress
from llmchain_fl.run_dir import RunDir
from server.app import run_all


def run_on_ray(config: RunConfig, run: RunDir, client_app: ClientApp, sites: int, progress: Progress) -> None:
    """Play ``config`` on Ray; one CPU an actor.

    Flower stays silent towards its maker (no telemetry, no update check) and workers find this project's packages
    through ``PYTHONPATH``, also where they live inside the wheel.
    """
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_DEDUP_LOGS="0")
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(part for part in sys.path if part))
    logging.getLogger("flwr").setLevel(logging.ERROR)
    from flwr.simulation import run_simulation

    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, _context: Context) -> None:
        run_all(config, run, grid, progress)

    resources = {"num_cpus": 1, "num_gpus": 0.0}
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    run_simulation(
        server_app, client_app, num_supernodes=sites, backend_config={"client_resources": resources, "init_args": quiet}
    )
