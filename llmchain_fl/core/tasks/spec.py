"""A task as it travels to a site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from llmchain_fl.core.ranges import Bound, Range, range_faults, value_fault
from llmchain_fl.core.tasks.kind import TASKS, is_known, task_kind


@dataclass(frozen=True)
class StageLabels:
    """The labels (positions) that a round teaches. ``own``: its stage's; ``earlier``: those of stages it rehearses."""

    own: tuple[int, ...]
    earlier: tuple[int, ...] = ()


@dataclass(frozen=True)
class TaskSpec:
    """What is learned: public constants only. ``labels``: (name, text) pairs in the order of the label space.

    ``candidate_labels``: stage -> the labels (positions) that can be the answer when its records are scored;
    others: all. ``stage_labels``: stage -> the labels that it teaches; empty where no guard asks.
    ``features``: random ones, drawn by ``feature_seed``, in front of a trained head.
    ``windows``: most rows that a long record is read in.
    ``low``, ``high``: the range of a number that is learned; one beyond it is its end.
    ``template``: ``base``: the base's own chat template; ``plain``: the one of ``chat.py``.
    ``instruction``: what stands before a text that is to be written anew.
    """

    kind: str
    head: str = "label-text"
    labels: tuple[tuple[str, str], ...] = ()
    scale: float = 20.0
    pooling: str = "mean"
    max_tokens: int = 64
    candidate_labels: tuple[tuple[str, tuple[int, ...]], ...] = ()
    stage_labels: tuple[tuple[str, tuple[int, ...]], ...] = ()
    features: int = 0
    feature_seed: int = 1
    windows: int = 1
    low: float = 0.0
    high: float = 1.0
    template: str = "base"
    instruction: str = ""

    @property
    def head_size(self) -> int:
        """Outputs of a trained head; 0 without one."""
        return task_kind(self.kind).head(self)

    @property
    def trains_head(self) -> bool:
        """Whether a head is trained, told without importing a kind of another package."""
        return self.head == "trained" or (self.kind in TASKS and TASKS[self.kind].head(self) > 0)

    def taught(self, stage: str, earlier: Sequence[str] = ()) -> StageLabels | None:
        """What a round of ``stage`` teaches that rehearses ``earlier``; None: the labels of ``stage`` are not told."""
        told = dict(self.stage_labels)
        if stage not in told:
            return None
        return StageLabels(told[stage], tuple(sorted({label for name in earlier for label in told.get(name, ())})))

    def faults(self) -> list[str]:
        """Fields outside their bounds, one line each; an empty head is one.

        Imports no plug-in: that a site allows the kind of another package (``limits.plugins``) is checked before.
        """
        found = range_faults(self, _BOUNDS)
        if not is_known(self.kind):
            found.append(value_fault("kind", self.kind, tuple(TASKS)))
        if not self.low < self.high:
            found.append("low: below high")
        names = [name for name, _ in self.labels]
        if self.kind in TASKS and TASKS[self.kind].named and not names:
            found.append("labels: a task with labels needs at least one")
        if len(names) > MOST_LABELS or len(set(names)) < len(names):
            found.append(f"labels: at most {MOST_LABELS} different ones")
        if any(not 0 < len(text) <= 2000 for label in self.labels for text in label):
            found.append("labels: names and texts of 1 to 2,000 characters")
        if len(self.instruction) > MOST_INSTRUCTION:
            found.append(f"instruction: at most {MOST_INSTRUCTION} characters")
        found += [
            f"{field}: positions in the label list, at least one for each stage"
            for field, told in (("candidate_labels", self.candidate_labels), ("stage_labels", self.stage_labels))
            if len(told) > 10_000 or any(not kept or not _positions(kept, len(names)) for _, kept in told)
        ]
        if self.features and self.head != "trained":
            found.append("features: random ones stand in front of a trained head alone")
        if self.features and self.kind in TASKS and not TASKS[self.kind].pooled:
            found.append("features: random ones stand behind the one vector of a text, which this kind does not take")
        return found


MOST_WINDOWS, MOST_INSTRUCTION = 1024, 2000
MOST_FEATURES = 8192
"""Most random features: the sums of 8,576 features are 37 million numbers."""

_BOUNDS: Mapping[str, Bound] = MappingProxyType(
    {
        "head": ("label-text", "trained"),
        "scale": Range(0, 1000, above=True),
        "pooling": ("mean", "cls"),
        "max_tokens": Range(4, 32_768),
        "features": Range(0, MOST_FEATURES),
        "feature_seed": Range(0, 2**63),
        "windows": Range(1, MOST_WINDOWS),
        "low": Range(-1e9, 1e9),
        "high": Range(-1e9, 1e9),
        "template": ("base", "plain"),
    }
)
MOST_LABELS = 100_000


def _positions(kept: tuple[int, ...], count: int) -> bool:
    return len(set(kept)) == len(kept) and all(0 <= position < count for position in kept)
