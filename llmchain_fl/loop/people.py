"""Who asks in a loop, what a clerk knows, and what is public: read from the sources that the file names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from llmchain_fl.cli.trained import open_trained
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.privacy.units import same_person
from llmchain_fl.data.generated import bank_passages, leaflets
from llmchain_fl.data.source import read_rows
from llmchain_fl.data.stages import Sources, public_labels
from llmchain_fl.evaluation.abstain import Threshold, abstain_below
from llmchain_fl.loop.desk import User
from llmchain_fl.loop.settings import Loop
from llmchain_fl.run_dir import RunDir

MADE_UP = MappingProxyType({"generated:bank-passages": bank_passages, "generated:leaflets": leaflets})
"""Passages that this project writes itself."""
MESSAGES = 4
"""Of a user, so many are made up for each that is asked for: some users write more than others."""


def users_of(spec: Loop, run: RunDir) -> dict[str, list[User]]:
    """Site -> its users, dealt in turn.

    Raises:
        DataError: the source cannot be read, or has fewer persons than are asked for.
    """
    loop, own = spec.loop, dict[str, list[tuple[str, str]]]()
    for text, label, person in _read(spec, "train", MESSAGES * loop.count):
        own.setdefault(same_person(person), []).append((text, label))
    if len(own) < loop.count:
        raise DataError(f"has {len(own)} persons", where=loop.users, remedy=f"loop.count asks for {loop.count}")
    sites = sorted(path.name for path in run.sites.iterdir() if path.is_dir())
    users: dict[str, list[User]] = {site: [] for site in sites}
    for place, (name, messages) in enumerate(list(own.items())[: loop.count]):
        users[sites[place % len(sites)]].append(User(name, tuple(messages[: loop.most])))
    return users


def held_out_of(spec: Loop) -> list[tuple[str, str]]:
    """(message, right label) of others, which nobody corrects."""
    return [(text, label) for text, label, _ in _read(spec, "test", spec.loop.held_out)]


def _read(spec: Loop, split: str, size: int) -> list[tuple[str, str, str]]:
    """(text, label, person)."""
    columns, labels = ("text", "label", "person"), public_labels(spec.config)
    rows = read_rows(
        spec.loop.users, mapping={}, required=columns, split=split, seed=spec.config.seed, size=size, private=False
    )
    return [(row["text"], row["label"], row["person"]) for row in rows.records if row["label"] in labels]


def passages_of(source: str, file: Path) -> tuple[str, dict[str, str]]:
    """The file of the passages ("": none; made-up ones are written to ``file``), and id -> label where it says which.

    Raises:
        DataError: it cannot be read.
    """
    rows: Sequence[Mapping[str, str]]
    if source in MADE_UP:
        rows, source = MADE_UP[source](), str(file.absolute())
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif source:
        rows = read_rows(source, mapping={}, required=("text",), split="train", seed=1, private=False).records
        source = str(Path(source).absolute())
    else:
        rows = []
    return source, {row["id"]: row["label"] for row in rows if "id" in row and "label" in row}


def threshold_of(spec: Loop, run: RunDir) -> Threshold:
    """``abstain_below`` on the public test records of the run's stages, for the accuracy that the loop asks for.

    Raises:
        ConfigError: no threshold makes answers so often right.
    """
    config, sources = spec.config, Sources()
    labels = list(public_labels(config))
    rows = [row for stage in config.stage for row in sources.stage(config, stage, "test", labels).records]
    answers = _asked(run, [row["text"] for row in rows])
    right = [label == row["label"] for (label, _), row in zip(answers, rows, strict=True)]
    return abstain_below([chance for _, chance in answers], right, spec.loop.accuracy)


def answered(run: RunDir, held_out: Sequence[tuple[str, str]]) -> list[str]:
    """By the run itself: what the gate has refused is not served."""
    return [label for label, _ in _asked(run, [text for text, _ in held_out])]


def _asked(run: RunDir, texts: Sequence[str]) -> list[tuple[str, float]]:
    _, task = open_trained(run.path)
    return [best[0] for start in range(0, len(texts), 64) for best in task.predict(texts[start : start + 64], 1)]
