"""Tasks that make their own prompts (dialogue, summarisation, translation), asked for a prompt and nothing more.

The adapter's task of ``core`` runs its own ``predict`` or ``answer``, with a ``continued`` that writes nothing and
notes what it was given. So template, instruction, what is cut, how many tokens are written and those that end a text
are those of training and of ``llmchain-fl predict`` by construction.

| case | result |
|---|---|
| one text | a dialogue: the user's first turn; else the source |
| messages, of a dialogue | the conversation; what does not fit into a row of the run loses its first turns |
| messages, else | the content of one message of the user; others: ApiError 400 |
| messages that are no conversation, end with the assistant, or that the template refuses | ApiError 400 |
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.base_model import Base
from llmchain_fl.core.data.turns import Turns
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.tasks.base import Numbers
from llmchain_fl.core.tasks.kind import TaskKind, build_task, task_kind
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.serve import refusals
from llmchain_fl.serve.reading import apart


@dataclass(frozen=True)
class Asked:
    """A prompt. ``most``: tokens that the task writes; ``ends``: at which it ends, None: those of the base.

    ``given``: what a receipt is for, where it is another text than that of the request.
    """

    ids: Numbers
    most: int
    ends: frozenset[int] | None = None
    given: str = ""


@dataclass
class Asking:
    """One adapter's task. Safe from several threads: a tokenizer is not shared by two."""

    task: Any
    kind: TaskKind
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def column(self) -> str:
        """What is asked."""
        return self.kind.asked[0] if self.kind.asked else self.kind.columns[0]

    def text(self, text: str) -> Asked:
        """Of one text.

        Raises:
            ApiError: see the table of this file.
        """
        if isinstance(self.column, Turns):
            return self._of([{"role": "user", "content": text}], "prompt")
        return self._noted(lambda task: task.predict([text]), "prompt")

    def reply(self, turns: Sequence[tuple[str, str]]) -> Asked:
        """Of (role, content) of each turn.

        Raises:
            ApiError: see the table of this file.
        """
        if isinstance(self.column, Turns):
            return self._of([{"role": role, "content": content} for role, content in turns], "messages")
        if len(turns) != 1 or turns[0][0] != "user":
            raise refusals.bad("messages", "this model reads one text: send one message of the role user")
        return self._noted(lambda task: task.predict([turns[0][1]]), "messages")

    def _of(self, turns: Sequence[Mapping[str, str]], param: str) -> Asked:
        told = Turns(self.column).text(list(turns))
        if told is None:
            raise refusals.bad(param, "a content that is no text")
        row = {self.column: told}
        fault = replace(self.kind, fault=self.kind.asked_fault or self.kind.fault).fault_of(row, ())
        if fault or turns[-1]["role"] != "user":
            raise refusals.bad(param, fault or "the last message is not the user's")
        return self._noted(lambda task: task.answer([row]), param, told)

    def _noted(self, ask: Callable[[Any], object], param: str, given: str = "") -> Asked:
        """What the task would have written behind."""
        found = list[Asked]()

        def continued(prompt: Numbers, most: int, stops: Sequence[int] | None = None) -> str:
            found.append(Asked(prompt, most, None if stops is None else frozenset(stops), given))
            return ""

        with self._lock:
            task = copy.copy(self.task)
            task.continued = continued
            try:
                ask(task)
            except ModelError:
                raise refusals.bad(param, "the chat template of this base does not take these roles") from None
        return found[0]


def asking_of(spec: TaskSpec, base: Base) -> Asking:
    """The task of an adapter over a base.

    Raises:
        ModelError: the base has no template for it.
    """
    return Asking(build_task(spec, cast(Resident, apart(base, {}))), task_kind(spec.kind))
