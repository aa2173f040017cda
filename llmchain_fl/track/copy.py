"""A run's released measurements, round by round, into a sink."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.words import nearest
from llmchain_fl.extras import need
from llmchain_fl.hub.evidence import SCOPES, public_settings
from llmchain_fl.track.sinks import SINKS, Settings


def released(rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Round -> name -> value, of what a hub would publish: of the global adapter, on public records.

    | row | becomes |
    |---|---|
    | of a site, also its name, norm, traffic | left out |
    | a value that is no finite number | left out |
    | a metric of a task, of a label | ``task/metric``, ``task/metric/label`` |
    """
    values: dict[int, dict[str, float]] = {}
    for row in rows:
        value = row["value"]
        if row.get("site") or row.get("scope", "global") not in SCOPES or not isinstance(value, int | float):
            continue
        if math.isfinite(value):
            parts = [row.get("task"), row["metric"], row.get("label")]
            values.setdefault(int(row["round"]), {})["/".join(str(part) for part in parts if part is not None)] = float(
                value
            )
    return values


def flat(tree: Mapping[str, Any], before: str = "") -> Settings:
    """``{"train": {"lr": 0.1}}`` -> ``{"train.lr": 0.1}``; lists as text."""
    settings: dict[str, str | int | float | bool] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            settings |= flat(value, f"{before}{key}.")
        else:
            settings[f"{before}{key}"] = value if isinstance(value, str | int | float | bool) else str(value)
    return settings


def copy_run(path: Path, to: str, *, online: bool = False) -> int:
    """Copy a run's measurements; how many rounds.

    Raises:
        ConfigError: an unknown sink, or its package is not installed.
        RunError: no run.
    """
    from llmchain_fl.config.read import read_config
    from llmchain_fl.run_dir import RunDir

    if to not in SINKS:
        raise ConfigError([f"--to {to!r} is not known{nearest(to, list(SINKS))}"], remedy=f"one of {', '.join(SINKS)}")
    need(to, f"track --to {to}")
    run = RunDir.open(path)
    rounds, settings = released(run.rows()), flat(public_settings(read_config(run.config).model_dump(mode="json")))
    place = run.path / "track"
    place.mkdir(exist_ok=True)
    sink = SINKS[to](run.path.resolve().name, place, settings, online=online)
    try:
        for number, values in sorted(rounds.items()):
            sink.log(number, values)
    finally:
        sink.close()
    return len(rounds)
