"""What a codec is: flat float32 numbers <-> bytes whose length depends on public constants only.

No header, no pickle, no JSON. Layout and length follow from the number of values and the run's ``CodecSpec``, so the
server checks a blob before it reads it, the bytes of a round are known before round 1, and the length of what a site
sends says nothing about its records. Whole updates: ``update.py``; the table: ``__init__.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.errors import AdmissionError

Blob = NDArray[np.uint8]
Flat = NDArray[np.float32]
Draw = Callable[[int], NDArray[np.float64]]
"""size -> that many independent uniforms in [0, 1), each a multiple of 2**-53 (``privacy/sampling.py``)."""

LARGEST = 2.0**127
"""Largest size of a number that is encoded: above it, rounding up could leave float32."""
UNDECODABLE = "undecodable"
"""Reason code of a refusal here; beside it come ``missing-name``, ``extra-name``, ``wrong-dtype``, ``not-finite``."""


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
