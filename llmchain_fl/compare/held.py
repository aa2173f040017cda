"""What was held equal in a comparison, and what was not: the reader's first question about any ranking."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmchain_fl.config.schema import RunConfig

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Base model": ("model.path", "model.dtype", "model.max_tokens", "model.pooling"),
    "Adapter": ("adapter.rank", "adapter.alpha", "adapter.targets", "adapter.last_layers"),
    "Task and head": ("task.kind", "task.head", "task.labels", "task.scale"),
    "Records": ("data.train", "data.dev", "data.test", "data.train_size", "data.test_size"),
    "Split": ("sites.count", "sites.partition", "sites.alpha", "sites.column", "sites.cohort", "sites.held_out"),
    "Optimiser at the sites": (
        *("train.optimizer", "train.lr", "train.lr_final", "train.momentum", "train.steps"),
        *("train.sampling_rate", "train.batch_size", "train.proximal"),
    ),
    "Server": ("aggregation.rule", "aggregation.optimizer", "aggregation.weights"),
    "Privacy": (
        *("privacy.enabled", "privacy.unit", "privacy.epsilon", "privacy.noise_multiplier", "privacy.delta"),
        *("privacy.clip_norm", "privacy.accountant"),
    ),
    "Guards": ("continual.guards",),
    "Stages and rounds": ("stage", "stream.play", "stream.order"),
}
ONLY_WITH = {"Privacy": "privacy.enabled"}
"""Groups that say nothing while this setting is false in every cell."""
EMPTY: tuple[object, ...] = ("", [], 0, 0.0, None)


def held_equal(configs: Iterable[RunConfig], seeds: Sequence[int]) -> list[tuple[str, str, str]]:
    """(group, what is equal in all cells, names of the settings that are not).

    Args:
        configs: of every cell that could run.
        seeds: over which it was repeated.
    """
    trees = [_flat(config.model_dump()) for config in configs]
    lines = []
    for group, keys in GROUPS.items():
        gate = ONLY_WITH.get(group)
        if gate and not any(tree[gate] for tree in trees):
            lines.append((group, "none", ""))
            continue
        there = [key for key in keys if any(tree.get(key) not in EMPTY for tree in trees)]
        same = [key for key in there if _once(tree.get(key) for tree in trees)]
        equal = ", ".join(_words(key, trees[0].get(key)) for key in same)
        lines.append((group, equal, ", ".join(_name(key) for key in there if key not in same)))
    text = "the same seed gives the same split, the same start of the adapter and the same test records"
    return [line for line in lines if line[1] or line[2]] + [("Seeds", f"{', '.join(map(str, seeds))}; {text}", "")]


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{key}" if key else section: value
        for section, part in tree.items()
        for key, value in (part.items() if isinstance(part, dict) else [("", part)])
    }


def _once(values: Iterable[object]) -> bool:
    return len({json.dumps(value, sort_keys=True, default=str) for value in values}) == 1


def _name(key: str) -> str:
    return {"stage": "stages"}.get(key, key.partition(".")[2].replace("_", " ") or key)


def _words(key: str, value: Any) -> str:
    if key == "stage":
        return ", ".join(f"{stage['name']}: {stage['rounds']} rounds" for stage in value)
    return f"{_name(key)} {_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) if len(value) <= 8 else f"{len(value)} entries"
    return f"{value:g}" if isinstance(value, float) else str(value)
