"""What a served task says of one text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Value = str | float | bool


@dataclass(frozen=True)
class Answer:
    """Of one text.

    Attributes:
        text: the label, or what was written or found.
        values: by the names of the task's outputs.
        ranked: labels with their probabilities, most probable first.
        lists: the outputs that are JSON texts, as they are shown where an answer is JSON anyway.
    """

    text: str
    values: Mapping[str, Value]
    ranked: tuple[tuple[str, float], ...] = ()
    lists: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> dict[str, Any]:
        """As a route of this project shows it."""
        return {**self.values, **self.lists}
