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

Numbers = npt.NDArray[np.int64]


@dataclass
class Examples:
    """Records as rows of token ids: what goes through the model together is a row, what is scored is a record.

    A long record has several rows. Everything here counts rows, but for what says records. The loss of a record is

        L_r = sum over its rows i of w_i L_i       (``weights``; a record of one row: L_r = L_i)

    so its gradient is a sum over rows too, and a unit's rows are summed before anything is clipped.

    Attributes:
        ids: token ids of each row.
        targets: of each row; classification: the label's position; causal LM: how many leading tokens are no answer.
        frozen_outputs: outputs of frozen layers, filled as they are computed.
        features: what a head is given for each row, filled as it is computed where only the head is trained.
        features_of: of what is below the head (``Resident.below_head``).
        candidate_labels: the labels (positions) that can be the answer when these records are scored; None: all.
        shape: of every pass over these rows (``passes.py``); None: padded to the longest of each batch.
        owner: the record of each row, ascending, none left out; None: each row is a record.
        weights: float32 [rows], share of a row's loss in its record's; None: 1.
        notes: numbers of each row that are no tokens (a tag for each token, places of a span); empty: there are none.
        cut: records of which something did not fit into the rows they may have.
    """

    ids: list[Numbers]
    targets: Numbers
    frozen_outputs: dict[int, Tensor] = field(default_factory=dict)
    features: dict[int, Tensor] = field(default_factory=dict)
    features_of: bytes = b""
    candidate_labels: Sequence[int] | None = None
    shape: Shape | None = None
    owner: Numbers | None = None
    weights: npt.NDArray[np.float32] | None = None
    notes: list[Numbers] = field(default_factory=list)
    cut: int = 0

    @property
    def records(self) -> int:
        """How many records there are."""
        return len(self.ids) if self.owner is None else int(self.owner[-1]) + 1 if len(self.owner) else 0

    @property
    def record_targets(self) -> Numbers:
        """``targets`` of each record: those of its first row."""
        return self.targets if self.owner is None else self.targets[self._starts(np.arange(self.records))]

    def rows_of(self, records: Sequence[int] | Numbers) -> Numbers:
        """The rows of these records, record after record."""
        index = np.asarray(records, dtype=np.int64)
        if self.owner is None:
            return index
        spans = zip(self._starts(index), self._starts(index + 1), strict=True)
        return np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(first, last) for first, last in spans)])

    def _starts(self, records: Numbers) -> Numbers:
        return np.asarray(np.searchsorted(self.owner, records), dtype=np.int64)  # type: ignore[arg-type]

    def records_in(self, index: Sequence[int]) -> int:
        """How many records the rows ``index`` are of."""
        return len(index) if self.owner is None else len(np.unique(self.owner[list(index)]))

    def weighted(self, losses: Tensor, index: Sequence[int]) -> Tensor:
        """What each of the rows ``index`` adds to the loss of its record, [n]."""
        if self.weights is None:
            return losses
        return losses * torch.from_numpy(self.weights[list(index)]).to(losses.device)

    def mean(self, losses: Tensor, index: Sequence[int]) -> Tensor:
        """Mean loss of the records whose rows ``index`` are, all of them."""
        if self.owner is None:
            return losses.mean()
        return self.weighted(losses, index).sum() / self.records_in(index)

    def by_record(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Numbers of each row [..., rows] -> sum over the rows of a record of w x number [..., records]."""
        if self.owner is None:
            return values
        shares = np.ones(len(self)) if self.weights is None else self.weights.astype(np.float64)
        return np.asarray(np.add.reduceat(values * shares, self._starts(np.arange(self.records)), axis=-1))

    def noted(self, index: Sequence[int], width: int, fill: int) -> Numbers:
        """The notes of the rows ``index``, int64 [n, width], ``fill`` behind them; 0 for rows that have none."""
        found = np.zeros((len(index), width), dtype=np.int64)
        for place, row in enumerate(index):
            if row < len(self.notes) and (note := self.notes[row]).size:
                found[place] = fill
                found[place, : len(note)] = note
        return found

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
        """Tokens of row ``i``."""
        return len(self.ids[i])

    def tokens(self, index: Sequence[int]) -> int:
        """Number of tokens of the rows ``index``."""
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


def joined(parts: Sequence[Examples]) -> Examples:
    """The records of all ``parts``, one part after the other, in the shape of the first."""
    owners, weights, notes = list[Numbers](), list[npt.NDArray[np.float32]](), list[Numbers]()
    records = 0
    for part in parts:
        own = np.arange(len(part), dtype=np.int64) if part.owner is None else part.owner
        owners.append(own + records)
        weights.append(np.ones(len(part), dtype=np.float32) if part.weights is None else part.weights)
        notes += [*part.notes, *[np.zeros(0, dtype=np.int64)] * (len(part) - len(part.notes))]
        records += part.records
    whole = all(part.owner is None for part in parts)
    return Examples(
        [ids for part in parts for ids in part.ids],
        np.concatenate([part.targets for part in parts]),
        shape=parts[0].shape,
        owner=None if whole else np.concatenate(owners),
        weights=None if all(part.weights is None for part in parts) else np.concatenate(weights),
        notes=notes if any(part.notes for part in parts) else [],
    )


class Task(Protocol):
    """One NLP task over one resident model. Losses are one number per row; what is clipped is a unit's sum of them."""

    resident: Resident
    metrics: tuple[Metric, ...]
    """Its scores, the main one first; ``build_task`` sets them from the task's kind, as it does ``counts``."""
    counts: float
    """Above 0: the task has ``record_counts``, and a released score is made of them (``TaskKind.counts``)."""

    def encode(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        """Records with the task's columns -> rows of token ids; every record has at least one."""

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """One forward pass of the rows ``index`` (not empty)."""

    def losses(self, output: Output) -> Tensor:
        """float32 [n], one loss per row, a function of this row alone."""

    def divergence(self, output: Output, teacher: Output, temperature: float) -> Tensor:
        """float32 [n]: T^2 KL(teacher || student) per row."""

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
