"""The records, stage by stage, read as a round would read them; counts and lengths only.

====================================================  =====================================================
in a stage's source                                   line
====================================================  =====================================================
records that fit                                      ok: records, persons, labels
not there, no table, a column missing                 refusal
nothing that fits                                     refusal: its rounds would be paid for and hold noise
a record that does not fit, a person without an id    warning: how many, by reason
somebody twice, where the unit is one record          warning: the most of one person
no record with a label of the stage                   warning
fewer persons than 1 / delta                          warning
texts cut, tokens unknown to the base                 see ``planning/texts.py``
====================================================  =====================================================
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmchain_fl.config.stage_task import kind_at
from llmchain_fl.core.base_model import locate
from llmchain_fl.core.data.columns import only_labels, only_sound
from llmchain_fl.core.data.readers import Dialect
from llmchain_fl.core.data.rows import LeftOut, Rows
from llmchain_fl.core.data.source import path_of, read_fitting
from llmchain_fl.core.privacy.units import same_person
from llmchain_fl.core.tasks.kind import TaskKind, task_kind
from llmchain_fl.onprem.files import readable_by_others
from llmchain_fl.onprem.site_check.subject import Plan, Subject
from llmchain_fl.planning.findings import Findings
from llmchain_fl.planning.texts import MOST_TEXTS, check_texts
from llmchain_fl.planning.work import windows_of

PERSON, LABEL = "person", "label"


def check_records(subject: Subject, findings: Findings) -> None:
    """See the table of the module."""
    texts: list[str] = []
    stages = list(subject.plan.stages) if subject.plan else _stages_on_disk(subject)
    if not stages:
        findings.fault("records", f"nothing matches data.train = {subject.site.data.train}", "put the records there")
    for stage in stages:
        texts += _check_stage(subject, findings, stage)[:MOST_TEXTS]
    if subject.plan is not None and texts:
        tokenizer = _tokenizer(subject.plan)
        if tokenizer is not None:
            config = subject.plan.config
            check_texts(findings, tokenizer, texts, config.model.max_tokens, windows_of(config))


def _stages_on_disk(subject: Subject) -> list[str]:
    """The stages that the files name, where no plan does."""
    before, placeholder, after = subject.site.data.train.partition("{stage}")
    if not placeholder:
        return ["records"]
    files = sorted(glob.glob(f"{glob.escape(before)}*{glob.escape(after)}"))
    return [file[len(before) : len(file) - len(after)] for file in files]


def _check_stage(subject: Subject, findings: Findings, stage: str) -> list[str]:
    """The texts of a stage's records that fit."""
    source = subject.site.data.train.replace("{stage}", stage)
    read = findings.attempt("records", _read, subject, stage, source)
    if read is None:
        return []
    rows, left = read
    about = f'stage "{stage}"'
    counts = [f"{len(rows):,} record{'s' * (len(rows) != 1)}"]
    people = Counter(same_person(row[PERSON]) for row in rows.records if row.get(PERSON))
    if people:
        counts.append(f"{len(people):,} person{'s' * (len(people) != 1)}, at most {max(people.values())} of one")
    if any(LABEL in row for row in rows.records):
        counts.append(f"{len({row.get(LABEL) for row in rows.records})} labels")
    if rows.records:
        findings.fact("records", f"{about}: {', '.join(counts)}")
    else:
        findings.fault(
            "records",
            f"{about}: no record fits, and a round would be paid for and hold noise alone",
            "look at columns, labels and encoding in the site file",
        )
    for why, count in left.counts.items():
        findings.warn("records", f"{about}: {count:,} left out: {why}", "fill it in, or leave it so: they take no part")
    _check_people(subject, findings, about, rows, people)
    _check_labels(subject, findings, about, stage, rows)
    _check_file(findings, about, source)
    if subject.plan is not None:
        return [_kind(subject.plan, stage).text_of(row) for row in rows.records]
    return [" ".join(row[name] for name in _columns(subject, stage) if name != LABEL) for row in rows.records]


def _kind(plan: Plan, stage: str) -> TaskKind:
    """The kind of task of a stage."""
    own = next((one for one in plan.config.stage if one.name == stage), None)
    return task_kind(plan.config.task.kind if own is None else kind_at(plan.config, own))


def _read(subject: Subject, stage: str, source: str) -> tuple[Rows, LeftOut]:
    data, plan, columns = subject.site.data, subject.plan, _columns(subject, stage)
    required = (*columns, PERSON) if subject.site.named(_unit(subject)) else columns
    dialect, allowed = Dialect(data.encoding, data.delimiter), subject.site.limits.plugins
    rows, left = read_fitting(source, mapping=data.columns, required=required, dialect=dialect, allowed=allowed)
    if plan is not None:
        kind, names = _kind(plan, stage), frozenset(plan.labels)
        if kind.labelled:
            rows, others = only_labels(rows, list(plan.labels))
            left = left + others
        rows, others = only_sound(rows, lambda row: kind.fault_of(row, names))
        left = left + others
    return rows, left


def _columns(subject: Subject, stage: str) -> Sequence[str]:
    if subject.plan is not None:
        return _kind(subject.plan, stage).columns
    return [name for name in subject.site.data.columns if name != PERSON] or ["text"]


def _unit(subject: Subject) -> str:
    """The privacy unit of the plan; without one, what the site protects first."""
    if subject.plan is not None:
        privacy = subject.plan.config.privacy
        return privacy.unit if privacy.enabled else "record"
    return next(iter(subject.site.limits.units), "record")


def _check_people(subject: Subject, findings: Findings, about: str, rows: Rows, people: Mapping[str, int]) -> None:
    unit, delta = _unit(subject), subject.site.limits.delta
    if unit == "record" and people and max(people.values()) > 1:
        findings.warn(
            "records",
            f"{about}: the unit is one record, and somebody has {max(people.values())}: less protected than told",
            'ask for privacy.unit = "person"',
        )
    count = len(people) if subject.site.named(unit) else len(rows)
    if unit != "site" and count and delta * count >= 1:
        findings.warn(
            "records",
            f"{about}: delta = {delta:g} is not below 1 / {count:,}: publishing one unit whole would satisfy it",
            "lower limits.delta",
        )


def _check_labels(subject: Subject, findings: Findings, about: str, stage: str, rows: Rows) -> None:
    labels = list(subject.plan.stages[stage]) if subject.plan is not None else []
    if not labels or not rows.records:
        return
    counts = Counter(row.get(LABEL) for row in rows.records)
    own = [name for name in labels if counts[name]]
    if not own:
        findings.warn(
            "records", f"{about}: no record has one of its {len(labels)} labels", "look whether the files are mixed up"
        )
    elif len(own) < len(labels):
        findings.fact("records", f"{about}: {len(own)} of its {len(labels)} labels have records here")


def _check_file(findings: Findings, about: str, source: str) -> None:
    path = path_of(source)
    if path is not None and readable_by_others(path):
        findings.warn("records", f"{about}: others on this machine may read {path}", f"chmod go= '{path}'")


def _tokenizer(plan: Plan) -> Any:
    """The base's tokenizer, from this disk; None where it is not there (which another line says)."""
    from transformers import AutoTokenizer

    try:
        located = locate(plan.config.model.path)
        path = Path(located.path) if located.local else None
        return None if path is None else AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception:
        return None
