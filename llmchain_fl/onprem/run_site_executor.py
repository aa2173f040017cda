"""The process of the site's executor: ``python -m llmchain_fl.onprem.run_site_executor``, started by ``site up``."""

from __future__ import annotations

import argparse
import importlib
import logging
import time
from pathlib import Path

from llmchain_fl.cli.apps import tool
from llmchain_fl.onprem.child import begin_log, end_with
from llmchain_fl.onprem.flower_version import check_flower
from llmchain_fl.onprem.site_executor import Approval, SiteExecutor
from llmchain_fl.onprem.task import Access

log = logging.getLogger("llmchain_fl.site")
WARM = ("peft", "transformers", "client.app", "client.secure_sum", "client.lockstep", "client.closed_form")
"""Imported before the first message."""


def approval_of(site_file: Path) -> Approval:
    """``[approved]`` of the site file as it is now."""
    told = tool("client.site").read_site(site_file).approved
    return Approval(tuple(told.bundles), bool(told.any))


def main() -> None:
    """Import all that a message may need, then answer messages until the supervisor is gone."""
    asked = argparse.ArgumentParser()
    for name in ("--site", "--runtime", "--secret"):
        asked.add_argument(name, required=True)
    asked.add_argument("--parent", type=int, required=True)
    told = asked.parse_args()
    end_with(told.parent)
    begin_log()
    check_flower()
    from llmchain_fl.onprem.flower_runtime import AGENT_APP, CLIENT_APP, RuntimeTasks

    for name in WARM:
        tool(name) if name.startswith("client.") else importlib.import_module(name)
    site_file, read_site = Path(told.site), tool("client.site").read_site
    if approval_of(site_file) == Approval():
        log.warning("the site file approves no bundle: every message is refused ([approved], docs/on-premise.md)")
    app = tool("client.app").make_app(lambda context: read_site(site_file))
    executor = SiteExecutor(app, lambda: approval_of(site_file), CLIENT_APP)
    log.info("ready: %.1f CPU s of imports, once", time.process_time())
    executor.serve(RuntimeTasks(Access(told.runtime, Path(told.secret)), (CLIENT_APP, AGENT_APP)))


if __name__ == "__main__":
    main()
