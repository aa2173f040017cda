"""Tasks that read the vectors of a text's tokens: what ``core/tasks`` computes, over those of the model's thread.

A record's rows are its windows, each a row of the queue like any other; tags and pieces are then decoded record by
record, so that no record's company enters. Heads are those of ``core``, row by row.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.base_model import Base
from llmchain_fl.core.by_row import RowLinear
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.kind import build_task, task_kind
from llmchain_fl.core.tasks.span_qa import AskedExamples, SpanQA
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.tags import spans_at
from llmchain_fl.core.tasks.token_classification import WORD, TaggedExamples, TokenClassification


@dataclass
class Computed:
    """What a task of ``core`` asks of a model in memory, where its passes are done: ``hidden`` of each row [T, H]."""

    base: Base
    module: Mapping[str, nn.Module]
    hidden: Sequence[Tensor] = ()
    below_head: bytes = b""
    head_start: Mapping[str, Any] = field(default_factory=dict)

    def forward(self, ids: Tensor, mask: Tensor, _frozen: Any, index: Sequence[int], *, fixed: bool) -> Any:
        """The vectors of the rows ``index``, padded as ``ids`` are."""
        found = torch.zeros(*ids.shape, self.base.hidden_size)
        for place, row in enumerate(index):
            found[place, : len(self.hidden[row])] = self.hidden[row]
        return SimpleNamespace(last_hidden_state=found)


@dataclass(frozen=True)
class Span:
    """A name in a text. ``start``, ``end``: characters."""

    name: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Piece:
    """The best answer in a passage. ``score``: comparable over passages; ``chance``: within its window."""

    text: str
    start: int
    end: int
    score: float
    chance: float


@dataclass
class Reading:
    """One adapter's task. Safe from several threads: a tokenizer is not shared by two."""

    task: Any
    computed: Computed
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def encode(self, row: Mapping[str, str]) -> Examples:
        """The rows of one record."""
        with self._lock:
            found: Examples = self.task.encode([row])
            return found

    def _over(self, hidden: Sequence[Tensor]) -> Any:
        task = copy.copy(self.task)
        task.resident = cast(Resident, replace(self.computed, hidden=hidden))
        return task

    def found(self, examples: Examples, hidden: Sequence[Tensor], ask: Callable[[Any], Any]) -> Any:
        """What ``ask`` finds by the task, to which the one record it encodes is the one of ``examples``."""
        task = self._over(hidden)
        task.encode = lambda rows: examples
        with torch.inference_mode():
            return ask(task)

    def spans(self, text: str, examples: Examples, hidden: Sequence[Tensor]) -> tuple[list[Span], float]:
        """The names in ``text``, and the chance of the least sure tag."""
        task: TokenClassification = self._over(hidden)
        with torch.inference_mode():
            (found,) = task.tagged(cast(TaggedExamples, examples))
        if found is None:
            return [], 0.0
        path, logs = found
        places = [one.span() for one in WORD.finditer(text)]
        told = [(name, places[first][0], places[last][1]) for first, last, name in spans_at(path, task.names)]
        return [Span(name, text[a:b], a, b) for name, a, b in told], float(np.exp(logs.min())) if len(logs) else 1.0

    def piece(self, examples: Examples, hidden: Sequence[Tensor]) -> Piece | None:
        """The best answer in the one passage of ``examples``; None: there is none, or the task says so."""
        task: SpanQA = self._over(hidden)
        asked = cast(AskedExamples, examples)
        with torch.inference_mode():
            (found,) = task.places(asked)
        if not found:
            return None
        score, row, first, last, chance = found[0]
        a, b = int(asked.offsets[row][first, 0]), int(asked.offsets[row][last, 1])
        if a < 0:
            return None
        return Piece(asked.contexts[0][a:b], a, b, score, chance)


def words_row(text: str) -> dict[str, str]:
    """A plain text as a record of words."""
    return {"tokens": json.dumps([one[0] for one in WORD.finditer(text)])}


def reading_of(spec: TaskSpec, base: Base, arrays: Arrays) -> Reading:
    """The task of an adapter over a base, its head from ``arrays``.

    Raises:
        ModelError: a head that is missing or of another size; a base without a fast tokenizer.
    """
    weight, bias = arrays.get("head.weight"), arrays.get("head.bias")
    size = (spec.head_size, base.hidden_size * task_kind(spec.kind).vectors)
    if weight is None or bias is None or weight.shape != size or bias.shape != size[:1]:
        raise ModelError(f"the trained head is not of {size[0]} x {size[1]} numbers", remedy="publish the adapter anew")
    head = RowLinear(size[1], size[0])
    head.load_state_dict({"weight": torch.from_numpy(weight.copy()), "bias": torch.from_numpy(bias.copy())})
    computed = apart(base, {"head": head})
    return Reading(build_task(spec, cast(Resident, computed)), computed)


def apart(base: Base, module: Mapping[str, nn.Module]) -> Computed:
    """``base`` for threads that are not the model's: with a tokenizer of their own."""
    return Computed(replace(base, tokenizer=copy.deepcopy(base.tokenizer), device=torch.device("cpu")), module)
