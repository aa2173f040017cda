"""What two marked things in a text have to do with each other, by an encoder and a trained head.

logits = W [h_1 ; h_2] + b, h_k = scale x (token vector at the opening sign of the k-th thing) / |...|, W and b start at
0. Marks and signs: ``marked.py``. One row a record: a longer text is cut around both things, and counts as cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.tasks.base import Examples, Numbers, Output, Task
from llmchain_fl.core.tasks.classification import Classification, log_chances
from llmchain_fl.core.tasks.marked import kept, relation_f1, signed, token_at
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.text import token_ids


class Relation(Classification):
    """A classifier over pairs of marked things. A note: the places of both opening signs."""

    def __init__(self, resident: Resident, labels: Mapping[str, str], scale: float, max_tokens: int) -> None:
        if not getattr(resident.base.tokenizer, "is_fast", False):
            raise ModelError(
                "the base's tokenizer does not say where its tokens stand", remedy="use a base with a fast tokenizer"
            )
        self.start(resident, labels, scale, max_tokens)
        self._before, self._behind = ends_of(resident)

    def encode(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        """Rows with a marked ``text`` (and ``label``)."""
        tokenizer, room = self.resident.base.tokenizer, self._max_tokens - len(self._before) - len(self._behind)
        ids, notes, cut = list[Numbers](), list[Numbers](), 0
        for row in rows:
            text, *spans = signed(row["text"])
            told = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            places = np.array(told["offset_mapping"], dtype=np.int64).reshape(-1, 2)
            chosen = kept(places, spans, room)
            tokens = np.array(told["input_ids"], dtype=np.int64)[chosen]
            ids.append(np.concatenate([self._before, tokens, self._behind]))
            opening = [chosen.index(token_at(places, start)) for start, _ in spans]
            notes.append(np.array(opening, dtype=np.int64) + len(self._before))
            cut += len(chosen) < len(places)
        targets = np.array([self._position.get(row.get("label", ""), -1) for row in rows], dtype=np.int64)
        return Examples(ids, targets, notes=notes, cut=cut)

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """Logits [n, L] over the whole public label list."""
        ids, mask = examples.batch(index, self.resident.base.tokenizer.pad_token_id or 0, self.resident.base.device)
        fixed = examples.shape is not None
        hidden = self.resident.forward(ids, mask, examples.frozen_outputs, index, fixed=fixed).last_hidden_state
        at = torch.from_numpy(examples.noted(index, 2, 0)).to(ids.device)
        vectors = hidden.float().gather(1, at[:, :, None].expand(-1, -1, hidden.shape[-1]))
        both = (self._scale * F.normalize(vectors, dim=-1)).flatten(1)
        logits: Tensor = self.resident.module["head"](both)
        return Output(logits, torch.from_numpy(examples.targets[list(index)]).to(logits.device))

    def score(self, examples: Examples, batch: int = 128) -> dict[str, float]:
        """``accuracy`` and ``loss`` of a classifier, and ``relation_f1``."""
        answers = log_chances(self, examples, batch).argmax(axis=0)
        told = super().score(examples, batch)
        return {
            "accuracy": told["accuracy"],
            "relation_f1": relation_f1(examples.targets, answers, self.labels),
            "loss": told["loss"],
        }


def ends_of(resident: Resident) -> tuple[Numbers, Numbers]:
    """What the tokenizer puts before and behind a text."""
    tokenizer = resident.base.tokenizer
    (bare,), (whole,) = (token_ids(tokenizer, ["a"], 100, special=special) for special in (False, True))
    at = next((k for k in range(len(whole) - len(bare) + 1) if np.array_equal(whole[k : k + len(bare)], bare)), 0)
    return whole[:at], whole[at + len(bare) :]


def build(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``."""
    return Relation(resident, dict(spec.labels), spec.scale, spec.max_tokens)
