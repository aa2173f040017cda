"""Text classification with an encoder, over a public label list.

Two heads, one table:

* ``label-text``: logit_l = scale x cos(pooled(x), e_l), e_l = pooled(label text) of the frozen base, adapter off.
  No trained parameter, so nothing in the head can be forgotten.
* ``trained``: logits = W h + b on h = scale x pooled(x) / |pooled(x)|, trained and federated with the adapter, and
  started as the label-text head (W = label vectors, b = 0): the first round begins at zero-shot, not at chance.
  With random features h is followed by max(0, h P) (``random_features.py``), whose weights start at 0.

A text of several windows has the mean of their losses, and so of their log-probabilities: one answer a record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.by_row import by_row
from llmchain_fl.core.remembered import Key
from llmchain_fl.core.tasks.base import Examples, Output, Task, by_length
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.core.tasks.passes import each_record
from llmchain_fl.core.tasks.random_features import RandomFeatures
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.text import token_ids
from llmchain_fl.core.tasks.windows import in_windows


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that are text. hidden [n, T, H], mask [n, T] -> [n, H] float32."""
    weight = mask.unsqueeze(-1).to(torch.float32)
    return (hidden.float() * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)


def cls_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """The first token's vector. hidden [n, T, H] -> [n, H] float32."""
    return hidden[:, 0].float()


POOLINGS = {"mean": mean_pool, "cls": cls_pool}


class Classification:
    """A classifier over ``labels`` (name -> text), with the head the resident was built for."""

    metrics: tuple[Metric, ...]
    counts: float = 0.0

    def __init__(
        self,
        resident: Resident,
        labels: Mapping[str, str],
        pooling: str,
        scale: float,
        max_tokens: int,
        feature_seed: int = 1,
        windows: int = 1,
    ) -> None:
        self.start(resident, labels, scale, max_tokens, pooling)
        self._windows = windows
        self.label_vectors = self._embed_labels(list(labels.values()))
        if resident.head is not None:
            start = np.pad(self.label_vectors.cpu().numpy(), ((0, 0), (0, resident.spec.features)))
            resident.head_start = {"head.weight": start}
        self.random = RandomFeatures(resident.base.hidden_size, resident.spec.features, feature_seed)
        self._across = torch.tensor(self.random.projection().T, device=resident.base.device)

    def start(
        self, resident: Resident, labels: Mapping[str, str], scale: float, max_tokens: int, pooling: str = "mean"
    ) -> None:
        """What a classifier has whose head begins at zero: no vectors of label texts, no random features."""
        self.resident, self.labels, self._scale, self._max_tokens = resident, list(labels), scale, max_tokens
        self._position = {label: i for i, label in enumerate(labels)}
        self._pool, self._windows = POOLINGS[pooling], 1
        self.random = RandomFeatures(resident.base.hidden_size)

    def _embed_labels(self, texts: Sequence[str]) -> Tensor:
        ids = token_ids(self.resident.base.tokenizer, texts, self._max_tokens)
        return self.frozen_features(Examples(ids, np.zeros(len(texts), dtype=np.int64)))

    def frozen_features(self, examples: Examples) -> Tensor:
        """float32 [records, H]: each record in the frozen base, with the adapter off (Delta W = 0).

        Of unit length; of a record with several rows the mean of their vectors.
        """
        vectors = torch.zeros(len(examples), self.resident.base.hidden_size, device=self.resident.base.device)
        with torch.no_grad(), self.resident.swapped(self.resident.bare):
            for index in by_length(examples, 64):
                vectors[index] = F.normalize(self._pooled(examples, index), dim=-1)
        if examples.owner is None:
            return vectors
        means = examples.by_record(vectors.T.double().cpu().numpy()).T
        return torch.from_numpy(np.ascontiguousarray(means)).to(vectors)

    def encode(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        """Rows with ``text`` (and ``label``; rows without one, as in prediction, get target -1)."""
        targets = np.array([self._position.get(row.get("label", ""), -1) for row in rows], dtype=np.int64)
        texts = [row["text"] for row in rows]
        examples = in_windows(self.resident.base.tokenizer, texts, self._max_tokens, self._windows)
        examples.targets = targets if examples.owner is None else targets[examples.owner]
        return examples

    def _pooled(self, examples: Examples, index: Sequence[int]) -> Tensor:
        ids, mask = examples.batch(index, self.resident.base.tokenizer.pad_token_id or 0, self.resident.base.device)
        fixed = examples.shape is not None
        return self._pool(
            self.resident.forward(ids, mask, examples.frozen_outputs, index, fixed=fixed).last_hidden_state, mask
        )

    def _features(self, examples: Examples, index: Sequence[int]) -> Tensor:
        """The pooled vector of each record, [n, H]; computed once for a record while only the head is trained.

        In fixed shapes missing ones are computed in a whole pass, beside others of their kind that are missing too.
        """
        version = self.resident.below_head
        if not version:
            return self._pooled(examples, index)
        kept, remembered = examples.features_below(version), self.resident.base.remembered
        for i in index if remembered.limit_mb else ():
            known = None if i in kept else remembered.get(self._key(examples, i, version))
            if known is not None:
                kept[i] = known
        missing = list(dict.fromkeys(i for i in index if i not in kept))
        if missing:
            asked, found = self._computed(examples, missing, examples.whole_pass(missing, kept, len(index)))
            kept.update((record, found[row].clone()) for row, record in enumerate(asked))
            for i in asked if remembered.limit_mb else ():
                remembered.put(self._key(examples, i, version), kept[i])
        return torch.stack([kept[i] for i in index])

    @torch.no_grad()
    def _computed(self, examples: Examples, missing: list[int], asked: list[int]) -> tuple[list[int], Tensor]:
        """(records, their features): of ``asked``, or if that pass raises of ``missing`` alone, in the same shape."""
        try:
            return asked, self._pooled(examples, asked)
        except Exception:
            own = missing + missing[:1] * (len(asked) - len(missing))
            return own, self._pooled(examples, own)

    def _key(self, examples: Examples, i: int, version: bytes) -> Key:
        """What another run knows this record's features by: the shape of its pass is a part of it."""
        padded = 0 if examples.shape is None else examples.shape.padded(examples.length(i))
        return -1, padded, version + examples.ids[i].tobytes()

    def vectors(self, examples: Examples, index: Sequence[int]) -> Tensor:
        """float32 [n, H], unit length: each record by the present adapter."""
        return F.normalize(self._features(examples, index), dim=-1)

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """Logits [n, L] over the whole public label list, whatever labels a site holds."""
        logits = self.logits(self.vectors(examples, index))
        return Output(logits, torch.from_numpy(examples.targets[list(index)]).to(logits.device))

    def logits(self, vectors: Tensor) -> Tensor:
        """[n, L] of vectors [n, H] of unit length."""
        scaled = self._scale * vectors
        if self.random.count:
            scaled = torch.cat([scaled, by_row(scaled, self._across).relu()], dim=-1)
        return (
            by_row(scaled, self.label_vectors) if self.resident.head is None else self.resident.module["head"](scaled)
        )

    def losses(self, output: Output) -> Tensor:
        """Cross entropy per record, [n]."""
        return F.cross_entropy(output.logits, output.targets, reduction="none")

    def divergence(self, output: Output, teacher: Output, temperature: float) -> Tensor:
        """T^2 KL(softmax(z_teacher / T) || softmax(z / T)) per record, [n]. Hinton et al. 2015, Li & Hoiem 2016."""
        student = F.log_softmax(output.logits / temperature, dim=-1)
        target = F.log_softmax(teacher.logits / temperature, dim=-1)
        return temperature**2 * F.kl_div(student, target, log_target=True, reduction="none").sum(dim=-1)

    def score(self, examples: Examples, batch: int = 128) -> dict[str, float]:
        """``accuracy`` and mean ``loss`` over all records."""
        right, loss = self._right_and_loss(examples, batch).mean(axis=1)
        return {"accuracy": float(right), "loss": float(loss)}

    def record_scores(self, examples: Examples, batch: int = 128) -> npt.NDArray[np.float64]:
        """1 where the best label is the right one, else 0; NaN where the loss is not finite; [n]."""
        right, loss = self._right_and_loss(examples, batch)
        return np.where(np.isfinite(loss), right, np.nan)

    def _right_and_loss(self, examples: Examples, batch: int) -> npt.NDArray[np.float64]:
        """Of each record, float64 [2, records]."""
        if examples.owner is None:
            return each_record(examples, batch, lambda index: self._both(examples, index), 2)
        logs, targets = log_chances(self, examples, batch), examples.record_targets
        loss = -logs[targets, np.arange(len(targets))]
        return np.stack([(logs.argmax(axis=0) == targets).astype(np.float64), loss])

    def _both(self, examples: Examples, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        output = only_candidates(self.forward(examples, index), examples.candidate_labels)
        return (output.logits.argmax(dim=-1) == output.targets).double(), self.losses(output)

    def predict(self, texts: Sequence[str], top: int = 3) -> list[list[tuple[str, float]]]:
        """The ``top`` labels of each text with their probabilities."""
        if not texts:
            return []
        examples = self.encode([{"text": text} for text in texts])
        return self._best(examples, top)

    def answer(self, rows: Sequence[Mapping[str, str]], top: int = 3) -> list[list[tuple[str, float]]]:
        """The same for rows with the columns that are asked about."""
        return self._best(self.encode(rows), top) if rows else []

    def _best(self, examples: Examples, top: int) -> list[list[tuple[str, float]]]:
        with torch.no_grad():
            logits = self.forward(examples, range(len(examples))).logits
        if examples.owner is not None:
            logs = examples.by_record(F.log_softmax(logits, dim=-1).double().cpu().numpy().T).T
            logits = torch.from_numpy(np.ascontiguousarray(logs))
        chances = F.softmax(logits, dim=-1)
        best = chances.topk(min(top, len(self.labels)), dim=-1)
        return [
            [(self.labels[int(i)], float(p)) for p, i in zip(ps, ix, strict=True)]
            for ps, ix in zip(best.values, best.indices, strict=True)
        ]


def only_candidates(output: Output, labels: Sequence[int] | None) -> Output:
    """Only ``labels`` can be the answer (the task of these records is known); None: all can."""
    if labels is None:
        return output
    barred = torch.full_like(output.logits, -torch.inf)
    barred[:, list(labels)] = 0.0
    return Output(output.logits + barred, output.targets, output.weight)


def log_chances(task: Task, examples: Examples, batch: int) -> npt.NDArray[np.float64]:
    """log p of each label for each record, mean over its rows, float64 [L, records]; minus infinity: it cannot be."""
    width = task.forward(examples, [0]).logits.shape[-1] if len(examples) else 0

    def logs(index: Sequence[int]) -> tuple[Tensor, ...]:
        output = only_candidates(task.forward(examples, index), examples.candidate_labels)
        return tuple(F.log_softmax(output.logits, dim=-1).T)

    return examples.by_record(each_record(examples, batch, logs, width))


def build(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``."""
    labels = dict(spec.labels)
    numbers = spec.scale, spec.max_tokens, spec.feature_seed, spec.windows
    return Classification(resident, labels, spec.pooling, *numbers)
