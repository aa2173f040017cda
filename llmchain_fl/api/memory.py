"""Records in memory as a run's data: the files they go to, and what the settings say of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmchain_fl.api.records import STAGE, Staged, is_staged, rows_of, write_records
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.section import NAME

Row = dict[str, object]
Tree = dict[str, Any]


@dataclass(frozen=True)
class InMemory:
    """Records of a run.

    Attributes:
        folder: ``data`` in the run directory.
        train: site -> records; empty: as the settings say.
        test: public records; empty: as the settings say.
        stages: names of the stages, where records were given stage by stage.
    """

    folder: Path
    train: Mapping[str, Sequence[Row]]
    test: Sequence[Row]
    stages: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, train: Mapping[str, Staged] | None, test: Staged | None) -> InMemory:
        """Read what was given.

        Raises:
            ConfigError: no site, a site without a usable name, or only some of it given stage by stage.
            DataError: a data set without a record, or something that is none.
        """
        wrong = [name for name in train or {} if not re.fullmatch(NAME, str(name))]
        if train is not None and (not train or wrong):
            named = ", ".join(repr(name) for name in wrong) or "no site"
            raise ConfigError([f"train: {named}; it maps the names of sites (letters, digits, . _ -) to their records"])
        given = [*(train or {}).values(), *([] if test is None else [test])]
        staged = [is_staged(one) for one in given]
        if any(staged) and not all(staged):
            raise ConfigError(["train and test: give all records stage by stage, or none"])
        stages = dict.fromkeys(str(stage) for one in given if isinstance(one, Mapping) for stage in one)
        read = {name: rows_of(one, f"train[{name!r}]") for name, one in (train or {}).items()}
        return cls(folder, read, [] if test is None else rows_of(test, "test"), tuple(stages))

    def name_stages(self, tree: Tree) -> None:
        """Where the settings ``tree`` have no stage: those of the records."""
        if self.stages:
            tree.setdefault("stage", [{"name": name} for name in self.stages])

    def lay_into(self, tree: Tree) -> None:
        """Let the settings ``tree`` read the files that ``write`` makes."""
        data = tree.setdefault("data", {})
        stages = tree.get("stage", [])
        given = {"train": bool(self.train), "test": bool(self.test)}
        for which in (which for which, there in given.items() if there):
            data[which] = str(self.folder / ("train/{site}.jsonl" if which == "train" else "test.jsonl"))
            for settings in (data, *stages):
                settings.pop(f"{which}_size", None)
            for stage in stages:
                stage.pop(which, None)
        for stage in stages if self.stages else []:
            stage["where"] = {STAGE: stage.get("name", "")}
        if self.train:
            tree.setdefault("sites", {})["count"] = len(self.train)
        task = tree.setdefault("task", {})
        if self.test and (not task.get("labels") or str(task["labels"]).startswith("generated:")):
            task["labels"] = self._labels(data.get("columns", {}).get("label", "label"))

    def _labels(self, column: str) -> list[str]:
        """The labels of the public records: a list made of the sites' records would be a release."""
        return sorted({str(row[column]) for row in self.test if row.get(column) is not None})

    def write(self) -> None:
        """The files."""
        for name, rows in self.train.items():
            write_records(self.folder / "train" / f"{name}.jsonl", rows)
        if self.test:
            write_records(self.folder / "test.jsonl", self.test)
