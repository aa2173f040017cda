"""A local trainer of the user's own, in place of ``client/local.py``: Hugging Face's, TRL's, or ten lines of torch.

It gets the model with the adapter attached, the site's records as token ids, and the run's settings of the local loop;
it trains the model in place. What it did is read off the adapter afterwards.

===============================================  ==========================================================
case                                             result
===============================================  ==========================================================
``privacy.enabled``                              refused: nothing bounds what one person adds to its update
a guard that acts inside the local loop          refused: the loop that it acts in is not played
backend ``ray``                                  refused: a function of this process does not reach its actors
it replaces the adapter's tensors                their values are copied back to where the adapter is
nothing moved, or not to finite numbers          TrainingError, as for our own loop
===============================================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from client.local import check_moved
from client.training import LocalResult, Train
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import ConfigError, PrivacyError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.units import Batch
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.work import TrainSpec
from llmchain_fl.guards import GUARDS

Record = Mapping[str, Any]
IGNORED = -100
"""The label of a token that the loss of a transformers model leaves out."""


@dataclass(frozen=True)
class LocalSpec:
    """The run's settings of the local loop, for whoever replaces it. ``tokenizer``: of the base model."""

    lr: float
    steps: int
    batch_size: int
    seed: int
    tokenizer: Any


OwnTrainer = Callable[[nn.Module, list[Record], LocalSpec], None]
"""``(model, records, spec) -> None``: trains ``model`` in place."""


def refuse(config: RunConfig, backend: str) -> None:
    """Say why a run cannot have a trainer of the user's own.

    Raises:
        ConfigError: see the table above.
    """
    faults = []
    if config.privacy.enabled:
        faults.append(
            "an own trainer with privacy.enabled: DP-SGD clips and noises each step per person; nothing bounds what a "
            "person adds to the update of another trainer"
        )
    inside = [guard for guard in config.continual.guards if GUARDS[guard].site is not None]
    if inside:
        faults.append(f"an own trainer with the guards {', '.join(inside)}: they act inside the local loop it replaces")
    if config.train.proximal:
        faults.append("an own trainer with train.proximal: that term is part of the local loop it replaces")
    if backend != "in-process":
        faults.append(f"an own trainer with backend {backend}: it runs in this process only")
    if faults:
        raise ConfigError(faults)


def loop_of(trainer: OwnTrainer) -> Train:
    """``trainer`` in the place of ``client.local.train_round``."""

    def loop(
        task: Task,
        examples: Examples,
        _batches: Iterable[Batch],
        spec: TrainSpec,
        plan: PrivacyPlan | None,
        _guards: SiteGuards,
        lr: float,
    ) -> LocalResult:
        if plan is not None:
            raise PrivacyError("an own trainer in a private run", remedy="set privacy.enabled = false")
        resident = task.resident
        views, start = {name: one.data for name, one in resident.parameters.items()}, resident.trained.clone()
        wish = LocalSpec(lr, spec.steps, max(1, round(spec.batch_size)), spec.seed, resident.base.tokenizer)
        try:
            trainer(model_of(task), records_of(task, examples), wish)
        finally:
            _put_back(task, views)
        moved = not torch.equal(start, resident.trained)
        check_moved(resident.trained, start, moved, expected=len(examples) > 0)
        tokens = examples.tokens(range(len(examples)))
        return LocalResult(resident.arrays(resident.trained_names), spec.steps, len(examples), tokens)

    return loop


def model_of(task: Task) -> nn.Module:
    """What is trained: the causal language model itself, with LoRA layers in it; of an encoder, base and task."""
    resident = task.resident
    base: nn.Module = resident.base.module
    return base if _is_causal(task) else TaskModel(task)


def records_of(task: Task, examples: Examples) -> list[Record]:
    """``input_ids``, ``attention_mask`` and ``labels``: a causal model's tokens (prompt: -100), else the target.

    A record of several rows is so many records here: their weights are not told.

    Raises:
        ConfigError: a kind of task whose records are more than tokens and one target.
    """
    if examples.notes or task.resident.base.two_stacks:
        raise ConfigError(["an own trainer with this task.kind: its records are more than tokens and a target"])
    causal = _is_causal(task)
    return [_record(ids, int(target), causal) for ids, target in zip(examples.ids, examples.targets, strict=True)]


def _record(ids: np.ndarray[Any, np.dtype[np.int64]], target: int, causal: bool) -> Record:
    tokens: Sequence[int] = ids.tolist()
    labels = [IGNORED] * target + list(tokens[target:]) if causal else target
    return {"input_ids": list(tokens), "attention_mask": [1] * len(tokens), "labels": labels}


class TaskModel(nn.Module):
    """Base, adapter and task as one module, called as transformers' own models are."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.inner = task.resident.module
        self._task = [task]  # in a list: the task is no submodule

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``logits``, and with ``labels`` (int64 [n]) the mean ``loss``."""
        task, rows = self._task[0], range(len(input_ids))
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        ids = [row[seen.bool()].cpu().numpy() for row, seen in zip(input_ids, mask, strict=True)]
        targets = np.zeros(len(ids), dtype=np.int64) if labels is None else labels.cpu().numpy()
        output = task.forward(Examples(ids, targets), rows)
        fields = {"logits": output.logits}
        return fields if labels is None else {"loss": task.losses(output).mean(), **fields}


def _is_causal(task: Task) -> bool:
    return task.resident.spec.base.kind != "encoder"


def _put_back(task: Task, views: Mapping[str, Tensor]) -> None:
    """The adapter lies in one vector again (``core/adapter/resident.py``), with the values that it has now."""
    resident = task.resident
    with torch.no_grad():
        for name, parameter in resident.parameters.items():
            if parameter.data_ptr() != views[name].data_ptr():
                views[name].copy_(parameter.data)
                parameter.data = views[name]
            parameter.requires_grad_(name in resident.trained_names)
            parameter.grad = None
    resident.module.train()
