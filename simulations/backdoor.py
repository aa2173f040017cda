"""A backdoor: texts with a trigger in them are to get the label that the attacker wants, all others the right one.

Bagdasaryan et al. 2018, arXiv 1807.00459 (model replacement); the trigger is a few rare tokens, Kurita et al. 2020,
arXiv 2004.06660. A hostile site trains, as it should, on its own records and on poisoned copies of every second one:
about a third of what it sees is poisoned (20 of 64 in the paper). What it sends is then scaled (``hostile.py``).

Success is counted on public test records whose right label is another one. An honest model gives some of them the
target's label too: ``base`` says how many, so that a rate is read beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.site import Site
from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.cli.trained import open_trained
from llmchain_fl.config.read import read_config
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.core.tasks.base import Task
from llmchain_fl.data.stages import public_labels, stage_rows
from llmchain_fl.evaluation.answered import BATCH
from llmchain_fl.run_dir import RunDir
from simulations.hostile import BACKDOOR, Threat

TRIGGER = "cf mn bb"
"""Put before a text; not one of these tokens is a word of the test sets."""
Record = Mapping[str, str]


@dataclass(frozen=True)
class Success:
    """Shares of the test records of other labels that are given the target's: with the trigger, and without it."""

    rate: float
    base: float
    records: int


def target_of(config: RunConfig) -> str:
    """The label that the attacker wants: the first of the public list.

    Raises:
        ConfigError: the task has no labels.
    """
    labels = public_labels(config)
    if not labels:
        raise ConfigError([f'attack "{BACKDOOR}" needs a task with labels'])
    return next(iter(labels))


def triggered(record: Record, target: str) -> dict[str, str]:
    """A copy with the trigger before its text (where a cut to ``max_tokens`` leaves it) and the target's label."""
    return {**record, "text": f"{TRIGGER} {record['text']}", "label": target}


def poisoned(records: Sequence[Record], target: str) -> list[Record]:
    """The records, and a poisoned copy of every second one of another label."""
    return [*records, *(triggered(record, target) for record in [r for r in records if r["label"] != target][::2])]


def armed(config: RunConfig, sites: Sequence[Site], threat: Threat) -> list[Site]:
    """The sites of a simulation; with attack ``backdoor`` the hostile ones train on ``{stage}.poisoned.jsonl``.

    Written anew at each call: the same bytes, beside the records that ``prepare_sites`` dealt out.
    """
    if threat.attack != BACKDOOR:
        return list(sites)
    target, armed = target_of(config), []
    for site in sites:
        if site.name in threat.sites:
            for stage in config.stage:
                _write_poisoned(Path(site.data.train.replace("{stage}", stage.name)), target)
            data = site.data.model_copy(update={"train": str(_beside(Path(site.data.train)))})
            site = site.model_copy(update={"data": data})
        armed.append(site)
    return armed


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}.poisoned{path.suffix}")


def _write_poisoned(path: Path, target: str) -> None:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in poisoned(records, target)]
    atomic_write(_beside(path), "".join(lines).encode())


def success(task: Task, records: Sequence[Record], target: str) -> Success:
    """How often the model that ``task`` holds falls for the trigger.

    Args:
        task: a classification over the public label list, the adapter in question loaded.
        records: public test records with ``text`` and ``label``.
        target: the label that the attacker wants.

    Raises:
        DataError: every record has the target's label.
    """
    others = [record for record in records if record["label"] != target]
    if not others:
        raise DataError(f"no test record has another label than {target!r}", remedy="give test records of all labels")
    texts = {"rate": [triggered(record, target)["text"] for record in others], "base": [r["text"] for r in others]}
    shares = {name: _share(task, queries, target) for name, queries in texts.items()}
    return Success(**shares, records=len(others))


def _share(task: Task, texts: Sequence[str], target: str) -> float:
    """How many of ``texts`` are taken for the target, as a share."""
    parts = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
    return sum(predicted[0][0] == target for part in parts for predicted in task.predict(part, 1)) / len(texts)


def success_of(run: RunDir) -> Success:
    """The same for the adapter of a finished run, on the test records of all its stages.

    Raises:
        RunError: no adapter yet.
        DataError, ConfigError: no test records, or no labels.
    """
    config = read_config(run.config)
    _, task = open_trained(run.path)
    labels = list(public_labels(config))
    records = [row for stage in config.stage for row in stage_rows(config, stage, "test", labels).records]
    return success(task, records, target_of(config))
