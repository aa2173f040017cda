"""What every task gives the training loop, the guards and the scores."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.core.tasks.passes import Shape


@dataclass
class Examples:
    """Records as token ids.

    Attributes:
        ids: token ids of each record.
        targets: classification: the label's position; causal LM: how many leading tokens are the prompt.
        frozen_outputs: outputs of frozen layers, filled as they are computed.
        features: what a head is given for each record, filled as it is computed where only the head is trained.
        features_of: of what is below the head (``Resident.below_head``).
        candidate_labels: the labels (positions) that can be the answer when these records are scored; None: all.
        shape: of every pass over these records (``passes.py``); None: padded to the longest of each batch.
    """

    ids: list[npt.NDArray[np.int64]]
    targets: npt.NDArray[np.int64]
    frozen_outputs: dict[int, Tensor] = field(default_factory=dict)
    features: dict[int, Tensor] = field(default_factory=dict)
    features_of: bytes = b""
    candidate_labels: Sequence[int] | None = None
    shape: Shape | None = None

    def fix(self, shape: Shape | None) -> None:
        """Take every pass in ``shape`` from here on; what was computed for another one is dropped."""
        if shape != self.shape:
            self.frozen_outputs.clear()
            self.features.clear()
            self.shape = shape

    def features_below(self, version: bytes) -> dict[int, Tensor]:
        """The features kept for this ``version`` of what is below the head; those of another one are dropped."""
        if version != self.features_of:
            self.features.clear()
            self.features_of = version
        return self.features

    def whole_pass(self, first: list[int], done: Container[int], least: int) -> list[int]:
        """``first``, more records of their kind that are not ``done`` up to a whole pass, copies up to ``least``.

        Without a shape: ``first``.
        """
        shape, taken = self.shape, set(first)
        if shape is None:
            return first
        kind = shape.kind(self.length(first[0]))
        more = (i for i in range(len(self)) if i not in done and i not in taken and shape.kind(self.length(i)) == kind)
        rows = first + list(islice(more, max(0, shape.rows - len(first))))
        return rows + rows[:1] * (least - len(rows))

    def __len__(self) -> int:
        return len(self.ids)

    def length(self, i: int) -> int:
        """Tokens of record ``i``."""
        return len(self.ids[i])

    def tokens(self, index: Sequence[int]) -> int:
        """Number of tokens of the records ``index``."""
        return int(sum(len(self.ids[i]) for i in index))

    def batch(self, index: Sequence[int], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Right-padded ``(ids, mask)``, int64 [n, longest], or to the rung of the longest where there is a shape."""
        longest = max(len(self.ids[i]) for i in index)
        longest = longest if self.shape is None else self.shape.padded(longest)
        ids = np.full((len(index), longest), pad, dtype=np.int64)
        mask = np.zeros((len(index), longest), dtype=np.int64)
        for row, text in enumerate(index):
            size = len(self.ids[text])
            ids[row, :size] = self.ids[text]
            mask[row, :size] = 1
        return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


@dataclass(frozen=True)
class Output:
    """What a forward pass gives. ``logits`` [n, L] or [n, T, V]; ``weight`` None or [n, T], 1 on answer tokens."""

    logits: Tensor
    targets: Tensor
    weight: Tensor | None = None


class Task(Protocol):
    """One NLP task over one resident model. Losses are one number per record: the unit that is clipped."""

    resident: Resident
    metrics: tuple[Metric, ...]
    """Its scores, the main one first; ``build_task`` sets them from the task's kind."""

    def encode(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        """Rows with the task's columns -> token ids."""

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """One forward pass of the records ``index`` (not empty)."""

    def losses(self, output: Output) -> Tensor:
        """float32 [n], one loss per record."""

    def divergence(self, output: Output, teacher: Output, temperature: float) -> Tensor:
        """float32 [n]: T^2 KL(teacher || student) per record."""

    def score(self, examples: Examples, batch: int = 128) -> dict[str, float]:
        """Every one of ``metrics`` of the current adapter, by name."""

    def record_scores(self, examples: Examples, batch: int = 128) -> npt.NDArray[np.float64]:
        """The main score of each record by itself, float64 [n]; a noised score cuts it to 0 .. bound."""

    def predict(self, texts: Sequence[str], top: int = 3) -> list[list[tuple[str, float]]]:
        """For each text the best answers with their probabilities."""


def by_length(examples: Examples, batch: int) -> list[list[int]]:
    """Batches of records of like length (less padding); order does not matter for scores."""
    order = sorted(range(len(examples)), key=examples.length)
    return [order[start : start + batch] for start in range(0, len(order), batch)]
