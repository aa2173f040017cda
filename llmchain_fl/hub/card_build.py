"""A card out of the files of a hub folder: a function of them and of nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmchain_fl.continual.metrics import r_matrix, summary
from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.hub import layout
from llmchain_fl.hub.card import (
    Audit,
    Base,
    Card,
    Lineage,
    Number,
    Privacy,
    Score,
    Stream,
    Task,
    Training,
    Variant,
)
from llmchain_fl.hub.card_sources import Named, Row, Sources
from llmchain_fl.hub.door import read_work
from llmchain_fl.hub.evidence import read_statement
from llmchain_fl.hub.refused import refuse
from llmchain_fl.hub.tensors import read_header
from llmchain_fl.metrics_file import R_MATRIX, declared
from llmchain_fl.report.noised import noise_words
from llmchain_fl.report.wording import epsilon_text, guarantee

NOT_COVERED = (
    "choices made by looking at public scores: they cost nothing, for they touch no private record",
    "documents that a service retrieves beside the adapter: access control, not differential privacy",
    "decisions made from feedback at a site, unless they are noised and booked",
)


def build_card(files: Mapping[str, bytes], named: Named) -> Card:
    """The card that these files give.

    Raises:
        HubError: form, size: a file is not what this project writes.
        ConfigError: the publisher's statement lacks something.
    """
    sources, statement = Sources(files), read_statement(files[layout.STATEMENT])
    try:
        return Card(
            name=named.name,
            version=named.version,
            made_by=named.made_by,
            **{key: getattr(statement, key) for key in ("licence", "languages", "data", "intended_use", "refused_use")},
            base=Base(name=named.base_name, digest=named.base_digest, licence=statement.base_licence),
            task=_task(files),
            training=_training(sources),
            privacy=_privacy(sources),
            stream=_stream(sources),
            evaluation=_evaluation(sources),
            suite=_suite(sources),
            audit=_audit(sources),
            lineage=_lineage(sources, named),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        kind = type(error).__name__
    raise refuse("form", f"the evidence is not what this project writes ({kind})")


def _task(files: Mapping[str, bytes]) -> Task:
    task = read_work(files[layout.WORK]).task
    tokens = Number(value=task.max_tokens, source=layout.WORK, at="task.max_tokens")
    return Task(kind=task.kind, head=task.head, labels=[name for name, _ in task.labels], max_tokens=tokens)


def _training(sources: Sources) -> Training:
    settings, work = sources.tree(layout.SETTINGS), read_work(sources.files[layout.WORK])
    adapter = work.adapter
    places, _, _ = read_header(sources.files[layout.WEIGHTS], layout.WEIGHTS)
    variant = Variant(
        kind="lora",
        rank=Number(value=adapter.rank, source=layout.WORK, at="adapter.rank"),
        alpha=Number(value=adapter.alpha, source=layout.WORK, at="adapter.alpha"),
        targets=list(adapter.targets),
        last_layers=Number(value=adapter.last_layers, source=layout.WORK, at="adapter.last_layers"),
        parameters=Number(value=sum(math.prod(place.shape) for place in places.values()), source=layout.WEIGHTS),
    )
    return Training(
        rule=settings["aggregation"]["rule"],
        method=settings["train"]["method"],
        guards=settings["continual"]["guards"],
        sites=Number(value=settings["sites"]["count"], source=layout.SETTINGS, at="sites.count"),
        rounds=Number(value=sources.tree(layout.LINEAGE)["round"], source=layout.LINEAGE, at="round"),
        stages=[one["name"] for one in settings["stages"]],
        variant=variant,
    )


def _privacy(sources: Sources) -> Privacy:
    privacy = sources.tree(layout.PRIVACY)
    if not privacy.get("private"):
        return Privacy(private=False, promise="none: the adapter may tell about single records")
    worst = max(privacy["sites"], key=lambda site: privacy["sites"][site]["epsilon"], default="")
    spent = privacy["sites"].get(worst, {"epsilon": 0.0, "epsilon_rdp": 0.0})
    words = noise_words(privacy.get("noise", ""), privacy["unit"])

    def number(key: str) -> Number:
        return Number(value=spent[key], source=layout.PRIVACY, at=f"sites.{worst}.{key}, the largest of the sites")

    terms = guarantee(privacy["delta"], privacy["unit"], privacy["accountant"], privacy.get("noise", ""))
    return Privacy(
        private=True,
        promise=f"epsilon {epsilon_text(spent['epsilon'], terms)}",
        epsilon=number("epsilon"),
        epsilon_rdp=number("epsilon_rdp"),
        delta=Number(value=privacy["delta"], source=layout.PRIVACY, at="delta"),
        unit=privacy["unit"],
        adjacency=privacy["adjacency"],
        accountant=privacy["accountant"],
        composition=privacy["composition"],
        noise=words.short,
        trusts=words.trusted,
        not_covered=list(NOT_COVERED),
    )


def _stream(sources: Sources) -> Stream:
    cells = [row for row in sources.rows if row["metric"] == R_MATRIX and row.get("scope", "global") == "global"]
    tasks = [one["name"] for one in sources.tree(layout.SETTINGS)["stages"]]
    tasks = [name for name in tasks if any(row.get("task") == name for row in cells)]
    if not tasks:
        return Stream(tasks=[], r_matrix=[], summary={})
    try:
        matrix = r_matrix(cells, tasks)
        means = summary(matrix, max(int(row["stage"]) for row in cells if row["stage"] is not None))
    except LlmchainError as error:
        raise refuse("form", error.what) from None
    number = [
        [
            Number(value=_plain(value), source=layout.METRICS, at=f"r_matrix, {task} after stage {stage}")
            for task, value in zip(tasks, line, strict=True)
        ]
        for stage, line in enumerate(matrix)
    ]
    computed = {key: Number(value=value, source=layout.METRICS, at="of r_matrix") for key, value in means.items()}
    return Stream(tasks=tasks, r_matrix=number, summary=computed)


def _evaluation(sources: Sources) -> list[Score]:
    """Scores of the global adapter in the last round in which each task was scored, with the margin beside them."""
    shown = [row for row in sources.rows if row.get("scope", "global") == "global" and "label" not in row]
    ways = declared(shown)
    last: dict[tuple[str, str], Row] = {}
    for row in shown:
        name = row["metric"]
        if name in ways and name != R_MATRIX and "change_" not in name and not row.get("of"):
            last[str(row.get("task")), name] = row
    return [
        Score(
            task=task,
            metric=name,
            better=ways[name].better,
            value=_of(row, "value", task, name),
            half_width=_of(row, "half_width", task, name),
            records=_of(row, "n", task, name),
        )
        for (task, name), row in last.items()
    ]


def _suite(sources: Sources) -> dict[str, Number]:
    """Every number of the suite by its place in the file.

    Raises:
        HubError: card: it is another adapter's.
    """
    suite = sources.tree(layout.SUITE)
    if not suite:
        return {}
    if suite["content"] != sources.tree(layout.LINEAGE)["content"]:
        raise refuse("card", f"{layout.SUITE} is of another adapter")
    places, waiting = dict[str, Number](), [("parts", suite["parts"])]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{place}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            places[place.removeprefix("parts.")] = Number(value=value, source=layout.SUITE, at=place)
    return dict(sorted(places.items()))


def _of(row: Row, key: str, task: str, metric: str) -> Number:
    value = row.get(key)
    at = f"{metric} of {task}, round {row['round']}, {key}"
    return Number(value=None if value is None else _plain(value), source=layout.METRICS, at=at)


def _audit(sources: Sources) -> Audit:
    log, gate = sources.tree(layout.AUDIT), sources.tree(layout.GATE)
    audit: dict[str, Any] = {}
    if log:
        audit |= {"lines": Number(value=log["lines"], source=layout.AUDIT, at="lines"), "head": log["head"]}
    if gate:
        passed: Sequence[bool] = [bool(one["passed"]) for one in gate["findings"]]
        audit["gate_passed"] = Number(value=sum(passed), source=layout.GATE, at="findings")
        audit["gate_failed"] = Number(value=len(passed) - sum(passed), source=layout.GATE, at="findings")
    return Audit(**audit)


def _lineage(sources: Sources, named: Named) -> Lineage:
    tree = sources.tree(layout.LINEAGE)
    number = Number(value=tree["round"], source=layout.LINEAGE, at="round")
    return Lineage(content=tree["content"], parent=named.parent, run=tree["run"], round=number, stage=tree["stage"])


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
