"""The state of a round on disk: one safetensors file, written whole or not at all.

``state/round-000012.safetensors`` holds the arrays (``current/...``, ``serving/...``, ``guard/<name>/...``,
``rule/...``) and, in its header, what is not an array (round, digest of the work, the sites, rounds asked of each and
their last receipts). The last two files are kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import RunError

KEEP = 2


@dataclass
class RunState:
    """Everything a run needs to go on after ``round`` rounds."""

    run: str
    work: str
    round: int
    current: Arrays
    serving: Arrays
    noise_multiplier: float = 0.0
    guards: dict[str, Arrays] = field(default_factory=dict)
    rule: Arrays = field(default_factory=dict)
    spendings: dict[str, dict[str, int]] = field(default_factory=dict)
    receipts: dict[str, str] = field(default_factory=dict)
    clip: float = 0.0
    ended: dict[str, int] = field(default_factory=dict)
    sites: list[str] = field(default_factory=list)
    quarantine: dict[str, dict[str, Any]] = field(default_factory=dict)
    lineage: str = ""
    stopped: str = ""
    used_up: dict[str, list[list[str]]] = field(default_factory=dict)
    """See ``PrivacyBook.used_up``."""
    summed: int = 0
    """Rounds that made new arrays."""


def save_state(folder: Path, state: RunState) -> Path:
    """Write the state of one round; older ones but the last are removed."""
    arrays = {f"current/{k}": v for k, v in state.current.items()} | {
        f"serving/{k}": v for k, v in state.serving.items()
    }
    for guard, kept in state.guards.items():
        arrays |= {f"guard/{guard}/{k}": v for k, v in kept.items()}
    arrays |= {f"rule/{k}": v for k, v in state.rule.items()}
    facts = {k: v for k, v in vars(state).items() if k not in ("current", "serving", "guards", "rule")} | {
        "guards": sorted(state.guards)
    }
    path = folder / f"round-{state.round:06d}.safetensors"
    atomic_write(
        path, save({n: np.ascontiguousarray(v) for n, v in arrays.items()}, metadata={"state": json.dumps(facts)})
    )
    for old in sorted(folder.glob("round-*.safetensors"))[:-KEEP]:
        old.unlink()
    return path


def load_state(folder: Path) -> RunState | None:
    """The last state, or None if no round was finished.

    Raises:
        RunError: the last file is damaged (it is written atomically: the disk or a hand did it), or of another version.
    """
    files = sorted(folder.glob("round-*.safetensors"))
    if not files:
        return None
    try:
        with safe_open(files[-1], framework="numpy") as opened:
            facts: dict[str, Any] = json.loads(opened.metadata()["state"])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        guards = {str(name): _part(arrays, f"guard/{name}/") for name in facts.pop("guards")}
        facts.setdefault("summed", facts["round"])  # of a run that 0.1 began
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise RunError(f"{files[-1]} is damaged", remedy="delete it: the run goes on from the round before") from error
    try:
        current, serving, rule = (_part(arrays, f"{part}/") for part in ("current", "serving", "rule"))
        return RunState(current=current, serving=serving, guards=guards, rule=rule, **facts)
    except TypeError:
        raise RunError(
            f"{files[-1]} was written by another version", remedy="go on with that one, or start a new run"
        ) from None


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
