"""What became of one cell: finished with its numbers, refused with a reason, or failed with a folder to look at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llmchain_fl.atomic_file import write_json
from llmchain_fl.compare.measures import MEASURES, Facts, before, measure
from llmchain_fl.compare.plan import Cell
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.metrics_file import declared
from llmchain_fl.report import wording
from llmchain_fl.report.readings import Readings
from llmchain_fl.report.spending import Spending
from llmchain_fl.run_dir import RunDir

FILE = "cell.json"
Status = Literal["finished", "refused", "failed"]


class Epsilon(NamedTuple):
    """The highest epsilon of the sites and what it means; never one without the other. ``value`` inf: no bound."""

    value: float
    delta: float
    unit: str
    accountant: str
    noise: str = ""

    @property
    def terms(self) -> str:
        """``delta 1e-5, per record, PLD accountant, noise added at each site``."""
        return wording.guarantee(self.delta, self.unit, self.accountant, self.noise)


@dataclass(frozen=True)
class Outcome:
    """One cell, played or not.

    Attributes:
        reason: why it was refused or how it failed; empty when finished.
        play: ``sequence``, ``joint`` or ``alone`` (see ``measures.py``).
        metrics: the scores that the run declares, the main one first.
        numbers: measure, or name of a score -> value, those that were measured.
        zero_shot: the mean score before training; NaN where not measured.
        scores: task -> [[round, score], ...].
    """

    labels: Mapping[str, str]
    seed: int
    settings: tuple[str, ...]
    status: Status
    reason: str = ""
    play: str = "sequence"
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    zero_shot: float = math.nan
    epsilon: Epsilon | None = None
    scores: Mapping[str, list[list[float]]] = field(default_factory=dict)

    @property
    def cell(self) -> Cell:
        """Which cell it is."""
        return Cell(self.labels, self.seed, self.settings)

    def number(self, measure: str) -> float:
        """One measure; NaN where it was not measured."""
        if measure == "epsilon":
            return self.epsilon.value if self.epsilon else math.nan
        return self.numbers.get(measure, math.nan)

    def as_json(self) -> dict[str, Any]:
        """Plain values; the epsilon with delta, unit and accountant, or null."""
        return {**asdict(self), "epsilon": self.epsilon._asdict() if self.epsilon else None}


def metrics_of(outcomes: Iterable[Outcome]) -> Mapping[str, Metric]:
    """The scores of the runs; of the main one LA, forgetting and the like are made."""
    return next((outcome.metrics for outcome in outcomes if outcome.status == "finished"), {})


def missed(cell: Cell, status: Status, reason: str) -> Outcome:
    """A cell without numbers."""
    return Outcome(cell.labels, cell.seed, cell.settings, status, reason)


def measured(cell: Cell, run: RunDir, config: RunConfig) -> Outcome:
    """The numbers of a finished run."""
    readings = Readings(run.rows())
    play = str(config.model_dump().get("stream", {}).get("play", "sequence"))
    facts = Facts(readings, play)
    metrics = {readings.metric: readings.score} | readings.scores
    numbers = {name: measure(name).of(facts) for name in (*MEASURES, *metrics)}
    return Outcome(
        cell.labels,
        cell.seed,
        cell.settings,
        "finished",
        play=play,
        metrics=metrics,
        numbers={name: value for name, value in numbers.items() if math.isfinite(value)},
        zero_shot=before(facts),
        epsilon=_epsilon(readings, run.read_privacy()),
        scores={task: [[float(at), value] for at, value in readings.curve(task)] for task in readings.tasks},
    )


def _epsilon(run: Readings, privacy: Mapping[str, Any]) -> Epsilon | None:
    """The highest epsilon of the sites; None without privacy.

    Raises:
        RunError: there was privacy and its terms are not known: an epsilon alone says nothing.
    """
    spending = Spending.of(run, privacy)
    if not spending.private or spending.highest is None:
        return None
    if not math.isfinite(spending.delta) or "not stated" in (spending.unit, spending.accountant):
        raise RunError("an epsilon without delta, unit and accountant", remedy="run the cell again: remove its folder")
    value = spending.highest[1].epsilon if math.isfinite(spending.highest[1].epsilon) else math.inf
    return Epsilon(value, spending.delta, spending.unit, spending.accountant, spending.noise)


def save(folder: Path, outcome: Outcome) -> None:
    """Writes ``cell.json``: from here on the cell is finished."""
    write_json(folder / FILE, outcome.as_json())


def load(folder: Path) -> Outcome | None:
    """The outcome of a finished cell; None where it is not finished.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / FILE
    try:
        tree = json.loads(path.read_bytes())
        epsilon = tree["epsilon"]
        return Outcome(
            tree["labels"],
            tree["seed"],
            tuple(tree["settings"]),
            tree["status"],
            tree["reason"],
            tree["play"],
            _metrics(tree),
            tree["numbers"],
            _number(tree["zero_shot"], math.nan),
            epsilon and Epsilon(**{**epsilon, "value": _number(epsilon["value"], math.inf)}),
            {task: [[at, _number(v, math.nan)] for at, v in curve] for task, curve in tree["scores"].items()},
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged ({type(error).__name__})", remedy="remove the cell's folder") from None


def _metrics(tree: Mapping[str, Any]) -> Mapping[str, Metric]:
    """As written; a file of an earlier version names its main score alone."""
    if "metrics" not in tree:
        return declared([{"metric": tree["metric"]}])
    return {
        name: Metric(name, one["better"], one["unit"], _number(one["bound"], math.inf))
        for name, one in tree["metrics"].items()
    }


def _number(value: float | None, missing: float) -> float:
    return missing if value is None else float(value)
