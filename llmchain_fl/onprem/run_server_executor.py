"""The process of the coordinator's executor: ``python -m llmchain_fl.onprem.run_server_executor``."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import time
from pathlib import Path

from llmchain_fl.cli.apps import tool
from llmchain_fl.onprem.child import begin_log
from llmchain_fl.onprem.flower_version import check_flower
from llmchain_fl.onprem.server_executor import ServerExecutor
from llmchain_fl.onprem.task import Access

log = logging.getLogger("llmchain_fl.coordinator")
WARM = ("peft", "transformers", "dp_accounting", "scipy.stats", "server.app", "llmchain_fl.report.page")
"""Imported before the first run; a package that is not installed is left to the run."""


def main() -> None:
    """Import all that a run may need, then play runs until the supervisor is gone."""
    parser = argparse.ArgumentParser()
    for name in ("--runtime", "--secret"):
        parser.add_argument(name, required=True)
    parser.add_argument("--root-certificates", type=Path)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    begin_log()
    check_flower()
    from llmchain_fl.onprem.flower_runtime import SERVER_APP, RuntimeTasks, play_server_app

    for name in WARM:
        try:
            tool(name) if name.startswith("server.") else importlib.import_module(name)
        except ImportError:
            log.info("%s cannot be imported here", name)
    import torch

    access = Access(options.runtime, Path(options.secret), options.root_certificates)
    executor = ServerExecutor(lambda token: play_server_app(access, token, options.parent), torch.cuda.is_initialized)
    log.info("ready: %.1f CPU s of imports, once", time.process_time())
    executor.serve(RuntimeTasks(access, (SERVER_APP,)), lambda: os.getppid() == options.parent)


if __name__ == "__main__":
    main()
