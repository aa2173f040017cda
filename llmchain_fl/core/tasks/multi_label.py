"""Texts with any number of labels of a public list, none of them too: a yes or no for each label.

logits = W h + b on the pooled vector of a row, one a label; a label is an answer where its chance 1 / (1 + exp(-z)) is
above 1/2, the same for all. Loss of a row: mean over labels of the binary cross entropy; of a record: mean over its
windows, and so of its log-chances. Scores are micro-averaged over all records and labels.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.data.lists import items_of, words_of
from llmchain_fl.core.privacy.counts import f1_of
from llmchain_fl.core.tasks.base import Examples, Output, Task
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.tasks.passes import each_record
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.windows import in_windows


def fault(row: Mapping[str, str], names: Container[str]) -> str:
    """Why ``row`` is no text with labels of the list; "": it is one (or one that is only asked about)."""
    told = items_of(row.get("labels", "[]"))
    if any(name not in names for name in told):
        return "a label that is not in the public list"
    return "" if len(set(told)) == len(told) else "a label that stands there twice"


class MultiLabel(Classification):
    """A yes or no for each label. A note: 1 for each label that a record has."""

    def __init__(
        self, resident: Resident, labels: Mapping[str, str], pooling: str, scale: float, max_tokens: int, windows: int
    ) -> None:
        self.start(resident, labels, scale, max_tokens, pooling)
        self._windows = windows

    def encode(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        """Rows with ``text`` (and ``labels``)."""
        texts = [row["text"] for row in rows]
        examples = in_windows(self.resident.base.tokenizer, texts, self._max_tokens, self._windows)
        told = np.zeros((len(rows), len(self.labels)), dtype=np.int64)
        for record, row in enumerate(rows):
            told[record, [self._position[name] for name in words_of(row.get("labels", "[]"))]] = 1
        owner = np.arange(len(examples)) if examples.owner is None else examples.owner
        examples.notes = [told[record] for record in owner]
        return examples

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """Logits and targets [n, L]."""
        logits = self.resident.module["head"](self._scale * self.vectors(examples, index))
        targets = torch.from_numpy(examples.noted(index, len(self.labels), 0))
        return Output(logits, targets.to(logits.device))

    def losses(self, output: Output) -> Tensor:
        """Mean binary cross entropy over the labels, [n]."""
        return F.binary_cross_entropy_with_logits(
            output.logits, output.targets.to(output.logits), reduction="none"
        ).mean(dim=-1)

    def divergence(self, output: Output, teacher: Output, temperature: float) -> Tensor:
        """T^2 KL of the teacher's yes-or-no chances to the student's, mean over the labels, [n]."""
        pairs = [torch.stack([z, -z]) / temperature for z in (output.logits, teacher.logits)]
        student, target = (F.logsigmoid(pair) for pair in pairs)
        return temperature**2 * (target.exp() * (target - student)).sum(dim=0).mean(dim=-1)

    def chances(self, examples: Examples, batch: int = 128) -> npt.NDArray[np.float64]:
        """log p - log(1 - p) of each label, mean over a record's rows, float64 [L, records]."""
        return examples.by_record(
            each_record(examples, batch, lambda index: tuple(self.forward(examples, index).logits.T), len(self.labels))
        )

    def record_counts(self, examples: Examples, batch: int = 128) -> npt.NDArray[np.float64]:
        """(labels right, wrong, missed) of each record, float64 [records, 3]; NaN where it cannot be computed."""
        logits = self.chances(examples, batch)
        right = np.array([examples.notes[examples.rows_of([record])[0]] for record in range(examples.records)])
        right, found = right.reshape(-1, len(self.labels)).T == 1, logits > 0
        counts = np.stack([(found & right).sum(0), (found & ~right).sum(0), (~found & right).sum(0)], axis=1)
        known = np.asarray(np.isfinite(logits).all(axis=0))
        return np.where(known[:, None], counts, np.nan)

    def record_scores(self, examples: Examples, batch: int = 128) -> npt.NDArray[np.float64]:
        """F1 of each record by itself; 1 where it has no label and none is found."""
        counts = self.record_counts(examples, batch)
        found = np.array([1.0 if not told.any() else f1_of(*told) for told in counts], dtype=np.float64)
        return np.where(np.isfinite(counts).all(axis=1), found, np.nan)

    def score(self, examples: Examples, batch: int = 128) -> dict[str, float]:
        """Over all labels of all records."""
        both, wrong, missed = np.nansum(self.record_counts(examples, batch), axis=0)
        losses = each_record(examples, batch, lambda index: (self.losses(self.forward(examples, index)),))
        return {
            "micro_f1": f1_of(both, wrong, missed),
            "precision": float(both / max(1.0, both + wrong)),
            "recall": float(both / max(1.0, both + missed)),
            "loss": float(examples.by_record(losses)[0].mean()),
        }

    def predict(self, texts: Sequence[str], top: int = 3) -> list[list[tuple[str, float]]]:
        """Every label above 1/2 of each text with its chance, the surest first; none of them: no answer."""
        if not texts:
            return []
        chances = 1 / (1 + np.exp(-self.chances(self.encode([{"text": text} for text in texts]))))
        answers = []
        for one in chances.T:
            order = [int(k) for k in np.argsort(-one, kind="stable") if one[k] > 0.5]
            answers.append([(self.labels[k], float(one[k])) for k in order])
        return answers


def build(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``."""
    return MultiLabel(resident, dict(spec.labels), spec.pooling, spec.scale, spec.max_tokens, spec.windows)
