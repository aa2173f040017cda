"""What simulated sites log where they run in processes of their own: one file beside their folders."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

SITES_LOG = "sites.log"

log = logging.getLogger("llmchain_fl")


def note_into(file: Path) -> logging.Handler:
    """A handler that writes into ``file``, which is made with its first line."""
    notes = logging.FileHandler(file, delay=True)
    notes.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    return notes


def only_into(file: Path) -> None:
    """In a forked process: nothing goes to the terminal, whose lock a thread of the parent may have held."""
    for logger in (logging.getLogger(), log):
        logger.handlers.clear()
    logging.getLogger().addHandler(note_into(file))
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def point_to(file: Path) -> None:
    """Say where it is, if anything was said."""
    if file.is_file():
        log.warning("what the sites had to say: %s", file)
