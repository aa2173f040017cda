"""How much a command says: ``--quiet``, ``-v``. Read from the command line's own context, kept nowhere else."""

from __future__ import annotations

import logging

import click

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


def quiet() -> bool:
    """Whether only errors, and what a command was asked for, are to be said."""
    context = click.get_current_context(silent=True)
    return bool(context and context.find_root().params.get("quiet"))


class Once(logging.Filter):
    """Lets each line through once: a file may be read for several stages."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is new."""
        line, before = record.getMessage(), len(self._said)
        self._said.add(line)
        return len(self._said) > before


def begin_log() -> None:
    """Warnings on standard error, each once."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    handler.addFilter(Once())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("absl").setLevel(logging.ERROR)


def set_level(*, quiet: bool, verbose: int) -> None:
    """Errors alone; or this project's own notes too (``-v``), or all of them (``-vv``)."""
    logging.getLogger("llmchain_fl").setLevel(logging.ERROR if quiet else LEVELS[min(verbose, len(LEVELS) - 1)])
