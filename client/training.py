"""What every way to learn in a round is: its arguments and its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.units import Batch
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.work import TrainSpec


@dataclass(frozen=True)
class LocalResult:
    """What local training did. Only ``arrays`` may go to the outbox; the rest is for the site's own eyes."""

    arrays: Arrays
    steps: int
    records: int
    tokens: int
    penalty: float = 0.0
    """Mean over steps of what guards changed of the (noised) task gradient, as a share of its length."""
    pull: float = 0.0
    """Mean over steps of how far guards pulled back, as a share of the optimiser's step."""
    unusable: float = 0.0
    """With privacy at the site: share of drawn units whose records could not be computed and counted as zero."""
    direct: bool = False
    """Whether ``arrays`` are the update itself (``lockstep``), and not the trained adapter."""
    integers: NDArray[np.int64] | None = None
    """In place of ``arrays`` where noise is shared: the update with this site's share of it, int64 [P]."""


Train = Callable[[Task, Examples, Iterable[Batch], TrainSpec, PrivacyPlan | None, SiteGuards, float], LocalResult]
"""One of ``rounds.LOOPS``, or in a simulation without privacy a loop of the user's own."""
