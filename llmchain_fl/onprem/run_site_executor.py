"""The process of the site's executor: ``python -m llmchain_fl.onprem.run_site_executor``, started by ``site up``.

========================================  =================================================================
case                                      in the audit log of the site
========================================  =================================================================
it has imported everything                read as a whole; ``started``
a line of the log was changed             the process ends and says which; the supervisor tries again
a digest is approved for the first time   ``approved`` with it, when a message is next looked at
a message is turned away                  ``declined``, with the reason (``site_executor.py``)
it is told to stop                        ``stopped``, ``done``; ``interrupted`` within a message
it is killed                              nothing: the next ``started`` stands without a ``stopped``
========================================  =================================================================
"""

from __future__ import annotations

import argparse
import importlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from llmchain_fl import __version__
from llmchain_fl.audit_log import read_log
from llmchain_fl.cli.apps import tool
from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.onprem.child import begin_log, end_with
from llmchain_fl.onprem.flower_version import check_flower
from llmchain_fl.onprem.site_executor import Approval, SiteExecutor
from llmchain_fl.onprem.site_notes import declined, note
from llmchain_fl.onprem.task import Access

log = logging.getLogger("llmchain_fl.site")
WARM = (
    "peft",
    "transformers",
    "client.app",
    "client.secure_sum",
    "client.local",
    "client.scores",
    "client.lockstep",
    "client.closed_form",
)
"""Imported before the first message."""
ANY = "any"
"""In place of a digest where the site file approves whatever comes."""


class Approvals:
    """``[approved]`` of the site file as it is now; what is there for the first time is entered in the audit log.

    Raises:
        PrivacyError: on being made: a line of the log was changed.
    """

    def __init__(self, site_file: Path) -> None:
        self._file = site_file
        entries = read_log(tool("client.site").read_site(site_file).audit.file)
        self._entered = {str(entry["sha256"]) for entry in entries if entry["type"] == "approved"}

    def __call__(self) -> Approval:
        """Read the file.

        Raises:
            LlmchainError: it cannot be read, or the log cannot be written: then nothing is approved.
        """
        site = tool("client.site").read_site(self._file)
        approval = Approval(tuple(site.approved.bundles), bool(site.approved.any))
        listed = [*approval.bundles, ANY] if approval.any else list(approval.bundles)
        for digest in (one.removeprefix("sha256:") for one in listed):
            if digest not in self._entered:
                note(site, "approved", what="bundle", sha256=digest)
                self._entered.add(digest)
        return approval


@contextmanager
def noted(site_file: Path, busy: Callable[[], bool]) -> Iterator[None]:
    """Enter that this site's work has begun, and that it has ended. SIGTERM becomes a SystemExit within."""

    def entered(kind: str, **values: str) -> None:
        note(tool("client.site").read_site(site_file), kind, **values)

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        sys.exit("interrupted" if busy() else 0)

    entered("started", version=__version__)
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except SystemExit as end:
        entered("stopped", why="done" if not end.code else "interrupted")
        sys.exit(0)
    except BaseException:
        entered("stopped", why="interrupted")
        raise


def main() -> None:
    """Import all that a message may need, then answer messages until the supervisor is gone."""
    parser = argparse.ArgumentParser()
    for name in ("--site", "--runtime", "--secret"):
        parser.add_argument(name, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    end_with(options.parent)
    begin_log()
    check_flower()
    from llmchain_fl.onprem.flower_runtime import AGENT_APP, CLIENT_APP, RuntimeTasks

    for name in WARM:
        tool(name) if name.startswith("client.") else importlib.import_module(name)
    site_file, read_site = Path(options.site), tool("client.site").read_site
    app = tool("client.app").make_app(lambda context: read_site(site_file))
    try:
        approvals = Approvals(site_file)
        executor = SiteExecutor(app, approvals, CLIENT_APP, lambda *fields: declined(read_site(site_file), *fields))
        with noted(site_file, lambda: executor.busy):
            if approvals() == Approval():
                log.warning(
                    "the site file approves no bundle: every message is refused ([approved], docs/on-premise.md)"
                )
            log.info("ready: %.1f CPU s of imports, once", time.process_time())
            executor.serve(RuntimeTasks(Access(options.runtime, Path(options.secret)), (CLIENT_APP, AGENT_APP)))
    except LlmchainError as fault:
        log.error("%s", fault)
        sys.exit(2)


if __name__ == "__main__":
    main()
