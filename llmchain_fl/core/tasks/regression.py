"""A number for a text, or for two texts (``text2``): how alike, how urgent, how good.

    p = 1 / (1 + exp(-z)),   z = W h + b,   h = scale x pooled(x) / |pooled(x)|,   W and b start at 0
    y = (cut(value, low, high) - low) / (high - low),      answer = low + (high - low) p

Loss of a row: -y log p - (1 - y) log (1 - p), whose minimum over p is the mean of y; of a record: mean over its
windows, and so of z. ``low`` and ``high`` are public settings: what a record adds is a function of this record alone.

| case | result |
|---|---|
| a value beyond the range | its end |
| no number, infinity, NaN | no record of this kind (``fault``) |
| two texts | one row, cut in the longer text (``pair.py``) |
| one number for all records, or all answers alike | correlations 0 |
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.tasks.base import Examples, Numbers, Output, Task
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.tasks.numbers import pearson, spearman
from llmchain_fl.core.tasks.pair import paired
from llmchain_fl.core.tasks.passes import each_record
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.windows import in_windows, of_records

Floats = npt.NDArray[np.float64]
STEPS = 10**6
"""A note holds y in millionths: notes are whole numbers."""


def fault(row: Mapping[str, str], names: Container[str]) -> str:
    """Why ``row`` is no text with a number; "": it is one (or one that is only asked about)."""
    return "" if "value" not in row or math.isfinite(_number(row["value"])) else "a 'value' that is no finite number"


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


class Regression(Classification):
    """One number for each record. A note: y in millionths."""

    def __init__(self, resident: Resident, spec: TaskSpec) -> None:
        self.start(resident, {}, spec.scale, spec.max_tokens, spec.pooling)
        self._windows, self._low, self._wide = spec.windows, spec.low, spec.high - spec.low

    def encode(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        """Rows with ``text`` (and ``text2``, ``value``)."""
        examples = self._rows(rows)
        owner = np.arange(len(examples)) if examples.owner is None else examples.owner
        told = [self._note(row) for row in rows]
        examples.notes = [told[record] for record in owner]
        return examples

    def _rows(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        tokenizer, parts = self.resident.base.tokenizer, dict[int, list[Numbers]]()
        single, pairs = ([k for k, row in enumerate(rows) if ("text2" in row) is two] for two in (False, True))
        alone = in_windows(tokenizer, [rows[k]["text"] for k in single], self._max_tokens, self._windows)
        both = paired(tokenizer, [rows[k] for k in pairs], self._max_tokens)
        for places, read in ((single, alone), (pairs, both)):
            parts |= {k: [read.ids[row] for row in read.rows_of([record])] for record, k in enumerate(places)}
        return of_records([parts[k] for k in range(len(rows))], alone.cut + both.cut)

    def _note(self, row: Mapping[str, str]) -> Numbers:
        share = (_number(row["value"]) - self._low) / self._wide if "value" in row else 0.0
        return np.array([round(STEPS * min(1.0, max(0.0, share)))], dtype=np.int64)

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """Logits z and targets y, [n, 1]."""
        logits = self.resident.module["head"](self._scale * self.vectors(examples, index))
        targets = torch.from_numpy(examples.noted(index, 1, 0) / STEPS)
        return Output(logits, targets.to(logits))

    def losses(self, output: Output) -> Tensor:
        """Cross entropy of y and p, [n]."""
        return F.binary_cross_entropy_with_logits(output.logits, output.targets.to(output.logits), reduction="none")[
            :, 0
        ]

    def divergence(self, output: Output, teacher: Output, temperature: float) -> Tensor:
        """T^2 KL of the teacher's p to the student's, [n]."""
        student, target = (
            F.logsigmoid(torch.cat([one.logits, -one.logits], dim=1) / temperature) for one in (output, teacher)
        )
        return temperature**2 * F.kl_div(student, target, log_target=True, reduction="none").sum(dim=-1)

    def shares(self, examples: Examples, batch: int = 128) -> Floats:
        """p of each record, from the mean of z over its rows, float64 [records]."""
        logits = each_record(examples, batch, lambda index: (self.forward(examples, index).logits[:, 0],))
        return np.asarray(1 / (1 + np.exp(-np.clip(examples.by_record(logits)[0], -500, 500))))

    def record_scores(self, examples: Examples, batch: int = 128) -> Floats:
        """|p - y| of each record: the error as a share of the range."""
        return np.abs(self.shares(examples, batch) - self._right(examples))

    @staticmethod
    def _right(examples: Examples) -> Floats:
        firsts = [int(examples.rows_of([record])[0]) for record in range(examples.records)]
        return examples.noted(firsts, 1, 0)[:, 0] / STEPS

    def score(self, examples: Examples, batch: int = 128) -> dict[str, float]:
        """``mae`` and ``rmse`` as shares of the range, both correlations, and the mean ``loss``."""
        found, right = self.shares(examples, batch), self._right(examples)
        losses = each_record(examples, batch, lambda index: (self.losses(self.forward(examples, index)),))
        return {
            "mae": float(np.abs(found - right).mean()),
            "rmse": float(np.sqrt(((found - right) ** 2).mean())),
            "pearson": pearson(found, right),
            "spearman": spearman(found, right),
            "loss": float(examples.by_record(losses)[0].mean()),
        }

    def predict(self, texts: Sequence[str], top: int = 1) -> list[list[tuple[str, float]]]:
        """The number for each text: one answer."""
        return self.answer([{"text": text} for text in texts])

    def answer(self, rows: Sequence[Mapping[str, str]], top: int = 1) -> list[list[tuple[str, float]]]:
        """The number for each row."""
        found = self.shares(self.encode(rows)) if rows else np.zeros(0)
        return [[(f"{self._low + self._wide * share:.6g}", 1.0)] for share in found]


def build(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``."""
    return Regression(resident, spec)
