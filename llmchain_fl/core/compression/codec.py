"""What a codec is: flat float32 numbers <-> bytes whose length depends on public constants only.

No header, no pickle, no JSON. Layout and length follow from the number of values and the run's ``CodecSpec``, so the
server checks a blob before it reads it, the bytes of a round are known before round 1, and the length of what a site
sends says nothing about its records. Whole updates: ``update.py``; the table: ``__init__.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args

import numpy as np
import pydantic
from numpy.typing import NDArray

from llmchain_fl.core.errors import AdmissionError, ConfigError

Blob = NDArray[np.uint8]
Flat = NDArray[np.float32]
Draw = Callable[[int], NDArray[np.float64]]
"""size -> that many independent uniforms in [0, 1), each a multiple of 2**-53 (``privacy/sampling.py``)."""

Name = Literal["none", "bf16", "int8", "int4", "top-k"]
LARGEST = 2.0**127
"""Largest size of a number that is encoded: above it, rounding up could leave float32."""
MOST_BLOCK = 65_536
UNDECODABLE = "undecodable"
"""Reason code of a refusal here; beside it come ``missing-name``, ``extra-name``, ``wrong-dtype``, ``not-finite``."""


@dataclass(frozen=True)
class CodecSpec:
    """How updates travel up in a run: public constants, the same for every site and round.

    Attributes:
        name: which codec, see ``CODECS``.
        block: numbers that share one scale (int8, int4, and the kept values of top-k).
        share: top-k keeps ``ceil(share * n)`` of an array's n numbers, at least one.
        feedback: the site remembers what the codec left out and adds it to its next update (``error_feedback.py``).

    Raises:
        ConfigError: a value out of its bounds; all of them at once.
    """

    __pydantic_config__: ClassVar = pydantic.ConfigDict(extra="forbid", strict=True)

    name: Name = "none"
    block: int = 64
    share: float = 0.05
    feedback: bool = False

    def __post_init__(self) -> None:
        faults = []
        if self.name not in get_args(Name):
            faults.append(f"there is no codec of that name; there are {', '.join(get_args(Name))}")
        if not 1 <= self.block <= MOST_BLOCK:
            faults.append(f"a codec's block is {self.block}; it must be from 1 to {MOST_BLOCK}")
        if not 0 < self.share <= 1:
            faults.append(f"a codec's share is {self.share}; it must be above 0 and at most 1")
        if faults:
            raise ConfigError(faults)


class Codec(Protocol):
    """One way to write n float32 numbers as bytes.

    Attributes:
        unbiased: the decoded numbers are, on average over the draws, the numbers that were encoded.
    """

    @property
    def unbiased(self) -> bool: ...

    def size(self, n: int, spec: CodecSpec) -> int:
        """Bytes for n numbers; 0 for none."""

    def encode(self, x: Flat, spec: CodecSpec, draw: Draw) -> Blob:
        """x: flat, finite, sizes up to ``LARGEST`` -> exactly ``size(len(x), spec)`` bytes."""

    def decode(self, blob: Blob, n: int, spec: CodecSpec, who: str) -> Flat:
        """The n numbers; ``blob`` has been found to be ``size(n, spec)`` bytes long, and nothing else of it is trusted.

        Raises:
            AdmissionError: no site that follows the protocol writes these bytes. ``who``: whose they are.
        """

    def error(self, n: int, spec: CodecSpec) -> float:
        """A bound w on the expected ``||decode(encode(x)) - x||^2 <= w ||x||^2``, for normal numbers x."""


def refuse(who: str, fault: str, code: str = UNDECODABLE) -> AdmissionError:
    """A refusal whose ``what`` starts with its reason code, as those of the server's admission do."""
    return AdmissionError(f"{code}: {who} {fault}", remedy="run the same version with the same codec on both sides")
