"""What a server asks and a site answers, as values. How they travel: ``wire.py``; replies read: ``replies.py``."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmchain_fl import __version__
from llmchain_fl.core.adapter.value import Arrays

PROTOCOL = 9
MAX_BYTES = 2**31
MAX_ARRAYS = 100_000
"""Most arrays of one reply."""


@dataclass(frozen=True)
class HelloReply:
    """Who is there. Nothing about data."""

    site: str
    version: str = __version__
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class SecureTask:
    """What a site needs to mask its part of a sum: everybody's signed keys, who gave shares, those meant for it."""

    directory: tuple[bytes, ...]
    shared: tuple[str, ...]
    shares: tuple[bytes, ...]


@dataclass(frozen=True)
class SecureReply:
    """Signed bytes of a site; ``more``: its shares for the next round."""

    data: bytes
    more: bytes = b""


@dataclass(frozen=True)
class TrainTask:
    """One round's work for one site. ``arrays``: the part of the global adapter that does not follow from the seed.

    ``receipt``: the last one this site gave; ``federation``: who asks; ``clip``: this round's clip norm of the whole
    update with the privacy unit ``site`` (0: the plan's); ``trains``: which factors this round trains (empty: all that
    the work description names); ``keeps``: which of them stay at the site, so are not sent back;
    ``earlier``: the stages this site has been through, for the guard ``rehearsal``; ``secure``: for a masked sum;
    ``sums``: in lockstep, sums over each label's records in place of the gradient.
    """

    run: str
    round: int
    stage: int
    stage_name: str
    lr: float
    work: str
    arrays: Arrays
    guard_arrays: Arrays = field(default_factory=dict)
    receipt: str = ""
    federation: str = ""
    clip: float = 0.0
    trains: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    secure: SecureTask | None = None
    sums: bool = False

    @property
    def key(self) -> str:
        """Names this release: the same key is never paid or released twice."""
        return f"{self.run}/{self.round}"
