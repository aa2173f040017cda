"""How updates travel up in a run; the codecs themselves are imported by name (``compression/``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import pydantic

from llmchain_fl.core.errors import ConfigError

Name = Literal["none", "bf16", "int8", "int4", "top-k"]
MOST_BLOCK = 65_536


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
