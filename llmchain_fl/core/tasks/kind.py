"""What a kind of task declares, and the table of them. Needs no torch: configurations are checked against it.

To add one: a file with the task's class, its ``TaskKind`` (in ``kinds.py``), and one line in ``TASKS``; or in another
package an entry point of the group ``llmchain_fl.tasks`` that names the ``TaskKind``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmchain_fl.core.data.lists import listed_words
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.plugins import Named, installed, load, named
from llmchain_fl.core.tasks.metric import Metric

if TYPE_CHECKING:
    from llmchain_fl.core.adapter.resident import Resident
    from llmchain_fl.core.tasks.base import Task
    from llmchain_fl.core.tasks.spec import TaskSpec

Fault = Callable[[Mapping[str, str], Container[str]], str]
BASE_KINDS = ("encoder", "causal-lm", "generator")
"""What a base model gives: a vector a token, or the next token; a generator: the next token, whether it is a decoder
alone or one with an encoder, as its folder says."""


@dataclass(frozen=True)
class TaskKind:
    """One kind of task.

    Attributes:
        columns: what every record must have; with ``label`` a public label list belongs to the task.
        base_kind: which base model it stands on, one of ``BASE_KINDS``.
        metrics: its scores; the first is the main one, and that has a finite bound.
        build: makes the working task, or where that is, ``module:attribute``.
        head: outputs of the head that is trained with the adapter; 0: none.
        generates: whether the working task can draw records of its own from the model (``sampled``).
        names: whether a public list of names belongs to it that are no label of a whole record (tags of words).
        pooled: whether its logits are a head on one vector of the text (``vectors``): what has a closed form.
        answers: the columns that a prediction fills; the others are asked about.
        windows: rows of ``max_tokens`` tokens that a long record may have, where a run says nothing.
        vectors: how many vectors of the base a trained head reads.
        hub: what a model hub calls it; "": a plain classifier, or a language model.
        counts: most that the counts of one unit (right, wrong, missed) weigh in a score that is released with noise, as
            the length of the three; 0: a record's score is a number that can be averaged.
        fault: (record, names of the list) -> why it is no record of this kind, without a word of it; "": it is one.
            Or where that is, ``module:attribute``.
        optional: columns that a record may have beside these, and is answered by.
        asked_fault: the same of a record that is only asked about; None: as ``fault``.
        made_up: words -> a record nobody wrote; None: the words in each column, the first label.
    """

    columns: tuple[str, ...]
    base_kind: str
    metrics: tuple[Metric, ...]
    build: str | Callable[[TaskSpec, Resident], Task]
    head: Callable[[TaskSpec], int] = lambda spec: 0
    generates: bool = False
    names: bool = False
    pooled: bool = False
    answers: tuple[str, ...] = ("label",)
    windows: int = 1
    vectors: int = 1
    hub: str = ""
    counts: float = 0.0
    fault: str | Fault | None = None
    asked_fault: str | Fault | None = None
    made_up: Callable[[str], dict[str, str]] | None = None
    optional: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether every record has one label of a public list."""
        return "label" in self.columns and not self.names

    @property
    def named(self) -> bool:
        """Whether a public list of names belongs to the task."""
        return self.labelled or self.names

    @property
    def asked(self) -> tuple[str, ...]:
        """What a record must have to be answered."""
        return tuple(column for column in self.columns if column not in self.answers)

    def text_of(self, row: Mapping[str, str]) -> str:
        """The words of a record: every column but names of a public list, tags and places."""
        words = [*(self.columns if self.writes else self.asked), *(name for name in self.optional if name in row)]
        return " ".join(listed_words(column, row[column]) for column in words if column in row)

    def fault_of(self, row: Mapping[str, str], names: Container[str]) -> str:
        """Why ``row`` is no record of this kind; a function of this row and the list alone."""
        judge = named(self.fault) if isinstance(self.fault, str) else self.fault
        return str(judge(row, names)) if callable(judge) else ""

    def made_up_row(self, words: str, label: str) -> dict[str, str]:
        """A record that nobody wrote, out of ``words``."""
        row = dict.fromkeys(self.columns, words) if self.made_up is None else self.made_up(words)
        return row | {"label": label} if "label" in self.columns else row

    @property
    def writes(self) -> bool:
        """Whether its answers are texts that a language model writes."""
        return self.base_kind != "encoder" and not self.labelled

    def faults(self) -> list[str]:
        """What makes it no kind of task, one line each."""
        checks = [
            (not self.columns, "columns: at least one"),
            (self.base_kind not in BASE_KINDS, f"base_kind: one of {', '.join(BASE_KINDS)}"),
            (not self.metrics, "metrics: at least one"),
            (bool(self.metrics) and not 0 < self.metrics[0].bound < math.inf, "metrics: the main one needs a bound"),
        ]
        return [text for wrong, text in checks if wrong]


TASKS: Mapping[str, TaskKind] = Named(
    {
        "classification": "llmchain_fl.core.tasks.kinds:CLASSIFICATION",
        "causal-lm": "llmchain_fl.core.tasks.kinds:CAUSAL_LM",
        "plain-text": "llmchain_fl.core.tasks.kinds:PLAIN_TEXT",
        "masked-lm": "llmchain_fl.core.tasks.kinds:MASKED_LM",
        "token-classification": "llmchain_fl.core.tasks.kinds:TOKEN_CLASSIFICATION",
        "span-qa": "llmchain_fl.core.tasks.kinds:SPAN_QA",
        "span-qa-or-none": "llmchain_fl.core.tasks.kinds:SPAN_QA_OR_NONE",
        "relation": "llmchain_fl.core.tasks.kinds:RELATION",
        "pair-classification": "llmchain_fl.core.tasks.kinds:PAIR_CLASSIFICATION",
        "multi-label": "llmchain_fl.core.tasks.kinds:MULTI_LABEL",
        "regression": "llmchain_fl.core.tasks.kinds:REGRESSION",
        "ranking": "llmchain_fl.core.tasks.kinds:RANKING",
        "dialogue": "llmchain_fl.core.tasks.kinds:DIALOGUE",
        "summarisation": "llmchain_fl.core.tasks.kinds:SUMMARISATION",
        "translation": "llmchain_fl.core.tasks.kinds:TRANSLATION",
        "label-words": "llmchain_fl.core.tasks.kinds:LABEL_WORDS",
    }
)
"""What each is stands in ``kinds.py``, and is imported when it is asked for."""


def is_known(name: str) -> bool:
    """Whether some kind has this name: this project's, or one of another package (which is not imported)."""
    return name in TASKS or name in installed("tasks")


def task_kind(name: str) -> TaskKind:
    """The kind of this name; one of another package is imported now.

    Raises:
        ConfigError: there is none, it cannot be imported, or what its entry names is no sound ``TaskKind``.
    """
    found = load("tasks", name, TASKS)
    if not isinstance(found, TaskKind):
        raise ConfigError([f"the plug-in llmchain_fl.tasks: {name} is no TaskKind"])
    if faults := found.faults():
        raise ConfigError([f"the plug-in llmchain_fl.tasks: {name}: {fault}" for fault in faults])
    return found


def build_task(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec`` over ``resident``.

    Raises:
        ConfigError: see :func:`task_kind`.
    """
    kind = task_kind(spec.kind)
    make = named(kind.build) if isinstance(kind.build, str) else kind.build
    task: Task = make(spec, resident)  # type: ignore[operator]
    task.metrics, task.counts = kind.metrics, kind.counts
    return task
