"""The next token from a row's logits, and the text that a row has so far. Row by row: no row's company enters."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float64]
UNFINISHED = "�"
"""What a tokenizer shows for the first bytes of a sign whose others are still to come."""


@dataclass
class Sampler:
    """Draws tokens.

    ==========================  =====================================================================
    case                        token
    ==========================  =====================================================================
    ``temperature`` 0           the one with the largest logit; of equal ones the first
    ``top_p`` p below 1         of the most probable ones that together have p, at least one
    the same ``seed``           the same tokens for the same prompt and adapter, in whatever company
    no seed                     one from the operating system
    ==========================  =====================================================================
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    _draw: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._draw = np.random.Generator(np.random.PCG64(secrets.randbits(63) if self.seed is None else self.seed))

    def next(self, logits: Logits) -> int:
        """One token."""
        if self.temperature == 0.0:
            return int(np.argmax(logits))
        scaled = (logits - logits.max()) / self.temperature
        chances = np.exp(scaled)
        chances /= chances.sum()
        order = np.argsort(-chances, kind="stable")
        before = np.cumsum(chances[order]) - chances[order]
        kept = order[before < self.top_p]
        cumulated = np.cumsum(chances[kept])
        place = int(np.searchsorted(cumulated, self._draw.random() * cumulated[-1], side="right"))
        return int(kept[min(place, len(kept) - 1)])


@dataclass
class Written:
    """The text of a row: tokens in, text out that is certain not to belong to a stop sequence.

    ===================================================  ==============================================
    case                                                 what comes out
    ===================================================  ==============================================
    the text ends with the beginning of a stop sequence  what stands before it; the rest once it is told
    a stop sequence is whole                             what stands before it; ``stopped``
    a sign of several tokens is not whole                nothing of it yet
    ===================================================  ==============================================
    """

    tokenizer: Any
    stop: Sequence[str] = ()
    tokens: list[int] = field(default_factory=list)
    sent: int = 0
    stopped: bool = False

    def take(self, token: int) -> str:
        """Add a token; the text that is certain now."""
        self.tokens.append(token)
        text = self.text()
        places = [place for sign in self.stop if (place := text.find(sign)) >= 0]
        if places:
            self.stopped = True
            return self._until(text, min(places))
        safe = len(text) - max((_begun(text, sign) for sign in self.stop), default=0)
        return self._until(text, min(safe, len(text.rstrip(UNFINISHED))))

    def rest(self) -> str:
        """What was held back, at the end."""
        return "" if self.stopped else self._until(self.text(), None)

    def text(self) -> str:
        """All of it, stop sequences too."""
        return str(self.tokenizer.decode(self.tokens, skip_special_tokens=True))

    def _until(self, text: str, end: int | None) -> str:
        new = text[self.sent : end]
        self.sent += len(new)
        return new


def _begun(text: str, sign: str) -> int:
    """How many characters at the end of ``text`` begin ``sign``."""
    return next((size for size in range(min(len(sign) - 1, len(text)), 0, -1) if text.endswith(sign[:size])), 0)
