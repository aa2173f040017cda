"""A task as it travels to a site, and the tables that turn it into a working one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llmchain_fl.adapter.resident import Resident
from llmchain_fl.tasks.base import Task
from llmchain_fl.tasks.causal_lm import CausalLM
from llmchain_fl.tasks.classification import Classification


@dataclass(frozen=True)
class TaskSpec:
    """What is learned: public constants only. ``labels``: (name, text) pairs in the order of the label space.

    ``among``: stage -> the labels (positions) that can be the answer when its records are scored; others: all.
    """

    kind: str
    head: str = "label-text"
    labels: tuple[tuple[str, str], ...] = ()
    scale: float = 20.0
    pooling: str = "mean"
    max_tokens: int = 64
    among: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def head_size(self) -> int:
        """Outputs of a trained head; 0 without one."""
        return len(self.labels) if self.kind == "classification" and self.head == "trained" else 0


def _classification(spec: TaskSpec, resident: Resident) -> Task:
    return Classification(resident, dict(spec.labels), spec.pooling, spec.scale, spec.max_tokens)


def _causal_lm(spec: TaskSpec, resident: Resident) -> Task:
    return CausalLM(resident, spec.max_tokens)


TASKS: Mapping[str, Callable[[TaskSpec, Resident], Task]] = MappingProxyType(
    {"classification": _classification, "causal-lm": _causal_lm, "plain-text": _causal_lm}
)
COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"classification": ("text", "label"), "causal-lm": ("prompt", "answer"), "plain-text": ("text",)}
)
BASE_KIND: Mapping[str, str] = MappingProxyType(
    {"classification": "encoder", "causal-lm": "causal-lm", "plain-text": "causal-lm"}
)


def build_task(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec`` over ``resident``."""
    return TASKS[spec.kind](spec, resident)
