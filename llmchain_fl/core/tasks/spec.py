"""A task as it travels to a site, and the tables that turn it into a working one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.ranges import Bound, Range, range_faults
from llmchain_fl.core.tasks.base import Task
from llmchain_fl.core.tasks.causal_lm import CausalLM
from llmchain_fl.core.tasks.classification import POOLINGS, Classification


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

    def faults(self) -> list[str]:
        """Fields outside their bounds, one line each; an empty head is one."""
        found = range_faults(self, _BOUNDS)
        names = [name for name, _ in self.labels]
        if self.kind == "classification" and not names:
            found.append("labels: a classifier needs at least one")
        if len(names) > MOST_LABELS or len(set(names)) < len(names):
            found.append(f"labels: at most {MOST_LABELS} different ones")
        if any(not 0 < len(text) <= 2000 for label in self.labels for text in label):
            found.append("labels: names and texts of 1 to 2,000 characters")
        if len(self.among) > 10_000 or any(not kept or not _positions(kept, len(names)) for _, kept in self.among):
            found.append("among: positions in the label list, at least one for each stage")
        return found


_BOUNDS: Mapping[str, Bound] = MappingProxyType(
    {
        "kind": ("classification", "causal-lm", "plain-text"),
        "head": ("label-text", "trained"),
        "scale": Range(0, 1000, above=True),
        "pooling": tuple(POOLINGS),
        "max_tokens": Range(4, 32_768),
    }
)
MOST_LABELS = 100_000


def _positions(kept: tuple[int, ...], count: int) -> bool:
    return len(set(kept)) == len(kept) and all(0 <= position < count for position in kept)


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
