"""A run's key numbers as plain data: for the page, and for the summary in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.continual import metrics
from llmchain_fl.continual.transfer import fwt
from llmchain_fl.report import wording
from llmchain_fl.report.readings import Readings, Row, Stage, total
from llmchain_fl.report.spending import Spending


def summary_table(rows: Sequence[Row], privacy: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of the numbers a reader asks for first; what was not measured is left out.

    Args:
        rows: the run's rows.
        privacy: ``privacy.json``, or an empty dict.
    """
    run = Readings(rows)
    metric, seen = run.metric, run.stages
    ended = [] if run.stopped is None else [("Ended", f"before its plan, {run.stopped[0]} of {run.stopped[1]} rounds")]
    done = run.rounds - len(run.skipped)
    what = f"Average {metric}" if len(seen) > 1 else metric.capitalize()
    table = [
        *ended,
        ("Rounds", f"{done:,}" + (f" in {wording.count(len(seen), 'stage')}" if len(seen) > 1 else "")),
        ("Sites", f"{len(run.sites):,}"),
        (f"{what}, before training", wording.score(average_before(run), metric)),
        (f"{what}, now", wording.score(average(run), metric)),
    ]
    if run.kept_apart:
        table.append((f"{what}, records kept for the end", wording.score(fmean(run.kept_apart.values()), metric)))
    if len(seen) > 1:
        table += [
            ("Learned (LA)", wording.score(learned(run), metric)),
            ("Forgotten (F)", wording.change(forgotten(run), metric, signed=False)),
            ("Backward transfer (BWT)", wording.change(backward(run), metric)),
            *(
                [("Forward transfer (FWT)", wording.change(ahead, metric))]
                if math.isfinite(ahead := forward(run))
                else []
            ),
        ]
    table += [("Epsilon, highest of the sites", _epsilon(run, privacy)), *_costs(run)]
    refused = run.refusals
    return [*table, ("Refused updates", f"{len(refused):,}")]


def compare_table(rows_a: Sequence[Row], rows_b: Sequence[Row], names: tuple[str, str]) -> list[tuple[str, ...]]:
    """Two runs side by side: a heading, then (name, value of a, value of b, b minus a), all text.

    Args:
        rows_a: rows of the first run, such as the one without a guard.
        rows_b: rows of the second run.
        names: how the two are called in the heading.
    """
    run_a, run_b = Readings(rows_a), Readings(rows_b)
    metric = run_a.metric
    table: list[tuple[str, ...]] = [("", *names, "difference")]
    for name, number, text in (
        (f"average {metric}", average, wording.score),
        ("learned (LA)", learned, wording.score),
        ("forgotten (F)", forgotten, _unsigned),
        ("backward transfer (BWT)", backward, wording.change),
    ):
        a, b = number(run_a), number(run_b)
        table.append((name, text(a, metric), text(b, metric), wording.change(b - a, metric)))
    table.append(("epsilon, highest of the sites", _epsilon(run_a, {}), _epsilon(run_b, {}), ""))
    megabytes = [sent(run) / 1e6 for run in (run_a, run_b)]
    return [*table, ("sent, MB", *(f"{mb:.2f}" for mb in megabytes), f"{megabytes[1] - megabytes[0]:+.2f}")]


def average(run: Readings) -> float:
    """A_T: the mean score, at the end, of the stages that have begun; with none begun, the score before training."""
    return _of_r(run, "average_accuracy") if run.stages else average_before(run)


def average_before(run: Readings) -> float:
    """The mean score of the same tasks before training (round 0); NaN where it was not measured."""
    curves = [run.curve(task) for task in run.tasks[: len(run.stages) or None]]
    start = [curve[0][1] for curve in curves if curve and curve[0][0] == 0]
    return fmean(start) if start else math.nan


def learned(run: Readings) -> float:
    """LA: the mean score of each stage's task when it had just been learned."""
    return _of_r(run, "la")


def forgotten(run: Readings) -> float:
    """F: mean over earlier stages of best so far minus now; positive is worse, for a loss too."""
    return _of_r(run, "forgetting")


def backward(run: Readings) -> float:
    """BWT: mean over earlier stages of now minus when learned; negative is worse, for a loss too."""
    return _of_r(run, "bwt")


def forward(run: Readings) -> float:
    """FWT: mean over later stages of the score just before a stage minus that before any training; positive is better.

    Over the stages that have ended; NaN where not measured.
    """
    seen = [stage.name for stage in run.ended]
    cells = [[run.r.get((stage.index, name), math.nan) for name in seen] for stage in run.ended]
    if not cells:
        return math.nan
    sign = -1.0 if run.lower_is_better else 1.0
    start = [dict(run.curve(name)).get(0, math.nan) for name in seen]
    return fwt(sign * np.array(cells), [sign * value for value in start])


def drops(run: Readings) -> list[tuple[Stage, float]]:
    """For each earlier stage, how far its score now lies below its best at the end of a stage before the last.

    The terms of :func:`llmchain_fl.continual.metrics.forgetting`, one by one; NaN where not measured.
    """
    seen, matrix = run.stages, _square(run)
    return [(stage, float(np.fmax.reduce(matrix[:-1, j]) - matrix[-1, j])) for j, stage in enumerate(seen[:-1])]


def sent(run: Readings) -> float:
    """All bytes of the run, up and down."""
    return sum(total(run.bytes_per_round(metric)) for metric in ("bytes_up", "bytes_down"))


def _square(run: Readings) -> NDArray[np.float64]:
    """R for the stages that have begun, T x T, higher is better: a loss is negated. NaN where not measured."""
    seen, cells = run.stages, run.r
    matrix = np.full((len(seen), len(seen)), np.nan)
    for i, stage in enumerate(seen):
        for j, task in enumerate(seen):
            last = stage is seen[-1]
            matrix[i, j] = run.after(stage, task.name) if last else cells.get((stage.index, task.name), math.nan)
    return -matrix if run.lower_is_better else matrix


def _of_r(run: Readings, name: str) -> float:
    """One of ``continual.metrics.METRICS``, in the score's own direction; as recorded where R has gaps."""
    if not run.stages:
        return math.nan
    value = metrics.METRICS[name](_square(run))
    if not math.isfinite(value):
        recorded = run.run_curve(name)
        return recorded[-1][1] if recorded else math.nan
    is_score = name in ("average_accuracy", "la")
    return -value if is_score and run.lower_is_better else value


def _costs(run: Readings) -> list[tuple[str, str]]:
    up, down = (total(run.bytes_per_round(metric)) for metric in ("bytes_up", "bytes_down"))
    seconds = total(run.run_curve("seconds"))
    speed = [value for _, value in run.run_curve("tokens_per_second") if math.isfinite(value)]
    return [
        *([("Sent by the sites", wording.size(up))] if up else []),
        *([("Sent to the sites", wording.size(down))] if down else []),
        *([("Time of all rounds", wording.duration(seconds))] if seconds else []),
        *([("Speed", f"{fmean(speed):,.0f} tokens per second")] if speed else []),
    ]


def _epsilon(run: Readings, privacy: Mapping[str, Any]) -> str:
    spending = Spending.of(run, privacy)
    if not spending.private:
        return "none (no differential privacy)"
    if spending.highest is None:
        return "nothing spent yet"
    return f"{wording.epsilon(spending.highest[1].epsilon)} ({spending.guarantee})"


def _unsigned(value: float, metric: str) -> str:
    return wording.change(value, metric, signed=False)
