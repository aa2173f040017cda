"""A file of hash-chained lines: each names the one before it, so that a changed or lost line is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmchain_fl.core.chain import Chain, new_line
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.privacy.durable import append


class ChainedFile:
    """The lines in ``file``; each is on the disk when :meth:`enter` returns.

    Args:
        file: made with its first line.
        remedy: what to do where a line was changed.
    """

    def __init__(self, file: Path, remedy: str) -> None:
        self._file, self._remedy = file, remedy

    def enter(self, kind: str, **values: Any) -> None:
        """Add a line.

        Raises:
            RunError: a line was changed, moved or taken out.
        """
        chain, _ = self._read()
        append(self._file, len(chain.raw), new_line(chain.next, chain.head, kind, values))

    def lines(self) -> list[dict[str, Any]]:
        """All lines, verified.

        Raises:
            RunError: as ``enter``.
        """
        return self._read()[1]

    def _read(self) -> tuple[Chain, list[dict[str, Any]]]:
        chain, entries = Chain(), list[dict[str, Any]]()
        for line in (self._file.read_bytes() if self._file.exists() else b"").split(b"\n")[:-1]:
            try:
                entry = chain.following(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                message = f"{self._file}: line {chain.next} was changed, or one before it is gone"
                raise RunError(message, remedy=self._remedy) from None
            chain.take(line, entry)
            entries.append(entry)
        return chain, entries
