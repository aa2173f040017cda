"""The only door by which an adapter comes in: a hub folder that was verified; and whether it was taken back since."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmchain_fl.hub import Trust, VerifiedAdapter, read_trust, verified
from llmchain_fl.hub.trust import SEEN
from llmchain_fl.serve.served import Opened
from llmchain_fl.serve.settings import ServeSettings


def open_adapters(settings: ServeSettings) -> list[Opened]:
    """Verify every adapter of the serve file, over this machine's base.

    Raises:
        HubError: the first one that does not hold.
    """
    trust = read_trust(Path(settings.hub_home))
    return [_opened(verified(Path(one.folder), trust), settings.base) for one in settings.adapter]


def _opened(adapter: VerifiedAdapter, base: str) -> Opened:
    work = adapter.work_on(base)
    return Opened(adapter, work.base, work.task, work.adapter.scale)


@dataclass
class Revocations:
    """What has been taken back by now: ``hub pull`` and ``hub list`` write it down, this looks at the file's state."""

    home: Path
    adapters: Sequence[VerifiedAdapter]
    _state: tuple[int, int, int] | None = None
    _revoked: frozenset[str] = frozenset()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def holds(self, address: str) -> bool:
        """Whether the adapter of this address is revoked. A file that cannot be read any more revokes all."""
        with self._lock:
            state = self._now()
            if state != self._state:
                self._state, self._revoked = state, self._read()
        return address in self._revoked

    def _now(self) -> tuple[int, int, int] | None:
        try:
            seen = os.stat(self.home / SEEN)
        except OSError:
            return None
        return seen.st_ino, seen.st_size, seen.st_mtime_ns

    def _read(self) -> frozenset[str]:
        try:
            trust: Trust | None = read_trust(self.home)
        except Exception:  # whatever is wrong with it: nothing is served on a guess
            trust = None
        return frozenset(
            one.address
            for one in self.adapters
            if trust is None or one.address in trust.seen_of(one.manifest.publisher).revoked
        )
