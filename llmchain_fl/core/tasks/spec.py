"""A task as it travels to a site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llmchain_fl.core.ranges import Bound, Range, range_faults, value_fault
from llmchain_fl.core.tasks.kind import TASKS, is_known, task_kind


@dataclass(frozen=True)
class TaskSpec:
    """What is learned: public constants only. ``labels``: (name, text) pairs in the order of the label space.

    ``candidate_labels``: stage -> the labels (positions) that can be the answer when its records are scored;
    others: all.
    """

    kind: str
    head: str = "label-text"
    labels: tuple[tuple[str, str], ...] = ()
    scale: float = 20.0
    pooling: str = "mean"
    max_tokens: int = 64
    candidate_labels: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def head_size(self) -> int:
        """Outputs of a trained head; 0 without one."""
        return task_kind(self.kind).head(self)

    def faults(self) -> list[str]:
        """Fields outside their bounds, one line each; an empty head is one.

        Imports no plug-in: that a site allows the kind of another package (``limits.plugins``) is checked before.
        """
        found = range_faults(self, _BOUNDS)
        if not is_known(self.kind):
            found.append(value_fault("kind", self.kind, tuple(TASKS)))
        names = [name for name, _ in self.labels]
        if self.kind in TASKS and TASKS[self.kind].labelled and not names:
            found.append("labels: a task with labels needs at least one")
        if len(names) > MOST_LABELS or len(set(names)) < len(names):
            found.append(f"labels: at most {MOST_LABELS} different ones")
        if any(not 0 < len(text) <= 2000 for label in self.labels for text in label):
            found.append("labels: names and texts of 1 to 2,000 characters")
        if len(self.candidate_labels) > 10_000 or any(
            not kept or not _positions(kept, len(names)) for _, kept in self.candidate_labels
        ):
            found.append("candidate_labels: positions in the label list, at least one for each stage")
        return found


_BOUNDS: Mapping[str, Bound] = MappingProxyType(
    {
        "head": ("label-text", "trained"),
        "scale": Range(0, 1000, above=True),
        "pooling": ("mean", "cls"),
        "max_tokens": Range(4, 32_768),
    }
)
MOST_LABELS = 100_000


def _positions(kept: tuple[int, ...], count: int) -> bool:
    return len(set(kept)) == len(kept) and all(0 <= position < count for position in kept)
