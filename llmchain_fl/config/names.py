"""Settings that name something of a table: checked against what is registered, with the nearest known name."""

from __future__ import annotations

from collections.abc import Callable, Collection

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from llmchain_fl.core.plugins import names_of
from llmchain_fl.core.tasks.kind import TASKS, is_known
from llmchain_fl.core.words import nearest


def one_of(names: Callable[[], Collection[str]]) -> AfterValidator:
    """``Annotated[str, one_of(...)]``: one of ``names()``, asked when a value is checked."""

    def known(name: str) -> str:
        choices = list(names())
        if name in choices:
            return name
        context = {"known": ", ".join(choices), "hint": nearest(name, choices)}
        raise PydanticCustomError("unknown_name", "Input should be one of {known}{hint}", context)

    return AfterValidator(known)


def known_task(name: str) -> str:
    """The name of a kind of task that is here (nothing of another package is imported)."""
    if is_known(name):
        return name
    known = names_of("tasks", TASKS)
    raise PydanticCustomError(
        "unknown_task",
        "Input should be {known}{hint}",
        {"known": f"one of {', '.join(known)}", "hint": nearest(name, known)},
    )
