"""What an adapter says of texts, and where they stand in the frozen base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.monitor.drift import Reference, Vectors
from llmchain_fl.monitor.rates import Confusion, confusion_of
from llmchain_fl.monitor.settings import MonitorSettings

if TYPE_CHECKING:
    from llmchain_fl.core.tasks.classification import Classification

BATCH = 64


class Reader:
    """A classifier with its adapter in memory.

    Raises:
        ConfigError: the adapter answers with no labels, or does not know one that is watched.
        RunError, ModelError: it cannot be opened.
    """

    def __init__(self, adapter: Path, watch: Sequence[str]) -> None:
        from llmchain_fl.cli.trained import find_adapter, open_trained, own_columns, task_of

        folder = find_adapter(adapter)
        labels, self.columns = task_of(folder).labels, own_columns(folder)
        strange = [name for name in watch if name not in labels]
        if strange or task_of(folder).kind != "classification":
            fault = f"watch: {', '.join(strange)}" if strange else f"adapter: a {task_of(folder).kind} has no one label"
            raise ConfigError([fault], remedy=f"labels of this adapter: {', '.join(labels) or 'none'}")
        self._watch = frozenset(watch)
        self._task: Classification = open_trained(folder)[1]  # type: ignore[assignment]

    def says(self, texts: Sequence[str]) -> list[bool]:
        """Whether each is of a watched label."""
        answers = [
            one for start in range(0, len(texts), BATCH) for one in self._task.predict(texts[start : start + BATCH], 1)
        ]
        return [answer[0][0] in self._watch for answer in answers]

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """In the frozen base, adapter off; unit length, [n, H]."""
        vectors = self._task.frozen_features(self._task.encode([{"text": text} for text in texts]))
        return vectors.double().cpu().numpy().astype(np.float64)

    def held_against(self, settings: MonitorSettings) -> tuple[Confusion, Reference | None]:
        """What the public reference says of the classifier, and of texts.

        Raises:
            DataError: it cannot be read.
            ConfigError: it is too small, or says nothing of the watched labels.
        """
        from llmchain_fl.data.source import read_rows

        if not settings.reference:
            return Confusion(), None
        mapping = self.columns | {str(name): column for name, column in settings.reference_columns.items()}
        rows = read_rows(
            settings.reference, mapping=mapping, required=("text", "label"), split="test", seed=1,
            size=settings.reference_size, private=False,
        )  # fmt: skip
        texts = [row["text"] for row in rows.records]
        confusion = confusion_of(self.says(texts), [row["label"] in self._watch for row in rows.records])
        return confusion, Reference(self.vectors(texts), settings.limits.drift_directions)
