"""A frozen edition: the records of one task that may be trained on, as a file that the next stage reads like any other.

    {"text": ..., "label": ..., "person": ...}            of a task with labels
    {"prompt": ..., "answer": ..., "person": ...}         of a task that writes
    {"messages": [...], "person": ...}                    of a dialogue; the last turn is the one told

The person stands in it as ``same_person`` spells it, so the ledger charges whoever it has charged before. Persons come
sorted, each one's records by time: taking one person out takes this person's lines out and changes no other.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.privacy.durable import make_folder, replace
from llmchain_fl.core.privacy.units import same_person
from llmchain_fl.feedback.quarantine import Rules, judged
from llmchain_fl.feedback.record import COLUMNS, Record, row_of
from llmchain_fl.feedback.store import TRAIN, Store

Write = Callable[[Path, bytes], None]


@dataclass(frozen=True)
class Frozen:
    """An edition. ``left_out``: reason -> how many records; of this site's own knowledge, never sent."""

    name: str
    file: Path
    rows: int
    persons: int
    left_out: Mapping[str, int]


def freeze(
    store: Store, name: str, file: Path, task: str, model: str, rules: Rules, now: float, write: Write = replace
) -> Frozen:
    """Freeze what may be trained on by now; an edition of this name is only written anew.

    Args:
        model: name of the adapters (without version) whose feedback it is.

    Raises:
        ConfigError: a task whose feedback trains nothing; a name that has another file.
    """
    if task not in COLUMNS:
        raise ConfigError([f"feedback on {task} trains nothing"], remedy=f"tasks with a target: {', '.join(COLUMNS)}")
    reasons: Counter[str] = Counter()
    with store.writing() as made:
        there = made.execute("SELECT number, file FROM editions WHERE name = ?", (name,)).fetchone()
        if there is None:
            made.execute(
                "INSERT INTO editions (name, file, task, at, with_up, written) VALUES (?, ?, ?, ?, ?, 0)",
                (name, str(file.absolute()), task, now, int(rules.with_up)),
            )
            number = made.execute("SELECT last_insert_rowid()").fetchone()[0]
            for tenant, person in store.persons(task, model.partition("@")[0]):
                own = [
                    one for one in store.records("tenant = ? AND person = ?", (tenant, person)) if _of(one, task, model)
                ]
                for key, reason in judged(own, rules, now).items():
                    reasons[reason] += 1
                    if not reason:
                        made.execute("UPDATE rows SET edition = ? WHERE id = ?", (number, key))
        else:
            number = there[0]
            if Path(there[1]) != file.absolute():
                raise ConfigError(
                    [f"the edition {name} is {there[1]}"], remedy="freeze another edition under a new name"
                )
            made.execute("UPDATE editions SET written = 0 WHERE number = ?", (number,))
    make_folder(file.absolute().parent)
    settle(store, write)
    held = store.records("edition = ?", (number,))
    left = {reason: count for reason, count in sorted(reasons.items()) if reason}
    return Frozen(name, file, len(held), len({same_person(one.told.person) for one in held}), left)


def settle(store: Store, write: Write = replace) -> int:
    """Write every edition whose file is not what the store says; how many. Whatever broke off is made good by it."""
    done = 0
    while True:
        with store.writing() as made:
            query = "SELECT number, file, task, with_up FROM editions WHERE written = 0 ORDER BY number LIMIT 1"
            row = made.execute(query).fetchone()
            if row is None:
                return done
            number, file, task, with_up = row
            write(Path(file), lines(store.records("edition = ?", (number,)), task, bool(with_up)))
            made.execute("UPDATE editions SET written = 1 WHERE number = ?", (number,))
        done += 1


def lines(records: list[Record], task: str, with_up: bool = False) -> bytes:
    """The file of these records."""
    ordered = sorted(records, key=lambda one: (same_person(one.told.person), one.told.tenant, one.order))
    rows = [
        row_of(task, one.told.input, one.target(with_up)) | {"person": same_person(one.told.person)} for one in ordered
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "replace")


def _of(record: Record, task: str, model: str) -> bool:
    return record.told.task == task and record.told.model.partition("@")[0] == model.partition("@")[0]


def withdraw(store: Store, tenant: str, person: str, now: float | None = None, write: Write = replace) -> int:
    """A person takes consent to training back: rows deleted, editions written without them. How many rows."""
    deleted = store.withdraw(tenant, same_person(person), TRAIN, time.time() if now is None else now)
    settle(store, write)
    return deleted
