"""Settings that follow from another one where nothing else is given.

Whoever names no way to train a classifier gets the one that measured best (docs/operating-points.md, docs/streams.md):

| asked for | what is usual |
|---|---|
| privacy of persons or records | a head in lockstep; from 3 sites on noise on their masked sum |
| the same, and new labels in every stage | guard `mask` as well, and first sums over each label's records |
| new labels in every stage, no privacy | heads in closed form, one round a stage whatever `rounds` says |
| anything else | every setting's own default |
| one of :data:`CHOICES` is made (a rule, a method, guards, an adapter ...) | every setting's own default |
| a variant without a product, and no rule | the rule that averages arrays as they are |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from llmchain_fl.aggregation import HEAD_ONLY, PLAIN
from llmchain_fl.core.adapter.variants import VARIANTS
from llmchain_fl.core.methods import CLOSED_FORM, LOCKSTEP
from llmchain_fl.core.tasks.kind import TASKS, task_kind
from llmchain_fl.guards import MASK

FEATURES = 2000
"""Random features of a head in closed form: 2,384 with those of MiniLM, 2.8 million sums a site and stage."""
LARGEST = 65536.0
"""Sums over records grow with them."""
MASKED = 3
"""Fewest sites of a masked sum."""
RATE, LR, ROUNDS = 1.0, 0.01, 30
"""Of a private head: q, learning rate, rounds of a stage (``planning/recommend.py`` says where they are from)."""
SUMS = 0.25
"""Of the rounds of a stage of new labels under privacy: first ones, in which its labels' records are summed up."""
CHOICES = (
    "train.method",
    "train.steps",
    "train.proximal",
    "task.head",
    "aggregation.rule",
    "aggregation.optimizer",
    "aggregation.robust",
    "aggregation.weights",
    "aggregation.personal_head",
    "continual.guards",
    "compression.up",
    "sites.cohort",
    "privacy.clip_quantile",
    "stream.play",
    "adapter",
)
"""Keys by which a way to train is named; guards that are an empty list name none."""
Tree = Mapping[str, Any]
NOTHING: Mapping[str, object] = MappingProxyType({})


def with_usual(tree: Tree) -> Tree:
    """``tree`` with what is usual; what is given stays as it is."""
    return _plain(_closed_form(_method(tree)))


def _plain(tree: Tree) -> Tree:
    """The rule that averages arrays as they are, for a variant without a product where no rule is named."""
    variant = _at(tree, "adapter.variant")
    if not isinstance(variant, str) or variant not in VARIANTS or VARIANTS[variant].product:
        return tree
    return _filled(tree, {"aggregation": {"rule": PLAIN}})


def _method(tree: Tree) -> Tree:
    chosen = any(_at(tree, key) not in (None, []) for key in CHOICES) or _several(tree)
    kind = _at(tree, "task.kind")
    labelled = kind is None or (isinstance(kind, str) and kind in TASKS and task_kind(kind).pooled)
    if chosen or not labelled:
        return tree
    incremental = _at(tree, "stream.kind") == "class-incremental"
    if _at(tree, "privacy.enabled") is True:
        persons = _at(tree, "privacy.unit") in (None, "person", "record")
        masked = incremental and _at(tree, "continual.guards") is None
        return _filled(tree, _private(_many(tree), masked), {"rounds": ROUNDS}) if persons else tree
    if not incremental:
        return tree
    return {**_filled(tree, {"train": {"method": CLOSED_FORM}}), **_stages(tree, lambda one: {**one, "rounds": 1})}


def _several(tree: Tree) -> bool:
    """Whether a stage names a kind of task of its own: what is usual is so for a classification alone."""
    stages = tree.get("stage")
    return isinstance(stages, list) and any(isinstance(one, Mapping) and one.get("task") for one in stages)


def _private(many: bool, new_labels: bool) -> Mapping[str, Mapping[str, object]]:
    summed: Mapping[str, Mapping[str, object]] = {"secure": {"sum": True}, "privacy": {"noise": "sum"}} if many else {}
    return {
        "train": {"method": LOCKSTEP, "sampling_rate": RATE, "lr": LR, "sums": SUMS if new_labels else 0.0},
        "task": {"head": "trained"},
        "aggregation": {"rule": HEAD_ONLY},
        "continual": {"guards": [MASK] if new_labels else []},
        **summed,
    }


def _closed_form(tree: Tree) -> Tree:
    """What ``train.method = "closed-form"`` needs: a trained head over random features, masked sums.

    A site's sums without masks tell as much of its records as its updates do.
    """
    if _at(tree, "train.method") != CLOSED_FORM:
        return tree
    needed: Mapping[str, Mapping[str, object]] = {
        "task": {"head": "trained", "features": FEATURES},
        "aggregation": {"rule": HEAD_ONLY},
        "secure": {"sum": _many(tree), "largest": LARGEST},
    }
    return _filled(tree, needed, {"rounds": 1})


def _filled(tree: Tree, usual: Mapping[str, Mapping[str, object]], stage: Mapping[str, object] = NOTHING) -> Tree:
    """``tree`` over ``usual``, section by section; ``stage``: of every stage that says nothing else."""
    given = {name: tree.get(name, {}) for name in usual}
    sections = {name: {**values, **given[name]} for name, values in usual.items() if isinstance(given[name], Mapping)}
    return {**tree, **sections, **_stages(tree, lambda one: {**stage, **one})}


def _stages(tree: Tree, change: Callable[[Tree], Tree]) -> Tree:
    stages = tree.get("stage", [{}])
    if not isinstance(stages, list):
        return {}
    return {"stage": [change(one) if isinstance(one, Mapping) else one for one in stages]}


def _many(tree: Tree) -> bool:
    count = _at(tree, "sites.count")
    return isinstance(count, int) and count >= MASKED


def _at(tree: Tree, key: str) -> object:
    """The value at a dotted key; None where there is none."""
    node: object = tree
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
